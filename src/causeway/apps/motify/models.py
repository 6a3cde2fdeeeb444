"""Motify's tables, in schema `motify`. What they mean is section 6 of its specification.

The first five are public surface. `chain_challenges`, `chain_participants` and `chain_events` are
derived from the chain: events make their rows, which the kernel undoes on a reorganisation; what
events do not say is read from the contract afterwards and put into the same rows. `user_tokens` is
a view of the kernel's connections. Addresses are lower case everywhere.

Money is decided in `settlements` (one challenge) and `scores` (one participant of it), from
`readings` (what a provider said, when). Once a settlement is frozen its scores never change.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    column,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from causeway.apps.motify.rules import Terms
from causeway.base.ids import uuid7
from causeway.store.schema import Instant, Uint256, metadata_for

metadata = metadata_for("motify")

#: Where a settlement goes: section 8 of the specification.
SETTLEMENT_EDGES: Final = (
    ("live", "measuring"),
    ("measuring", "declaring"),
    ("measuring", "declared"),  # everybody was declared by somebody else
    ("measuring", "timed_out"),
    ("declaring", "declared"),
    ("declaring", "timed_out"),
    ("declared", "declaring"),  # a declaration was reorganised away
    ("declared", "finalizing"),
    ("finalizing", "declared"),
    ("finalizing", "declaring"),
    ("finalizing", "archived"),
    ("timed_out", "measuring"),  # the operator ordered it, before anything was frozen
    ("timed_out", "declaring"),  # or after
    ("timed_out", "declared"),
    ("live", "archived"),  # nobody took part
    ("measuring", "archived"),
    *((status, "failed") for status in ("measuring", "declared", "finalizing")),
    ("failed", "measuring"),
    ("failed", "declared"),
    ("failed", "finalizing"),
)

#: Where a score goes.
SCORE_EDGES: Final = (
    ("waiting", "measuring"),
    ("measuring", "waiting"),
    ("measuring", "resting"),
    ("measuring", "settled"),
    ("measuring", "failed"),
    ("resting", "waiting"),
    ("settled", "waiting"),
    ("failed", "waiting"),
    *((status, "frozen") for status in ("waiting", "measuring", "resting", "settled", "failed")),
)


class Base(DeclarativeBase):
    """Base class of Motify's tables."""

    metadata = metadata


def _now() -> Mapped[datetime]:
    return mapped_column(Instant, server_default=func.now())


def _id() -> Mapped[UUID]:
    return mapped_column(
        Uuid, primary_key=True, default=uuid7, server_default=text("gen_random_uuid()")
    )


class ChainChallenge(Base):
    """A challenge as the contract shows it."""

    __tablename__ = "chain_challenges"
    __table_args__ = (
        Index("ix_chain_challenges_end_time_results_finalized", "end_time", "results_finalized"),
    )

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    contract_address: Mapped[str] = mapped_column(Text, primary_key=True)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256, primary_key=True)
    recipient: Mapped[str | None] = mapped_column(Text)
    start_time: Mapped[int | None] = mapped_column(BigInteger)
    end_time: Mapped[int | None] = mapped_column(BigInteger)
    is_private: Mapped[bool | None]
    name: Mapped[str | None] = mapped_column(Text)
    api_type: Mapped[str | None] = mapped_column(Text)
    goal_type: Mapped[str | None] = mapped_column(Text)
    goal_amount: Mapped[Decimal | None] = mapped_column(Uint256)
    description: Mapped[str | None] = mapped_column(Text)
    total_donation_amount: Mapped[Decimal | None] = mapped_column(Uint256)
    results_finalized: Mapped[bool] = mapped_column(server_default=text("false"))
    participant_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    indexed_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The block of the newest event of it, and the block its values were read at.
    changed_block: Mapped[int] = mapped_column(BigInteger)
    read_block: Mapped[int | None] = mapped_column(BigInteger)


class ChainParticipant(Base):
    """Somebody who joined a challenge, as the contract shows it."""

    __tablename__ = "chain_participants"
    __table_args__ = (
        Index("ix_chain_participants_participant_address", "participant_address"),
        Index("ix_chain_participants_joined_block", "joined_block"),
    )

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    contract_address: Mapped[str] = mapped_column(Text, primary_key=True)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256, primary_key=True)
    participant_address: Mapped[str] = mapped_column(Text, primary_key=True)
    joined_block: Mapped[int] = mapped_column(BigInteger)
    #: The stake, in minor units; never changes.
    initial_amount: Mapped[Decimal | None] = mapped_column(Uint256)
    #: What is left to claim, in minor units.
    amount: Mapped[Decimal | None] = mapped_column(Uint256)
    #: In basis points, the contract's own scale.
    refund_percentage: Mapped[Decimal | None] = mapped_column(Uint256)
    result_declared: Mapped[bool] = mapped_column(server_default=text("false"))
    indexed_at: Mapped[datetime | None] = mapped_column(Instant)


