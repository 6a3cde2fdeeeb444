"""ready → revealed: tokens are collected into batches, looked at on chain, and owed to the relayer.

The collector is a leased loop, one at a time in the whole installation. It only files what is owed;
the relayer's ledger decides what is sent, and tells us in its own confirming commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, func, select, text, update

from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.contract import Look, look_at
from causeway.apps.glisk.metadata import token_uri
from causeway.apps.glisk.models import RevealRequest, Token, TokenStatus
from causeway.apps.glisk.reveals import reveal_kind, same_author
from causeway.apps.glisk.units import CHAIN, REVEAL, unit_key
from causeway.base.faults import fault_point
from causeway.base.ids import uuid7
from causeway.chains.evm.chain import EvmChain
from causeway.chains.protocol import Finality
from causeway.pipelines import control
from causeway.relayer.kind import UnitRequest
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

#: Tokens that are ready and not owed to the relayer yet, in the order of their mint.
_CANDIDATES = text(
    """
    SELECT t.token_id, t.mint_block_number, t.mint_block_hash, t.metadata_cid, t.mint_timestamp,
           t.ready_at, e.author_wallet,
           extract(epoch FROM clock_timestamp() - t.ready_at) AS waited_s
    FROM glisk.tokens_s0 t LEFT JOIN glisk.mint_events e ON e.id = t.mint_event_id
    WHERE t.status = 'ready' AND NOT EXISTS (
        SELECT FROM causeway.relayer_units u
        WHERE u.app = 'glisk' AND u.unit_key = :prefix || t.token_id
          AND u.state IN ('pending', 'bound'))
    ORDER BY t.mint_timestamp, t.token_id
    LIMIT 500
    """
)


@dataclass(frozen=True)
class Batch:
    """What will be looked at on chain and, where that is well, filed."""

    id: UUID
    tokens: Sequence[Row[Any]]
    requested_by: str
    requests: Sequence[RevealRequest] = ()


async def collect(ctx: GliskContext, lease: Lease) -> None:
    """File the reveals that are due: a full batch, one that waited enough, or one asked for."""
    if CHAIN not in ctx.relayers:
        return
    chain = ctx.chains[CHAIN]
    prefix = unit_key(ctx.settings.chain_id or 0, ctx.settings.contract or "", 0)[:-1]
    async with unit_of_work(ctx) as uow:
        candidates = (await uow.session.execute(_CANDIDATES, {"prefix": prefix})).all()
        requests = await uow.requests.waiting()
        paused = await control.paused(uow.session, "glisk", REVEAL)
    if not candidates:
        if requests:
            await _taken(ctx, requests)
        return
    deep = await _deepest_block(chain, ctx.settings.glisk_reveal_confirmations)
    candidates = [row for row in candidates if row.mint_block_number <= deep]
    batch = choose(
        candidates,
        requests,
        wait_s=ctx.settings.batch_reveal_wait_seconds,
        most=ctx.settings.batch_reveal_max_tokens,
        paused=paused is not None,
    )
    if batch is not None:
        await _file(ctx, chain, batch)


def choose(
    candidates: Sequence[Row[Any]],
    requests: Sequence[RevealRequest],
    *,
    wait_s: float,
    most: int,
    paused: bool,
) -> Batch | None:
    """Return the next batch, or None when none is due.

    The clock starts at the first token that is ready, so that a steady trickle cannot delay it.
    """
    if requests and (not paused or any(r.force for r in requests)):
        allowed = [r for r in requests if r.force or not paused]
        wanted = {i for r in allowed for i in r.token_ids}
        tokens = [row for row in candidates if row.token_id in wanted][:most]
        return Batch(allowed[0].batch_id, tokens, "operator", allowed)
    if paused or not candidates:
        return None
    oldest_s = max(float(row.waited_s or 0) for row in candidates)
    if len(candidates) < most and oldest_s < wait_s:
        return None
    return Batch(uuid7(), candidates[:most], "collector")


async def _deepest_block(chain: EvmChain, depth: Finality) -> int:
    """Return the newest block that counts as settled for mints."""
    if isinstance(depth, int):
        return (await chain.head()).number - depth
    block = await chain.block(depth)
    return -1 if block is None else block.number


async def _file(ctx: GliskContext, chain: EvmChain, batch: Batch) -> None:
    """Look at each token on chain and owe the reveal of those that are well to the relayer."""
    contract = ctx.settings.contract or ""
    looks = await look_at(chain, contract, [row.token_id for row in batch.tokens])
    good = [row for row in batch.tokens if _well(ctx, row, looks[row.token_id])]
    fault_point("glisk.looked")
    async with ctx.database.transaction() as session:
        # Only tokens that are still the ones that were looked at.
        still = await session.scalars(
            select(Token)
            .where(
                Token.token_id.in_([row.token_id for row in good]),
                Token.status == TokenStatus.READY,
            )
            .with_for_update()
        )
        seen = {row.token_id: row for row in good}
        units = [
            UnitRequest(
                key=unit_key(ctx.settings.chain_id or 0, contract, token.token_id),
                payload={
                    "token_id": token.token_id,
                    "uri": token_uri(token.metadata_cid or ""),
                    "author": seen[token.token_id].author_wallet,
                    "mint_block_hash": token.mint_block_hash,
                },
            )
            for token in sorted(still, key=lambda t: (t.mint_timestamp, t.token_id))
            if token.mint_block_hash == seen[token.token_id].mint_block_hash
            and token.metadata_cid == seen[token.token_id].metadata_cid
        ]
        if units:
            await ctx.relayers[CHAIN].file(
                session,
                reveal_kind(ctx.settings),
                units,
                batch_id=batch.id,
                requested_by=batch.requested_by,
            )
        for request in batch.requests:
            request_row = await session.get_one(RevealRequest, request.batch_id)
            request_row.taken_at = func.clock_timestamp()  # type: ignore[assignment]
    fault_point("glisk.filed")
    if units:
        log.info("reveals_filed", tokens=len(units), batch_id=str(batch.id))
        ctx.relayers[CHAIN].wake()


def _well(ctx: GliskContext, row: Row[Any], look: Look) -> bool:
    """Say whether a token on chain is the one we know; others are left to the reader."""
    if look.revealed:
        return False
    other_author = (
        row.author_wallet is not None
        and look.author is not None
        and not same_author(row.author_wallet, look.author, ctx.settings.author_of_nobody)
    )
    if look.owner is None or other_author:
        log.warning("token_on_chain_differs", token_id=row.token_id, author=look.author)
        return False
    return True


async def _taken(ctx: GliskContext, requests: Sequence[RevealRequest]) -> None:
    async with ctx.database.transaction() as session:
        await session.execute(
            update(RevealRequest)
            .where(RevealRequest.batch_id.in_([r.batch_id for r in requests]))
            .values(taken_at=func.clock_timestamp())
        )
