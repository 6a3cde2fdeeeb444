"""Reading and writing the ledger. Every function here runs inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy import event, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from causeway.relayer.kind import Carrier, SettledBatch, Unit, UnitKind
from causeway.relayer.lane import Lane
from causeway.relayer.models import (
    AccountRow,
    AttemptRow,
    EventRow,
    ReceiptRow,
    TransactionRow,
    TransactionUnitRow,
    UnitRow,
)
from causeway.relayer.states import TransactionState, check_edge

_log = structlog.get_logger(__name__)
_MOVES = Counter(
    "causeway_relayer_transactions_total", "Transactions that came to a state", ["kind", "state"]
)
_UNITS = Counter("causeway_relayer_units_total", "Units that came to an end", ["kind", "state"])
_SECONDS = Histogram(
    "causeway_relayer_settle_seconds",
    "From a unit's filing to its settlement",
    ["kind"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)

#: Times that a state stamps on its transaction.
_STAMPS: Mapping[str, str] = {
    "signed": "signed_at",
    "sent": "sent_at",
    "mined": "mined_at",
    "confirmed": "confirmed_at",
}


@dataclass(frozen=True)
class Held:
    """A transaction with its attempts, lowest first, and its receipt, as they were when read."""

    tx: TransactionRow
    attempts: tuple[AttemptRow, ...]
    receipt: ReceiptRow | None

    @property
    def nonce(self) -> int:
        """Its nonce; only what has one is held."""
        assert self.tx.nonce is not None  # noqa: S101 - the table's check says so
        return self.tx.nonce

    @property
    def last(self) -> AttemptRow:
        """The attempt with the highest fees: the one that is sent."""
        return self.attempts[-1]


def after_commit(session: AsyncSession, tell: Callable[[], None]) -> None:
    """Have something told to logs and metrics once this transaction is committed, not before."""

    def committed(_session: Session) -> None:
        tell()

    event.listen(session.sync_session, "after_commit", committed, once=True)


def record(
    session: AsyncSession, tx: TransactionRow, at: datetime, what: str, **detail: object
) -> None:
    """Add a line to the transaction's story, and to the log."""
    session.add(EventRow(tx_id=tx.id, at=at, what=what, detail=detail))
    said: dict[str, object] = {
        "transaction_id": str(tx.id),
        "kind": f"{tx.app}.{tx.kind}",
        "nonce": tx.nonce,
    }
    after_commit(session, lambda: _log.info(f"relayer_{what}", **said | detail))


def move(
    session: AsyncSession,
    tx: TransactionRow,
    at: datetime,
    state: TransactionState,
    **detail: object,
) -> None:
    """Bring a locked transaction to a state and tell its story; refuses what is no edge."""
    check_edge(tx.state, state)
    tx.state = state
    tx.updated_at = at
    tx.waiting = None
    stamp = _STAMPS.get(state)
    if stamp is not None:
        setattr(tx, stamp, at)
    counter = _MOVES.labels(f"{tx.app}.{tx.kind}", state)
    after_commit(session, counter.inc)
    record(session, tx, at, state, **detail)


def wait_for(session: AsyncSession, tx: TransactionRow, at: datetime, reason: str) -> bool:
    """Say what a transaction waits for; True (and told in its story) when that is new."""
    if tx.waiting == reason:
        return False
    tx.waiting = reason
    tx.updated_at = at
    record(session, tx, at, "waiting", reason=reason)
    return True


async def locked(
    session: AsyncSession, tx_id: UUID, *states: TransactionState
) -> TransactionRow | None:
    """Lock a transaction and return it; None when it is in none of these states any more."""
    row = await session.get(TransactionRow, tx_id, with_for_update=True, populate_existing=True)
    return row if row is not None and row.state in states else None


async def locked_attempt(session: AsyncSession, attempt: AttemptRow) -> AttemptRow:
    """Return the attempt's row in this session; its transaction must be locked."""
    return await session.get_one(AttemptRow, (attempt.tx_id, attempt.n), populate_existing=True)


async def held(
    session: AsyncSession, lane: Lane, *states: TransactionState, not_final: bool = False
) -> list[Held]:
    """Return the lane's transactions in these states, by nonce; not locked."""
    wanted = select(TransactionRow)
    if not_final:
        wanted = wanted.where(TransactionRow.final_at.is_(None))
    rows = await session.scalars(
        wanted.where(
            TransactionRow.chain_id == lane.chain.chain_id,
            TransactionRow.sender == lane.sender,
            TransactionRow.state.in_(states),
            TransactionRow.nonce.is_not(None),
        ).order_by(TransactionRow.nonce)
    )
    found = list(rows)
    if not found:
        return []
    ids = [row.id for row in found]
    attempts: dict[UUID, list[AttemptRow]] = {}
    for attempt in await session.scalars(
        select(AttemptRow).where(AttemptRow.tx_id.in_(ids)).order_by(AttemptRow.n)
    ):
        attempts.setdefault(attempt.tx_id, []).append(attempt)
    receipts = {
        receipt.tx_id: receipt
        for receipt in await session.scalars(select(ReceiptRow).where(ReceiptRow.tx_id.in_(ids)))
    }
    return [Held(row, tuple(attempts[row.id]), receipts.get(row.id)) for row in found]


