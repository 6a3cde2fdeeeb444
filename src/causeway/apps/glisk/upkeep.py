"""Loops that keep GLISK's picture of the world right: probes, the look at reveals, the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from eth_utils.crypto import keccak
from prometheus_client import Counter
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.context import GliskContext
from causeway.apps.glisk.contract import contract_abi, look_at, uris_of
from causeway.apps.glisk.metadata import token_uri
from causeway.apps.glisk.models import (
    Incident,
    RecoveryRequest,
    StateValue,
    Token,
    TokenStatus,
)
from causeway.apps.glisk.recovery import recover_events, repair_tokens
from causeway.apps.glisk.sources import SOURCE
from causeway.apps.glisk.units import CHAIN
from causeway.base.errors import CausewayError, TransientError
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

GAPS = Counter("causeway_glisk_gaps_total", "Tokens on chain that were not known")
MISMATCHES = Counter("causeway_glisk_uri_mismatches_total", "Tokens whose URI is not ours")


async def probe(ctx: GliskContext, _lease: Lease) -> None:
    """Write down what the health pages show: head, gas price, keeper, what is down."""
    chain = ctx.chains[CHAIN]
    health: dict[str, Any] = {"chain": {"ok": True, "since": None, "error": None}}
    values: dict[str, Any] = {}
    try:
        head = await chain.head()
        fees = await chain.fee_history(1, [50])
        values["chain_head"] = {"number": head.number, "hash": head.hash}
        values["current_gas_price_gwei"] = fees.base_fee_per_gas[-1] / 10**9
        relayer = ctx.relayers.get(CHAIN)
        if relayer is not None:
            values["keeper"] = await _keeper(ctx, relayer.address)
    except CausewayError as error:
        health["chain"] = {"ok": False, "since": None, "error": error.message}
    async with ctx.database.transaction() as session:
        rows = await session.execute(
            text(
                "SELECT stage, paused_by, reason, since FROM causeway.stage_control "
                "WHERE app = 'glisk'"
            )
        )
        names = {"image": "replicate", "ipfs": "pinata"}
        for row in rows:
            stage = str(row.stage)
            health[names.get(stage, stage)] = {
                "ok": row.paused_by not in ("outage", "configuration"),
                "since": row.since.isoformat() if row.since else None,
                "error": row.reason,
            }
        values["service_health"] = health
        await keep(session, values)


async def _keeper(ctx: GliskContext, address: str) -> dict[str, Any]:
    chain, abi = ctx.chains[CHAIN], contract_abi()
    contract = ctx.settings.contract or ""
    answers = await chain.call_many(
        [
            (contract, abi.encode("hasRole", keccak(text="KEEPER_ROLE"), address)),
            (contract, abi.encode("hasRole", bytes(32), address)),
        ]
    )
    may = [
        not isinstance(answer, Exception) and abi.decode_result("hasRole", answer)[0] is True
        for answer in answers
    ]
    return {
        "address": address,
        "balance_wei": str(await chain.balance(address)),
        "has_role": any(may),
        "pending_nonce": await chain.nonce(address, "pending"),
    }


async def keep(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Store values of `system_state`."""
    for key, value in values.items():
        row = insert(StateValue).values(state_key=key, state_value=value)
        await session.execute(
            row.on_conflict_do_update(
                index_elements=[StateValue.state_key],
                set_={
                    "state_value": row.excluded.state_value,
                    "updated_at": func.clock_timestamp(),
                },
            )
        )


async def check_reveals(ctx: GliskContext, _lease: Lease) -> None:
    """Read the URI of every revealed token from the chain: revealed is not the same as right."""
    async with ctx.database.sessions() as session:
        rows = (
            await session.execute(
                select(Token.token_id, Token.metadata_cid)
                .where(Token.status == TokenStatus.REVEALED, Token.revealed_uri.is_(None))
                .order_by(Token.token_id)
                .limit(100)
            )
        ).all()
    if not rows:
        return
    uris = await uris_of(
        ctx.chains[CHAIN], ctx.settings.contract or "", [row.token_id for row in rows]
    )
    async with ctx.database.transaction() as session:
        for row in rows:
            await _check_one(session, row.token_id, row.metadata_cid, uris[row.token_id])


