"""The relayer's ledger: what is owed, what was signed, what the chain said, and the story of it.

relayer_units ──(tx_id, and relayer_transaction_units as history)── relayer_transactions
                                                                    ├─ relayer_attempts
                                                                    ├─ relayer_receipts
                                                                    └─ relayer_events
relayer_accounts   who signs, in which mode
relayer_pauses     what an operator has stopped: an account, an app, a chain, or all
relayer_waits      kinds that wait for something outside, and since when
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase

UNIT_STATES = ("pending", "bound", "settled", "failed", "withdrawn")
TRANSACTION_STATES = (
    "planned",
    "signed",
    "sent",
    "mined",
    "confirmed",
    "reverted",
    "cancelled",
    "lost",
    "dropped",
)
ATTEMPT_STATES = ("signed", "sent", "rejected", "mined")
MODES = ("run", "no-new", "no-sign", "hold:funds", "hold:budget")
PAUSE_MODES = ("no-new", "no-sign", "cancel-open")


class Wei(TypeDecorator[int]):
    """An amount in wei: NUMERIC(78,0) in the database, `int` here."""

    impl = Numeric(78, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Return the exact integer."""
        return None if value is None else int(value)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)


class UnitRow(KernelBase):
    """One thing owed on chain, once."""

    __tablename__ = "relayer_units"
    __table_args__ = (
        _one_of("state", UNIT_STATES),
        # A key is owed once at a time; what is settled may be filed again after a deep reorg.
        Index(
            "uq_relayer_units_open_key",
            "unit_key",
            unique=True,
            postgresql_where=text("state IN ('pending', 'bound')"),
        ),
        Index(
            "ix_relayer_units_due",
            "chain_id",
            "app",
            "kind",
            "ready_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(None, "unit_key"),
        Index("ix_relayer_units_bound", "tx_id", postgresql_where=text("state = 'bound'")),
        Index(None, "batch_id"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    app: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    unit_key: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(Text)
    batch_id: Mapped[UUID | None] = mapped_column(Uuid)
    #: Higher goes first.
    priority: Mapped[int] = mapped_column(SmallInteger)
    #: Not planned before this.
    ready_at: Mapped[datetime] = mapped_column(Instant)
    #: The transaction that carries it, or that settled it.
    tx_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("causeway.relayer_transactions.id"))
    #: `confirmed` by us, `already_on_chain`, or `other_value`.
    settled_cause: Mapped[str | None] = mapped_column(Text)
    settled_hash: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    #: Transactions that carried it and did not do it.
    attempts: Mapped[int] = mapped_column(Integer)
    #: Those of them that were mined and reverted.
    reverts: Mapped[int] = mapped_column(Integer)
    #: Somebody does not want it any more, but a signed transaction carries it.
    withdraw_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The account that looks at it now, so that another one looks at others; it binds nobody.
    claimed_by: Mapped[str | None] = mapped_column(Text)
    claimed_until: Mapped[datetime | None] = mapped_column(Instant)
    requested_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class TransactionRow(KernelBase):
    """One nonce of one account, or a plan that has none yet."""

    __tablename__ = "relayer_transactions"
    __table_args__ = (
        _one_of("state", TRANSACTION_STATES),
        UniqueConstraint("chain_id", "sender", "nonce"),
        CheckConstraint("(nonce IS NULL) = (state IN ('planned', 'dropped'))", name="nonce"),
        Index(None, "chain_id", "sender", "state"),
        Index(None, "app", "kind", "created_at"),
        Index(
            "ix_relayer_transactions_not_final",
            "chain_id",
            "sender",
            "nonce",
            postgresql_where=text("final_at IS NULL AND nonce IS NOT NULL"),
        ),
        Index(
            "ix_relayer_transactions_mined_at",
            "chain_id",
            "sender",
            "mined_at",
            postgresql_where=text("mined_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    app: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    sender: Mapped[str] = mapped_column(Text)
    nonce: Mapped[int | None] = mapped_column(BigInteger)
    to_address: Mapped[str] = mapped_column(Text)
    calldata: Mapped[bytes]
    value: Mapped[int] = mapped_column(Wei)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    #: The data fee outside the gas that was expected when it was signed, in wei.
    data_fee_wei: Mapped[int | None] = mapped_column(Wei)
    state: Mapped[str] = mapped_column(Text)
    #: What it waits for, in words for a person; None when it goes its way.
    waiting: Mapped[str | None] = mapped_column(Text)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    requested_by: Mapped[str | None] = mapped_column(Text)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    signed_at: Mapped[datetime | None] = mapped_column(Instant)
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    mined_at: Mapped[datetime | None] = mapped_column(Instant)
    confirmed_at: Mapped[datetime | None] = mapped_column(Instant)
    #: No reorg can change it any more; until then it is watched even after its end.
    final_at: Mapped[datetime | None] = mapped_column(Instant)


class TransactionUnitRow(KernelBase):
    """Which units a transaction carries or carried, in order, with the payload it used."""

    __tablename__ = "relayer_transaction_units"
    __table_args__ = (Index(None, "unit_id"),)

    tx_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("causeway.relayer_transactions.id"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    unit_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("causeway.relayer_units.id"))
    unit_key: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)


class AttemptRow(KernelBase):
    """Signed bytes for a transaction's nonce: the first, a bump of its fees, or a cancellation."""

    __tablename__ = "relayer_attempts"
    __table_args__ = (_one_of("state", ATTEMPT_STATES), UniqueConstraint("hash"))

    tx_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("causeway.relayer_transactions.id"), primary_key=True
    )
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    raw: Mapped[bytes]
    hash: Mapped[str] = mapped_column(Text)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    tip_wei: Mapped[int] = mapped_column(Wei)
    cap_wei: Mapped[int] = mapped_column(Wei)
    is_cancel: Mapped[bool]
    state: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Instant)
    #: First accepted, and on top of which block.
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    sent_block: Mapped[int | None] = mapped_column(BigInteger)
    #: How often the bytes went out, and when last; no time: they are due now.
    sends: Mapped[int] = mapped_column(Integer)
    last_sent_at: Mapped[datetime | None] = mapped_column(Instant)
    rejected_reason: Mapped[str | None] = mapped_column(Text)


class ReceiptRow(KernelBase):
    """What the chain says now became of a transaction; gone again when a reorg takes it out."""

    __tablename__ = "relayer_receipts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tx_id", "attempt_n"],
            ["causeway.relayer_attempts.tx_id", "causeway.relayer_attempts.n"],
        ),
    )

    tx_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    attempt_n: Mapped[int] = mapped_column(Integer)
    transaction_hash: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(Text)
    status: Mapped[int] = mapped_column(SmallInteger)
    gas_used: Mapped[int] = mapped_column(BigInteger)
    effective_gas_price_wei: Mapped[int] = mapped_column(Wei)
    l1_fee_wei: Mapped[int | None] = mapped_column(Wei)