class ChainEvent(Base):
    """One event of the contract about a challenge."""

    __tablename__ = "chain_events"
    __table_args__ = (
        Index("ix_chain_events_challenge_id_event", "challenge_id", "event"),
        Index("ix_chain_events_block_number", "block_number"),
    )

    transaction_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    log_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    contract_address: Mapped[str] = mapped_column(Text)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256)
    event: Mapped[str] = mapped_column(Text)
    participant_address: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_time: Mapped[int] = mapped_column(BigInteger)


class FinishedChallenge(Base):
    """A challenge that is over: the rule it was scored by, and what became of the money."""

    __tablename__ = "finished_challenges"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    contract_address: Mapped[str] = mapped_column(Text, primary_key=True)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256, primary_key=True)
    processed_at: Mapped[datetime] = _now()
    rule: Mapped[dict[str, Any]] = mapped_column(JSONB)
    summary: Mapped[dict[str, Any]] = mapped_column(JSONB)


class FinishedParticipant(Base):
    """What one participant of a finished challenge got, as the chain says."""

    __tablename__ = "finished_participants"
    __table_args__ = (
        Index("ix_finished_participants_wallet", func.lower(column("participant_address"))),
        CheckConstraint("percent_ppm BETWEEN 0 AND 1000000", name="percent_ppm"),
    )

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    contract_address: Mapped[str] = mapped_column(Text, primary_key=True)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256, primary_key=True)
    participant_address: Mapped[str] = mapped_column(Text, primary_key=True)
    stake_minor_units: Mapped[Decimal] = mapped_column(Uint256)
    percent_ppm: Mapped[int] = mapped_column(BigInteger)
    progress_ratio: Mapped[Decimal | None]
    batch_no: Mapped[int | None] = mapped_column(Integer)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    archived_at: Mapped[datetime] = _now()


class Settlement(Base):
    """One challenge on its way from its start to the archive: the row that stages move."""

    __tablename__ = "settlements"
    __table_args__ = (
        UniqueConstraint("chain_id", "contract_address", "challenge_id"),
        Index("ix_settlements_status", "status"),
        CheckConstraint(
            "status NOT IN ('declaring','declared','finalizing') OR rule IS NOT NULL",
            name="frozen_has_rule",
        ),
    )

    id: Mapped[UUID] = _id()
    chain_id: Mapped[int] = mapped_column(BigInteger)
    contract_address: Mapped[str] = mapped_column(Text)
    challenge_id: Mapped[Decimal] = mapped_column(Uint256)
    status: Mapped[str] = mapped_column(Text, server_default="live")
    #: As the contract says at a final block; these never change there.
    start_time: Mapped[int] = mapped_column(BigInteger)
    end_time: Mapped[int] = mapped_column(BigInteger)
    api_type: Mapped[str] = mapped_column(Text)
    goal_type: Mapped[str] = mapped_column(Text)
    goal_amount: Mapped[Decimal] = mapped_column(Uint256)
    #: What an operator set for a goal that nobody defined: `{"goal_type":…}` or `{"ppm":…}`.
    ordered_rule: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    #: Who ordered to declare after the seven days, and why.
    late_order: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    rule: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    frozen_at: Mapped[datetime | None] = mapped_column(Instant)
    #: Root of the Merkle tree of the evidence, hex with 0x.
    evidence_root: Mapped[str | None] = mapped_column(Text)
    finalize_tx: Mapped[str | None] = mapped_column(Text)
    #: Of one that is measured: `readings`, `deadline`, `operator` or `sending`.
    waits_for: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = _now()

    @property
    def terms(self) -> Terms:
        """What decides its rule."""
        return Terms(
            self.start_time,
            self.end_time,
            self.api_type,
            self.goal_type,
            int(self.goal_amount),
            self.ordered_rule,
        )

    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)


