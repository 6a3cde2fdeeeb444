"""What Motify owes on chain, told to the relayer: results of participants, and finalizations.

A unit is one participant's result: it is owed once, whatever transaction carries it. Units of one
frozen batch travel together. Before they are sent and after they are mined the contract is looked
at: who was declared by somebody else, or took a timeout refund, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import incidents
from causeway.apps.motify.context import CHAIN, MotifyContext
from causeway.apps.motify.contract import Contract
from causeway.apps.motify.settings import TIMEOUT_S
from causeway.apps.motify.shares import BasisPoints
from causeway.base.errors import Bug
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.relayer.kind import (
    At,
    Call,
    Done,
    MinedBatch,
    Never,
    NotDone,
    NotYet,
    Other,
    Outcome,
    SettledBatch,
    Unit,
    UnitKind,
)

log = structlog.get_logger(__name__)

DECLARE = "declare"
FINALIZE = "finalize"

#: What the contract says when our account is not its owner.
_NOT_OURS = frozenset({"Not authorized", "Only owner can finalize before timeout"})


def result_key(chain_id: int, contract: str, challenge_id: int, wallet: str) -> str:
    """Return the key under which a participant's result is owed, once."""
    return f"motify:{chain_id}:{contract}:{challenge_id}:{wallet}"


def finalize_key(chain_id: int, contract: str, challenge_id: int) -> str:
    """Return the key under which a finalization is owed, once."""
    return f"motify:{chain_id}:{contract}:{challenge_id}:finalize"


def batch_id(challenge_key: str, batch_no: int, shares: Sequence[tuple[str, int]]) -> UUID:
    """Return the id of a frozen batch: of the same shares always the same."""
    return uuid5(NAMESPACE_URL, f"{challenge_key}:{batch_no}:{sorted(shares)}")


def declare_kind(ctx: MotifyContext) -> UnitKind:
    """Return the kind of unit that is one participant's result."""
    work = _Declaring(ctx.services.abi)
    return _kind(ctx, DECLARE, work, ctx.settings.chunk_size)


def finalize_kind(ctx: MotifyContext) -> UnitKind:
    """Return the kind of unit that is the finalization of one challenge."""
    return _kind(ctx, FINALIZE, _Finalizing(ctx.services.abi), 1)


def _kind(
    ctx: MotifyContext, name: str, work: _Declaring | _Finalizing, max_batch: int
) -> UnitKind:
    settings = ctx.settings
    fee = settings.max_fee_gwei
    return UnitKind(
        name=name,
        app="motify",
        chain=CHAIN,
        encode=work.encode,
        is_done=work.is_done,
        on_settled=work.on_settled,
        on_unmined=work.on_unmined,
        on_failed=work.on_failed,
        abi=ctx.services.abi,
        hold_errors=_NOT_OURS,
        max_batch=max_batch,
        finality=settings.motify_finality,
        max_fee_wei=None if fee is None else int(fee * 10**9),
        stuck_after_s=settings.motify_stuck_seconds,
    )


class _Declaring:
    def __init__(self, abi: Abi) -> None:
        self._abi = abi

    def encode(self, units: Sequence[Unit]) -> Call:
        places = {_place(unit) for unit in units}
        if len(places) != 1:
            raise Bug("one declaration is of one challenge")
        address, challenge_id = places.pop()
        wallets = [str(unit.payload["wallet"]) for unit in units]
        shares = [BasisPoints(int(unit.payload["bps"])).value for unit in units]
        return Call(
            address,
            self._abi.encode("declareResults", challenge_id, wallets, shares),
        )

    async def is_done(
        self, chain: EvmChain, units: Sequence[Unit], at: At
    ) -> Mapping[str, Outcome]:
        found: dict[str, Outcome] = {}
        by_challenge: dict[tuple[str, int], list[Unit]] = {}
        for unit in units:
            by_challenge.setdefault(_place(unit), []).append(unit)
        block = await chain.block(at)
        now = None if block is None else int(block.timestamp.timestamp())
        for (address, challenge_id), theirs in by_challenge.items():
            contract = Contract(chain, address, self._abi)
            wallets = [str(unit.payload["wallet"]) for unit in theirs]
            people = {
                one.wallet: one for one in await contract.participants(challenge_id, wallets, at)
            }
            for unit in theirs:
                wallet, bps = str(unit.payload["wallet"]), int(unit.payload["bps"])
                one = people.get(wallet)
                if one is None:
                    found[unit.key] = Never(f"{wallet} is no participant of {challenge_id}")
                elif one.declared:
                    found[unit.key] = Done() if one.bps == bps else Other(one.bps)
                elif _too_late(unit, now):
                    found[unit.key] = NotYet("the contract's seven days are over", after_s=30)
                else:
                    found[unit.key] = NotDone()
        return found

    async def on_settled(self, session: AsyncSession, batch: SettledBatch) -> None:
        """Note what the chain has, in the relayer's own confirming commit."""
        for unit in batch.units:
            bps = int(str(batch.values.get(unit.key, unit.payload["bps"])))
            if bps != int(unit.payload["bps"]):
                await incidents.raise_incident(
                    session,
                    "declared_differs",
                    incidents.challenge(int(unit.payload["challenge_id"]), unit.payload["wallet"]),
                    ours=int(unit.payload["bps"]),
                    on_chain=bps,
                )
            tx_hash = batch.hashes.get(unit.key) or (batch.tx.hash if batch.tx else None)
            await session.execute(
                text(
                    "UPDATE motify.scores SET declared_bps = :bps, declared_tx = :tx, "
                    "refused = NULL WHERE settlement_id = CAST(:settlement AS uuid) "
                    "AND wallet = :wallet"
                ),
                {
                    "bps": bps,
                    "tx": tx_hash,
                    "settlement": str(unit.payload["settlement_id"]),
                    "wallet": unit.payload["wallet"],
                },
            )
        for settlement in sorted({str(unit.payload["settlement_id"]) for unit in batch.units}):
            await session.execute(_ALL_DECLARED, {"settlement": settlement})

    async def on_unmined(self, session: AsyncSession, batch: MinedBatch) -> None:
        """Take back what a reorganisation took; the same bytes are on their way."""
        for settlement in sorted({str(unit.payload["settlement_id"]) for unit in batch.units}):
            await session.execute(
                text(
                    "UPDATE motify.scores SET declared_bps = NULL, declared_tx = NULL "
                    "WHERE settlement_id = CAST(:settlement AS uuid) AND declared_tx = :tx"
                ),
                {"settlement": settlement, "tx": batch.tx.hash},
            )
            await session.execute(
                text(
                    "UPDATE motify.settlements SET status = 'declaring', fence = fence + 1, "
                    "lease_owner = NULL, lease_until = NULL WHERE id = CAST(:settlement AS uuid) "
                    "AND status IN ('declared', 'finalizing') AND EXISTS (SELECT "
                    "FROM motify.scores WHERE settlement_id = CAST(:settlement AS uuid) "
                    "AND batch_no IS NOT NULL AND declared_bps IS NULL)"
                ),
                {"settlement": settlement},
            )

    async def on_failed(self, session: AsyncSession, unit: Unit, reason: str) -> None:
        """Note who cannot be declared: the others go on, and a person has to look."""
        await session.execute(
            text(
                "UPDATE motify.scores SET refused = :reason WHERE "
                "settlement_id = CAST(:settlement AS uuid) AND wallet = :wallet"
            ),
            {
                "reason": reason[:1000],
                "settlement": str(unit.payload["settlement_id"]),
                "wallet": unit.payload["wallet"],
            },
        )
        subject = incidents.challenge(int(unit.payload["challenge_id"]), unit.payload["wallet"])
        await incidents.raise_incident(session, "declaration_refused", subject, reason=reason[:500])