async def _check_one(
    session: AsyncSession, token_id: int, cid: str | None, uri: str | None
) -> None:
    if uri is None:
        return  # the token is not there just now: a reorganisation is under way
    changed = await session.scalar(
        update(Token)
        .where(Token.token_id == token_id, Token.status == TokenStatus.REVEALED)
        .values(revealed_uri=uri)
        .returning(Token.token_id)
    )
    if changed is not None and (cid is None or uri != token_uri(cid)):
        MISMATCHES.inc()
        log.error("uri_is_not_ours", token_id=token_id, uri=uri)
        session.add(
            Incident(
                kind="uri_mismatch",
                token_id=token_id,
                detail={"on_chain": uri, "ours": token_uri(cid) if cid else None},
            )
        )


async def take_recoveries(ctx: GliskContext, _lease: Lease) -> None:
    """Read again the blocks that operators asked for."""
    async with ctx.database.sessions() as session:
        requests: Sequence[RecoveryRequest] = (
            await session.scalars(
                select(RecoveryRequest)
                .where(RecoveryRequest.done_at.is_(None))
                .order_by(RecoveryRequest.created_at)
            )
        ).all()
    for request in requests:
        try:
            found = await recover_events(ctx, request.from_block, request.to_block)
            result: dict[str, Any] = {"applied": found.applied, "known": found.known}
        except TransientError as error:
            log.warning("recovery_waits", error=error)
            return
        except CausewayError as error:
            result = {"error": error.message}
        async with ctx.database.transaction() as session:
            await session.execute(
                update(RecoveryRequest)
                .where(RecoveryRequest.id == request.id)
                .values(done_at=func.clock_timestamp(), result=result)
            )
        if ctx.ring is not None:
            await ctx.ring("image")


async def missing_tokens(ctx: GliskContext, limit: int = 1000) -> tuple[list[int], int]:
    """Return the tokens that exist at a finalized, processed block and are not known, and it."""
    chain, contract = ctx.chains[CHAIN], ctx.settings.contract or ""
    final = await chain.block("finalized") or await chain.head()
    async with ctx.database.sessions() as session:
        read_to = await session.scalar(
            text("SELECT number FROM causeway.checkpoints WHERE source = :source"),
            {"source": SOURCE},
        )
    at = min(final.number, int(read_to or 0))
    if not await chain.code(contract, at):
        return [], at
    abi = contract_abi()
    answer = await chain.call(contract, abi.encode("nextTokenId"), at=at)
    count = int(str(abi.decode_result("nextTokenId", answer)[0])) - 1
    async with ctx.database.sessions() as session:
        missing = await session.scalars(
            text(
                "SELECT i FROM generate_series(1, CAST(:count AS bigint)) AS i "
                "WHERE NOT EXISTS (SELECT FROM glisk.tokens_s0 WHERE token_id = i) LIMIT :limit"
            ),
            {"count": count, "limit": limit},
        )
        return list(missing), at


async def audit(ctx: GliskContext) -> None:
    """Compare the tokens that exist at a finalized block with those known; repair what is missing.

    Their blocks are read again first; a token whose log cannot be found is made from the chain's
    state. A gap is an error of somebody's: it is logged and counted.
    """
    missing, at = await missing_tokens(ctx)
    if not missing:
        return
    GAPS.inc(len(missing))
    log.error("tokens_missing", count=len(missing), first=missing[0], at_block=at)
    await recover_events(ctx, ctx.indexers[SOURCE].source.start_block, at)
    contract = ctx.settings.contract or ""
    looks = await look_at(ctx.chains[CHAIN], contract, missing, at)
    await repair_tokens(ctx, {i: look for i, look in looks.items() if look.owner is not None}, at)
    if ctx.ring is not None:
        await ctx.ring("image")
