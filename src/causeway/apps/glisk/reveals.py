"""What GLISK owes on chain, told to the relayer: how a reveal is encoded and seen to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.contract import Look, contract_abi, look_at, uris_of
from causeway.apps.glisk.models import Incident, Token, TokenStatus
from causeway.apps.glisk.settings import GliskSettings
from causeway.apps.glisk.units import CHAIN, REVEAL, token_of, unit_key
from causeway.chains.evm.chain import EvmChain
from causeway.relayer.kind import (
    At,
    Call,
    Done,
    MinedBatch,
    Never,
    NotDone,
    Other,
    Outcome,
    SettledBatch,
    Unit,
    UnitKind,
)

log = structlog.get_logger(__name__)


def reveal_kind(settings: GliskSettings) -> UnitKind:
    """Return the one kind of unit: a token's URI, up to fifty in a transaction."""
    reveals = Reveals(settings)
    cap = settings.reveal_max_gas_price_gwei
    return UnitKind(
        name=REVEAL,
        app="glisk",
        chain=CHAIN,
        encode=reveals.encode,
        is_done=reveals.is_done,
        on_settled=reveals.on_settled,
        on_unmined=reveals.on_unmined,
        on_failed=reveals.on_failed,
        abi=contract_abi(),
        drop_reverted=reveals.offender,
        hold_errors=frozenset({"AccessControlUnauthorizedAccount"}),
        max_batch=settings.batch_reveal_max_tokens,
        finality=settings.glisk_reveal_confirmations,
        gas_strategy=settings.gas_strategy,
        gas_buffer_ppm=int(settings.reveal_gas_buffer_multiplier * 1_000_000),
        max_fee_wei=None if cap is None else int(cap * 10**9),
        stuck_after_s=settings.transaction_timeout_seconds,
    )


class Reveals:
    """The functions of the kind."""

    def __init__(self, settings: GliskSettings) -> None:
        self._settings = settings
        self._contract = settings.contract or ""

    def encode(self, units: Sequence[Unit]) -> Call:
        """Return the call that reveals these tokens."""
        ids = [token_of(unit.key) for unit in units]
        uris = [str(unit.payload["uri"]) for unit in units]
        return Call(self._contract, contract_abi().encode("revealTokens", ids, uris))

    async def is_done(
        self, chain: EvmChain, units: Sequence[Unit], at: At
    ) -> Mapping[str, Outcome]:
        """Say of each token whether it is revealed, with our URI or another.

        A token that is not there, or is another author's since a reorganisation, is never
        revealed: the contract would let us, and whoever mints it later would have our picture.
        """
        ids = [token_of(unit.key) for unit in units]
        looks = await look_at(chain, self._contract, ids, at)
        revealed = [i for i in ids if looks[i].revealed]
        uris = await uris_of(chain, self._contract, revealed, at)
        return {unit.key: self._outcome(unit, looks[token_of(unit.key)], uris) for unit in units}

    def _outcome(self, unit: Unit, look: Look, uris: Mapping[int, str | None]) -> Outcome:
        token_id = token_of(unit.key)
        if look.revealed:
            uri = uris[token_id]
            return Done() if uri == unit.payload["uri"] else Other(uri)
        if look.owner is None:
            return Never(f"token {token_id} is not on the chain any more")
        expected = unit.payload.get("author")
        if (
            expected
            and look.author
            and not same_author(str(expected), look.author, self._settings.author_of_nobody)
        ):
            return Never(f"token {token_id} is another author's since a reorganisation")
        return NotDone()

    def offender(self, name: str, args: Sequence[object], units: Sequence[Unit]) -> str | None:
        """Return the key of the token that a revert names."""
        if name != "AlreadyRevealed" or not args:
            return None
        key = unit_key(self._settings.chain_id or 0, self._contract, int(str(args[0])))
        return key if any(unit.key == key for unit in units) else None

    async def on_settled(self, session: AsyncSession, batch: SettledBatch) -> None:
        """Move the tokens to `revealed` in the relayer's own confirming commit."""
        for unit in batch.units:
            token_id = token_of(unit.key)
            uri = batch.values.get(unit.key, unit.payload["uri"])
            tx_hash = batch.hashes.get(unit.key) or (batch.tx.hash if batch.tx else None)
            token = await session.get(Token, token_id, with_for_update=True)
            fits = (
                token is not None
                and token.mint_block_hash == unit.payload.get("mint_block_hash")
                and batch.cause != "other_value"
            )
            if not fits:
                session.add(
                    Incident(
                        kind="reveal_conflict",
                        token_id=token_id,
                        detail={
                            "revealed_uri": str(uri),
                            "our_uri": unit.payload["uri"],
                            "transaction": tx_hash,
                            "cause": batch.cause,
                            "why": "the token is not the one the reveal was made for"
                            if batch.cause != "other_value"
                            else "the chain holds another URI, for ever",
                        },
                    )
                )
                log.error("reveal_conflict", token_id=token_id, transaction=tx_hash)
            if token is None:
                continue
            if token.status == TokenStatus.REVEALED:
                token.reveal_tx_hash = token.reveal_tx_hash or tx_hash
                continue
            token.status = TokenStatus.REVEALED.value
            token.reveal_tx_hash = tx_hash
            token.revealed_at = func.clock_timestamp()  # type: ignore[assignment]
            token.lease_until = None
            token.lease_owner = None
            token.fence += 1

    async def on_unmined(self, session: AsyncSession, batch: MinedBatch) -> None:
        """Take tokens back to `ready` whose reveal was reorganised away after it was settled."""
        await session.execute(
            update(Token)
            .where(
                Token.token_id.in_([token_of(unit.key) for unit in batch.units]),
                Token.status == TokenStatus.REVEALED,
                Token.reveal_tx_hash == batch.tx.hash,
                Token.metadata_cid.is_not(None),
            )
            .values(
                status=TokenStatus.READY.value,
                reveal_tx_hash=None,
                revealed_uri=None,
                revealed_at=None,
            )
        )

    async def on_failed(self, session: AsyncSession, unit: Unit, reason: str) -> None:
        """Fail the token with the relayer's reason, unless its mint is being undone anyway."""
        token = await session.scalar(
            select(Token)
            .where(
                Token.token_id == token_of(unit.key),
                Token.status == TokenStatus.READY,
                Token.mint_block_hash == unit.payload.get("mint_block_hash"),
            )
            .with_for_update()
        )
        if token is not None:
            token.status = TokenStatus.FAILED.value
            token.last_error = reason[:1000]


def same_author(expected: str, on_chain: str, author_of_nobody: str) -> bool:
    """Say whether the chain's prompt author is the one a token was booked to."""
    if int(on_chain, 16) == 0:
        return expected.lower() == author_of_nobody.lower()
    return expected.lower() == on_chain.lower()