class Score(Base):
    """One participant of a challenge: what was measured, and what was decided."""

    __tablename__ = "scores"
    __table_args__ = (
        UniqueConstraint("settlement_id", "wallet"),
        Index("ix_scores_status_next_at", "status", "next_at"),
        Index("ix_scores_status_again_at", "status", "again_at"),
        Index("ix_scores_status_wallet_id", "status", "wallet", "id"),
        Index("ix_scores_wallet", "wallet"),
        CheckConstraint("bps BETWEEN 0 AND 10000", name="bps"),
        CheckConstraint("percent_ppm BETWEEN 0 AND 1000000", name="percent_ppm"),
        CheckConstraint(
            "numerator IS NULL OR (denominator > 0 AND numerator BETWEEN 0 AND denominator)",
            name="ratio",
        ),
    )

    id: Mapped[UUID] = _id()
    settlement_id: Mapped[UUID] = mapped_column(ForeignKey(Settlement.id, ondelete="CASCADE"))
    wallet: Mapped[str] = mapped_column(Text)
    #: The stake in minor units.
    stake: Mapped[Decimal] = mapped_column(Uint256)
    status: Mapped[str] = mapped_column(Text, server_default="waiting")
    #: When to read again, in chain time (Unix seconds).
    again_at: Mapped[int | None] = mapped_column(BigInteger)
    #: The best that was read, and the reading it is from. A goal may be any 256-bit number.
    numerator: Mapped[Decimal | None] = mapped_column(Numeric)
    denominator: Mapped[Decimal | None] = mapped_column(Numeric)
    reading_id: Mapped[UUID | None] = mapped_column(Uuid)
    #: What the last try ended in, and since when it has ended so.
    outcome: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    outcome_since: Mapped[datetime | None] = mapped_column(Instant)

    # Written once, when the settlement is frozen.
    percent_ppm: Mapped[int | None] = mapped_column(BigInteger)
    bps: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str | None] = mapped_column(Text)
    batch_no: Mapped[int | None] = mapped_column(Integer)
    evidence: Mapped[str | None] = mapped_column(Text)
    #: Its leaf in the tree, 32 bytes.
    leaf: Mapped[bytes | None] = mapped_column(LargeBinary)

    # What the chain made of it.
    declared_bps: Mapped[int | None] = mapped_column(Integer)
    declared_tx: Mapped[str | None] = mapped_column(Text)
    refused: Mapped[str | None] = mapped_column(Text)

    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)


class Reading(Base):
    """What a provider said of one participant, once."""

    __tablename__ = "readings"
    __table_args__ = (Index("ix_readings_score_id_read_at", "score_id", "read_at"),)

    id: Mapped[UUID] = _id()
    score_id: Mapped[UUID] = mapped_column(ForeignKey(Score.id, ondelete="CASCADE"))
    read_at: Mapped[datetime] = _now()
    #: Chain time of the reading, Unix seconds.
    chain_time: Mapped[int] = mapped_column(BigInteger)
    provider: Mapped[str] = mapped_column(Text)
    #: Whose account was read: `{"id":…,"name":…}`.
    account: Mapped[dict[str, Any]] = mapped_column(JSONB)
    #: What was asked, and what was answered, without any token.
    asked: Mapped[dict[str, Any]] = mapped_column(JSONB)
    answered: Mapped[Any] = mapped_column(JSONB)
    #: What was counted, by UTC date (coding time in microseconds).
    days: Mapped[dict[str, int]] = mapped_column(JSONB)
    total: Mapped[Decimal | None] = mapped_column(Uint256)
    numerator: Mapped[Decimal] = mapped_column(Numeric)
    denominator: Mapped[Decimal] = mapped_column(Numeric)


class FarcasterAccount(Base):
    """The Farcaster account of a wallet: found at first use, or set by an operator."""

    __tablename__ = "farcaster_accounts"

    wallet: Mapped[str] = mapped_column(Text, primary_key=True)
    fid: Mapped[int] = mapped_column(BigInteger)
    set_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = _now()


class Incident(Base):
    """Something an operator should look at; open until it is over."""

    __tablename__ = "incidents"
    __table_args__ = (
        Index(
            "uq_incidents_open",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = _id()
    kind: Mapped[str] = mapped_column(Text)
    #: What it is about: `challenge 7`, `challenge 7 0x…`.
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    raised_at: Mapped[datetime] = _now()
    resolved_at: Mapped[datetime | None] = mapped_column(Instant)


class Reminder(Base):
    """A message to a person before they lose money, or when there is some to fetch; once each."""

    __tablename__ = "reminders"
    __table_args__ = (UniqueConstraint("kind", "settlement_key", "wallet"),)

    id: Mapped[UUID] = _id()
    kind: Mapped[str] = mapped_column(Text)
    #: `chain:contract:challenge`, with the day where there is one for each day.
    settlement_key: Mapped[str] = mapped_column(Text)
    wallet: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()
    status: Mapped[str] = mapped_column(Text, server_default="waiting")

    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)


def table(model: type[Base]) -> Table[Any]:
    """Return the Core table of a model."""
    return cast("Table[Any]", model.__table__)


#: What facts of the chain make: the state of challenges, and rows that are only added.
CHALLENGES = table(ChainChallenge)
PARTICIPANTS = table(ChainParticipant)
EVENTS = table(ChainEvent)
