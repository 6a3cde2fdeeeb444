"""Filing units and taking them back, inside the transaction of the app that does it.

A filed unit is committed together with what made it due, and the relayer is woken by PostgreSQL
(`NOTIFY`) at that commit. Nothing here needs a chain or a key, so any process may do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import InvalidInput, InvalidStateTransition, NotFound
from causeway.base.ids import uuid7
from causeway.relayer.kind import UnitKind, UnitRequest
from causeway.relayer.ledger import record, release
from causeway.relayer.models import TransactionRow, UnitRow
from causeway.relayer.states import check_edge

#: The channel on which relayers hear that there may be work.
CHANNEL = "causeway_relayer"


@dataclass(frozen=True)
class Filed:
    """What became of the keys of a filing."""

    #: Owed now because of this filing.
    new: tuple[str, ...]
    #: Owed already and not on their way: they have the new payload.
    renewed: tuple[str, ...]
    #: On their way in a transaction with the payload they had; the new one counts if they return.
    bound: tuple[str, ...]


@dataclass(frozen=True)
class Withdrawn:
    """What became of the keys of a withdrawal."""

    #: Not owed any more.
    withdrawn: tuple[str, ...]
    #: In a signed transaction, which will be cancelled; it may still win.
    cancelling: tuple[str, ...]


async def notify(session: AsyncSession) -> None:
    """Wake the relayers when this transaction commits."""
    await session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


async def file(
    session: AsyncSession,
    kind: UnitKind,
    chain_id: int,
    requests: Sequence[UnitRequest],
    *,
    now: datetime,
    batch_id: UUID | None = None,
    requested_by: str | None = None,
    ready_at: datetime | None = None,
    priority: int = 0,
) -> Filed:
    """File units: each is owed once from this transaction's commit on.

    A key that is owed already is not owed twice: its payload, batch and time are replaced. Units of
    one `batch_id` travel together, never with others. Raises
    `InvalidInput` when one key comes with two payloads.
    """
    by_key: dict[str, UnitRequest] = {}
    for request in requests:
        if by_key.setdefault(request.key, request).payload != request.payload:
            raise InvalidInput(f"the unit {request.key!r} is filed with two payloads at once")
    if not by_key:
        return Filed((), (), ())
    # Ids in the order of the requests, which is the order they travel in; rows in the order of
    # keys, so that two filings never wait for each other in a circle.
    ids = dict(zip(by_key, sorted(uuid7() for _ in by_key), strict=True))
    statement = insert(UnitRow).values(
        [
            {
                "id": ids[key],
                "app": kind.app,
                "kind": kind.name,
                "chain_id": chain_id,
                "unit_key": key,
                "payload": dict(by_key[key].payload),
                "state": "pending",
                "batch_id": batch_id,
                "priority": priority,
                "ready_at": ready_at or now,
                "attempts": 0,
                "reverts": 0,
                "requested_by": requested_by,
                "created_at": now,
                "updated_at": now,
            }
            for key in sorted(by_key)
        ]
    )
    given = statement.excluded
    updated = {
        name: given[name]
        for name in ("payload", "batch_id", "requested_by", "ready_at", "priority", "updated_at")
    }
    statement = statement.on_conflict_do_update(
        index_elements=[UnitRow.unit_key],
        index_where=text("state IN ('pending', 'bound')"),
        set_=updated | {"withdraw_at": None},
    )
    rows = await session.execute(
        statement.returning(
            UnitRow.unit_key, UnitRow.state, literal_column("xmax = 0", Boolean).label("is_new")
        )
    )
    became = {key: "new" if new else state for key, state, new in rows}
    await notify(session)
    return Filed(
        new=tuple(key for key in by_key if became[key] == "new"),
        renewed=tuple(key for key in by_key if became[key] == "pending"),
        bound=tuple(key for key in by_key if became[key] == "bound"),
    )


async def withdraw(session: AsyncSession, unit_keys: Sequence[str], *, now: datetime) -> Withdrawn:
    """Take units back: at once where nothing was ever signed for them.

    Where something was, its transaction is marked to be cancelled; the unit is withdrawn when the
    cancellation is confirmed, and settled if the original wins. Keys that are not owed are left
    out. Other units of a cancelled transaction are sent again.
    """
    # The transactions are locked before the units, in the order in which the relayer does it.
    tx_ids = await session.scalars(
        select(UnitRow.tx_id)
        .where(UnitRow.unit_key.in_(unit_keys), UnitRow.state == "bound")
        .distinct()
    )
    wanted = [tx_id for tx_id in tx_ids if tx_id is not None]
    transactions = {
        row.id: row
        for row in await session.scalars(
            select(TransactionRow)
            .where(TransactionRow.id.in_(wanted))
            .order_by(TransactionRow.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    units = await session.scalars(
        select(UnitRow)
        .where(UnitRow.unit_key.in_(unit_keys), UnitRow.state.in_(("pending", "bound")))
        .order_by(UnitRow.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    withdrawn: list[str] = []
    cancelling: list[str] = []
    to_drop: dict[UUID, TransactionRow] = {}
    for unit in units:
        unit.withdraw_at = now
        tx = None if unit.tx_id is None else transactions.get(unit.tx_id)
        if unit.state == "pending":
            release(unit, now, now)
            withdrawn.append(unit.unit_key)
        elif tx is not None and tx.state == "planned":
            to_drop[tx.id] = tx
            withdrawn.append(unit.unit_key)
        else:
            if tx is not None and tx.state in ("signed", "sent") and not tx.cancel_requested_at:
                tx.cancel_requested_at = now
                record(session, tx, now, "cancel_requested", by="withdrawal")
            cancelling.append(unit.unit_key)
    await session.flush()
    for tx in to_drop.values():
        await drop(session, tx, now, "a unit was withdrawn")
    await notify(session)
    return Withdrawn(tuple(withdrawn), tuple(cancelling))


async def drop(session: AsyncSession, tx: TransactionRow, now: datetime, reason: str) -> None:
    """Drop a locked, planned transaction: nothing was signed, its units are owed again."""
    check_edge(tx.state, "dropped")
    tx.state = "dropped"
    tx.updated_at = now
    tx.waiting = None
    record(session, tx, now, "dropped", reason=reason)
    for unit in await session.scalars(
        select(UnitRow)
        .where(UnitRow.tx_id == tx.id, UnitRow.state == "bound")
        .with_for_update()
        .execution_options(populate_existing=True)
    ):
        release(unit, now, now)


async def cancel(
    session: AsyncSession, tx_id: UUID, *, now: datetime, withdraw_units: bool, by: str | None
) -> None:
    """Have a transaction cancelled: dropped when it is only planned, else replaced by a no-op.

    Raises `NotFound`, and `InvalidStateTransition` when it is mined already.
    """
    tx = await session.get(TransactionRow, tx_id, with_for_update=True, populate_existing=True)
    if tx is None:
        raise NotFound(f"there is no transaction {tx_id}")
    if tx.state not in ("planned", "signed", "sent"):
        raise InvalidStateTransition(f"transaction {tx_id}", tx.state, "cancelled")
    if withdraw_units:
        await session.execute(
            update(UnitRow)
            .where(UnitRow.tx_id == tx_id, UnitRow.state == "bound")
            .values(withdraw_at=now)
        )
    if tx.state == "planned":
        await drop(session, tx, now, f"cancelled by {by or 'an operator'}")
    elif tx.cancel_requested_at is None:
        tx.cancel_requested_at = now
        record(session, tx, now, "cancel_requested", by=by or "an operator")
    await notify(session)