class AccountRow(KernelBase):
    """An account that signs on a chain: its mode, and what was last known about it."""

    __tablename__ = "relayer_accounts"
    __table_args__ = (_one_of("mode", MODES),)

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sender: Mapped[str] = mapped_column(Text, primary_key=True)
    mode: Mapped[str] = mapped_column(Text)
    #: Why, and who said so: `kernel`, or the operator.
    reason: Mapped[str | None] = mapped_column(Text)
    mode_by: Mapped[str | None] = mapped_column(Text)
    mode_since: Mapped[datetime] = mapped_column(Instant)
    #: Nonces below this were spent before we knew the account, or without us.
    nonce_floor: Mapped[int] = mapped_column(BigInteger)
    nonce_mined: Mapped[int] = mapped_column(BigInteger)
    balance_wei: Mapped[int | None] = mapped_column(Wei)
    #: Since when it holds less than its warning; None while it has enough.
    low_since: Mapped[datetime | None] = mapped_column(Instant)
    #: What it must hold for the hold on it to end, or may spend for the one on its budget to end.
    needed_wei: Mapped[int | None] = mapped_column(Wei)
    base_fee_wei: Mapped[int | None] = mapped_column(Wei)
    #: Base fee plus our tip: what a transaction pays per gas now.
    gas_price_wei: Mapped[int | None] = mapped_column(Wei)
    #: The fence of the lease under which it was last written to.
    fence: Mapped[int] = mapped_column(BigInteger)
    checked_at: Mapped[datetime | None] = mapped_column(Instant)


class PauseRow(KernelBase):
    """What an operator has stopped: where a column is empty, any app, chain or account."""

    __tablename__ = "relayer_pauses"
    __table_args__ = (
        _one_of("mode", PAUSE_MODES),
        UniqueConstraint("app", "chain_id", "sender", postgresql_nulls_not_distinct=True),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    app: Mapped[str | None] = mapped_column(Text)
    chain_id: Mapped[int | None] = mapped_column(BigInteger)
    sender: Mapped[str | None] = mapped_column(Text)
    mode: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    paused_by: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(Instant)


class WaitRow(KernelBase):
    """A kind of unit that is not planned now, why, and since when; shown on health pages."""

    __tablename__ = "relayer_waits"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sender: Mapped[str] = mapped_column(Text, primary_key=True)
    app: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    #: `gas_price` above the maximum, or `refused` by the contract for a reason of ours.
    cause: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(Instant)
    checked_at: Mapped[datetime] = mapped_column(Instant)
    alerted_at: Mapped[datetime | None] = mapped_column(Instant)


class EventRow(KernelBase):
    """One thing that happened to a transaction; together they tell its story."""

    __tablename__ = "relayer_events"
    __table_args__ = (Index(None, "tx_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tx_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("causeway.relayer_transactions.id"))
    at: Mapped[datetime] = mapped_column(Instant)
    what: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