#: A challenge is declared when every frozen result is on chain.
_ALL_DECLARED = text(
    """
    UPDATE motify.settlements SET status = 'declared', next_at = NULL
    WHERE id = CAST(:settlement AS uuid) AND status = 'declaring' AND NOT EXISTS (
        SELECT FROM motify.scores WHERE settlement_id = CAST(:settlement AS uuid)
            AND batch_no IS NOT NULL AND declared_bps IS NULL)
    """
)


def _place(unit: Unit) -> tuple[str, int]:
    """Return contract and challenge; the contract is the one it was frozen for, for ever."""
    return str(unit.payload["contract"]), int(unit.payload["challenge_id"])


def _too_late(unit: Unit, now: int | None) -> bool:
    """Say whether the seven days are over and nobody ordered to declare all the same."""
    if unit.payload.get("late"):
        return False
    return now is None or now > int(unit.payload["end_time"]) + TIMEOUT_S


class _Finalizing:
    def __init__(self, abi: Abi) -> None:
        self._abi = abi

    def encode(self, units: Sequence[Unit]) -> Call:
        (unit,) = units
        address, challenge_id = _place(unit)
        return Call(address, self._abi.encode("finalizeAndProcessDonations", challenge_id))

    async def is_done(
        self, chain: EvmChain, units: Sequence[Unit], at: At
    ) -> Mapping[str, Outcome]:
        found: dict[str, Outcome] = {}
        for unit in units:
            address, challenge_id = _place(unit)
            finalized = await Contract(chain, address, self._abi).is_finalized(challenge_id, at)
            found[unit.key] = Done() if finalized else NotDone()
        return found

    async def on_settled(self, session: AsyncSession, batch: SettledBatch) -> None:
        """Note which transaction finalized a challenge, where it was ours."""
        for unit in batch.units:
            tx_hash = batch.hashes.get(unit.key) or (batch.tx.hash if batch.tx else None)
            await session.execute(
                text(
                    "UPDATE motify.settlements SET finalize_tx = coalesce(:tx, finalize_tx), "
                    "next_at = NULL WHERE id = CAST(:settlement AS uuid)"
                ),
                {"tx": tx_hash, "settlement": str(unit.payload["settlement_id"])},
            )

    async def on_unmined(self, session: AsyncSession, batch: MinedBatch) -> None:
        """Forget a transaction that a reorganisation took out of the chain."""
        await session.execute(
            text("UPDATE motify.settlements SET finalize_tx = NULL WHERE finalize_tx = :tx"),
            {"tx": batch.tx.hash},
        )

    async def on_failed(self, session: AsyncSession, unit: Unit, reason: str) -> None:
        """Look at the challenge again: perhaps a declaration is gone, and comes back."""
        subject = incidents.challenge(int(unit.payload["challenge_id"]))
        await incidents.raise_incident(
            session, "finalization_refused", subject, reason=reason[:500]
        )
        await session.execute(
            text(
                "UPDATE motify.settlements SET status = 'declared', "
                "next_at = clock_timestamp() + interval '60 seconds', fence = fence + 1, "
                "lease_owner = NULL, lease_until = NULL "
                "WHERE id = CAST(:settlement AS uuid) AND status = 'finalizing'"
            ),
            {"settlement": str(unit.payload["settlement_id"])},
        )
