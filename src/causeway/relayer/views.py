"""What pages and commands show of the ledger; no signed bytes are ever among it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from causeway.relayer.models import (
    AccountRow,
    AttemptRow,
    EventRow,
    ReceiptRow,
    TransactionRow,
    TransactionUnitRow,
    UnitRow,
    WaitRow,
)


@dataclass(frozen=True)
class UnitView:
    """A unit as a transaction carried it, and what is known of it now."""

    key: str
    payload: dict[str, Any]
    state: str
    settled_cause: str | None
    settled_hash: str | None
    error: str | None
    requested_by: str | None


@dataclass(frozen=True)
class AttemptView:
    """Signed bytes by their hash, and what they offered per gas in wei."""

    n: int
    hash: str
    tip_wei: int
    cap_wei: int
    gas_limit: int
    is_cancel: bool
    state: str
    created_at: datetime
    sent_at: datetime | None
    sends: int
    rejected_reason: str | None


@dataclass(frozen=True)
class ReceiptView:
    """What the chain says became of it."""

    transaction_hash: str
    block_number: int
    block_hash: str
    status: int
    gas_used: int
    effective_gas_price_wei: int
    l1_fee_wei: int | None


@dataclass(frozen=True)
class EventView:
    """One line of its story."""

    at: datetime
    what: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class TransactionView:
    """A transaction with everything that belongs to it."""

    id: UUID
    app: str
    kind: str
    chain_id: int
    sender: str
    nonce: int | None
    to_address: str
    calldata: bytes
    value: int
    state: str
    waiting: str | None
    error: dict[str, Any] | None
    gas_limit: int
    requested_by: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    updated_at: datetime
    signed_at: datetime | None
    sent_at: datetime | None
    mined_at: datetime | None
    confirmed_at: datetime | None
    final_at: datetime | None
    units: tuple[UnitView, ...]
    attempts: tuple[AttemptView, ...]
    receipt: ReceiptView | None
    events: tuple[EventView, ...]

    @property
    def hash(self) -> str | None:
        """The hash that was mined, else that of the newest attempt; None before it is signed."""
        if self.receipt is not None:
            return self.receipt.transaction_hash
        return self.attempts[-1].hash if self.attempts else None

    @property
    def fee_wei(self) -> int | None:
        """What its gas and its data did cost; None while it is in no block."""
        receipt = self.receipt
        if receipt is None:
            return None
        return receipt.gas_used * receipt.effective_gas_price_wei + (receipt.l1_fee_wei or 0)

    @property
    def cost_wei(self) -> int | None:
        """What it did cost in all: the fee, and the value if that went along."""
        if self.receipt is None or self.fee_wei is None:
            return None
        mined = next(one for one in self.attempts if one.hash == self.receipt.transaction_hash)
        went = self.receipt.status == 1 and not mined.is_cancel
        return self.fee_wei + (self.value if went else 0)

    @property
    def most_wei(self) -> int | None:
        """The most it may cost as it is offered now; None before it is signed."""
        if not self.attempts:
            return None
        return max(one.gas_limit * one.cap_wei for one in self.attempts) + self.value


@dataclass(frozen=True)
class WaitView:
    """A kind that waits, and why."""

    app: str
    kind: str
    cause: str
    reason: str
    since: datetime
    alerted_at: datetime | None


@dataclass(frozen=True)
class AccountView:
    """A signing account, as health pages show it. Amounts in wei."""

    chain_id: int
    sender: str
    mode: str
    reason: str | None
    mode_by: str | None
    mode_since: datetime
    balance_wei: int | None
    #: Since when it holds less than its warning.
    low_since: datetime | None
    needed_wei: int | None
    base_fee_wei: int | None
    gas_price_wei: int | None
    checked_at: datetime | None
    waits: tuple[WaitView, ...]


async def transaction_view(session: AsyncSession, tx_id: UUID) -> TransactionView | None:
    """Return a transaction with its units, attempts, receipt and story; None if there is none."""
    found = await _views(session, [tx_id])
    return found[0] if found else None


async def transactions_of(
    session: AsyncSession,
    app: str | None = None,
    *,
    states: tuple[str, ...] = (),
    chain_id: int | None = None,
    sender: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[TransactionView]:
    """Return transactions, newest first; `before` is the last id of the page before.

    `app`, `chain_id` and `sender` (checksummed) leave out all others.
    """
    query = select(TransactionRow.id)
    if app is not None:
        query = query.where(TransactionRow.app == app)
    if chain_id is not None:
        query = query.where(TransactionRow.chain_id == chain_id)
    if sender is not None:
        query = query.where(TransactionRow.sender == sender)
    if states:
        query = query.where(TransactionRow.state.in_(states))
    if before is not None:
        query = query.where(TransactionRow.id < before)
    ids = list(await session.scalars(query.order_by(TransactionRow.id.desc()).limit(limit)))
    return await _views(session, ids)


async def _views(session: AsyncSession, ids: Sequence[UUID]) -> list[TransactionView]:
    """Return the transactions with these ids, newest first, in five queries."""
    units: dict[UUID, list[UnitView]] = {}
    for carried, unit in await session.execute(
        select(TransactionUnitRow, UnitRow)
        .join(UnitRow, UnitRow.id == TransactionUnitRow.unit_id)
        .where(TransactionUnitRow.tx_id.in_(ids))
        .order_by(TransactionUnitRow.ordinal)
    ):
        view = UnitView(
            carried.unit_key,
            carried.payload,
            unit.state,
            unit.settled_cause,
            unit.settled_hash,
            unit.error,
            unit.requested_by,
        )
        units.setdefault(carried.tx_id, []).append(view)
    attempts: dict[UUID, list[AttemptView]] = {}
    for row in await session.scalars(
        select(AttemptRow)
        .where(AttemptRow.tx_id.in_(ids))
        .options(defer(AttemptRow.raw))
        .order_by(AttemptRow.n)
    ):
        attempts.setdefault(row.tx_id, []).append(AttemptView(**_shared(AttemptView, row)))
    events: dict[UUID, list[EventView]] = {}
    for row in await session.scalars(
        select(EventRow).where(EventRow.tx_id.in_(ids)).order_by(EventRow.id)
    ):
        events.setdefault(row.tx_id, []).append(EventView(**_shared(EventView, row)))
    receipts = {
        row.tx_id: ReceiptView(**_shared(ReceiptView, row))
        for row in await session.scalars(select(ReceiptRow).where(ReceiptRow.tx_id.in_(ids)))
    }
    return [
        TransactionView(
            **_shared(TransactionView, tx),
            units=tuple(units.get(tx.id, ())),
            attempts=tuple(attempts.get(tx.id, ())),
            receipt=receipts.get(tx.id),
            events=tuple(events.get(tx.id, ())),
        )
        for tx in await session.scalars(
            select(TransactionRow)
            .where(TransactionRow.id.in_(ids))
            .order_by(TransactionRow.id.desc())
        )
    ]


async def account_view(session: AsyncSession, chain_id: int, sender: str) -> AccountView | None:
    """Return an account with the kinds that wait; None when it has never been used."""
    row = await session.get(AccountRow, (chain_id, sender), populate_existing=True)
    return None if row is None else await _account(session, row)


async def accounts(session: AsyncSession) -> list[AccountView]:
    """Return every account that has ever signed here."""
    rows = await session.scalars(
        select(AccountRow).order_by(AccountRow.chain_id, AccountRow.sender)
    )
    return [await _account(session, row) for row in rows.all()]


async def _account(session: AsyncSession, row: AccountRow) -> AccountView:
    waits = await session.scalars(
        select(WaitRow)
        .where(WaitRow.chain_id == row.chain_id, WaitRow.sender == row.sender)
        .order_by(WaitRow.app, WaitRow.kind)
    )
    return AccountView(
        **_shared(AccountView, row),
        waits=tuple(WaitView(**_shared(WaitView, wait)) for wait in waits),
    )


def _shared(view: Any, row: object) -> dict[str, Any]:
    """Return the row's values for the fields that a view and its row have in common."""
    names = {one.name for one in fields(view)}
    return {name: getattr(row, name) for name in names if hasattr(type(row), name)}