async def account(session: AsyncSession, lane: Lane, *, lock: bool = False) -> AccountRow | None:
    """Return the lane's account row; None before the first step."""
    return await session.get(
        AccountRow,
        (lane.chain.chain_id, lane.sender),
        with_for_update=lock,
        populate_existing=True,
    )


async def ensure_account(session: AsyncSession, lane: Lane, mined: int) -> None:
    """Make the account's row; nonces already spent then are none of ours."""
    await session.execute(
        insert(AccountRow)
        .values(
            chain_id=lane.chain.chain_id,
            sender=lane.sender,
            mode="run",
            mode_since=lane.now(),
            nonce_floor=mined,
            nonce_mined=mined,
            fence=0,
        )
        .on_conflict_do_nothing()
    )


async def next_nonce(
    session: AsyncSession, lane: Lane, floor: int, sender: str | None = None
) -> int:
    """Return the nonce after our highest one, at least `floor`; there is no other counter.

    `sender` asks for another account on the lane's chain.
    """
    highest = await session.scalar(
        select(func.max(TransactionRow.nonce)).where(
            TransactionRow.chain_id == lane.chain.chain_id,
            TransactionRow.sender == (sender or lane.sender),
        )
    )
    return max(floor, 0 if highest is None else highest + 1)


def unit_of(row: UnitRow, payload: Mapping[str, Any] | None = None) -> Unit:
    """Return a unit as its kind sees it, with the payload a transaction used if one is given."""
    return Unit(
        id=row.id,
        key=row.unit_key,
        payload=row.payload if payload is None else payload,
        batch_id=row.batch_id,
        requested_by=row.requested_by,
        attempts=row.attempts,
        reverts=row.reverts,
        created_at=row.created_at,
    )


async def bound_units(session: AsyncSession, tx_id: UUID, *, lock: bool = False) -> list[Unit]:
    """Return the units a transaction still carries, in order, as they were signed."""
    query = (
        select(UnitRow, TransactionUnitRow.payload)
        .join(TransactionUnitRow, TransactionUnitRow.unit_id == UnitRow.id)
        .where(TransactionUnitRow.tx_id == tx_id, UnitRow.tx_id == tx_id, UnitRow.state == "bound")
        .order_by(TransactionUnitRow.ordinal)
    )
    if lock:
        query = query.with_for_update(of=UnitRow)
    return [unit_of(row, payload) for row, payload in (await session.execute(query))]


async def locked_units(
    session: AsyncSession, ids: Sequence[UUID], state: str
) -> dict[UUID, UnitRow]:
    """Lock these units, as far as they are in that state."""
    rows = await session.scalars(
        select(UnitRow)
        .where(UnitRow.id.in_(ids), UnitRow.state == state)
        .order_by(UnitRow.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {row.id: row for row in rows}


async def settle(
    session: AsyncSession,
    kind: UnitKind,
    rows: Mapping[UUID, UnitRow],
    batch: SettledBatch,
    at: datetime,
) -> None:
    """Settle locked units and make the app's own transition in the same commit."""
    for unit in batch.units:
        row = rows[unit.id]
        row.state = "settled"
        row.settled_cause = batch.cause
        row.settled_hash = batch.hashes.get(unit.key)
        row.error = None
        if unit.key in batch.values:
            row.error = f"the chain holds another value: {batch.values[unit.key]}"
        row.tx_id = batch.tx.id if batch.tx is not None else None
        row.updated_at = at
    seconds = [(at - rows[unit.id].created_at).total_seconds() for unit in batch.units]
    after_commit(session, lambda: _count_settled(kind, seconds))
    await session.flush()
    await kind.on_settled(session, batch)


def _count_settled(kind: UnitKind, seconds: Sequence[float]) -> None:
    for one in seconds:
        _UNITS.labels(kind.label, "settled").inc()
        _SECONDS.labels(kind.label).observe(max(0.0, one))


def _tell_failed(kind: UnitKind, unit: Unit, reason: str) -> None:
    _UNITS.labels(kind.label, "failed").inc()
    _log.warning("relayer_unit_failed", kind=kind.label, unit_key=unit.key, reason=reason)


async def fail(
    session: AsyncSession, kind: UnitKind, row: UnitRow, reason: str, at: datetime
) -> None:
    """Fail a locked unit with a reason a person understands, and tell its app."""
    unit = unit_of(row)
    row.state = "failed"
    row.error = reason[:1000]
    row.tx_id = None
    row.updated_at = at
    after_commit(session, lambda: _tell_failed(kind, unit, reason))
    await session.flush()
    if kind.on_failed is not None:
        await kind.on_failed(session, unit, reason)


def release(row: UnitRow, at: datetime, ready_at: datetime, reason: str | None = None) -> None:
    """Give a locked unit back: owed again, or withdrawn when nobody wants it any more."""
    row.state = "pending" if row.withdraw_at is None else "withdrawn"
    row.tx_id = None
    row.ready_at = ready_at
    row.error = reason
    row.updated_at = at


def carrier(tx: TransactionRow, tx_hash: str) -> Carrier:
    """Return a transaction as kinds see it, under the hash that was mined."""
    assert tx.nonce is not None  # noqa: S101 - it was mined
    return Carrier(tx.id, tx.nonce, tx_hash, tx.requested_by)
