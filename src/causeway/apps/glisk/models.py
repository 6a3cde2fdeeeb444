"""GLISK's tables, in schema `glisk`. What they mean is section 4 of its specification.

`tokens_s0`, `mint_events` and the three small tables of contract facts are derived from the
chain: the kernel undoes their rows on a reorganisation. `reveal_transactions` and `system_state`
are views of the kernel's own tables, made by the first migration.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    column,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from causeway.base.ids import uuid7
from causeway.store.schema import Instant, Uint256, metadata_for

metadata = metadata_for("glisk")


class Base(DeclarativeBase):
    """Base class of GLISK's tables."""

    metadata = metadata


class TokenStatus(StrEnum):
    """Where a token stands."""

    DETECTED = "detected"
    GENERATING = "generating"
    UPLOADING = "uploading"
    READY = "ready"
    REVEALED = "revealed"
    FAILED = "failed"


#: Every edge of the state machine, section 5 of the specification; the database refuses others.
EDGES: tuple[tuple[str, str], ...] = (
    ("detected", "generating"),
    ("generating", "uploading"),
    ("generating", "detected"),
    ("uploading", "ready"),
    ("uploading", "detected"),
    ("ready", "revealed"),
    ("detected", "revealed"),
    ("generating", "revealed"),
    ("uploading", "revealed"),
    ("failed", "revealed"),
    ("revealed", "ready"),
    ("revealed", "detected"),  # somebody else's reveal was undone while we were not done
    ("revealed", "generating"),
    ("revealed", "uploading"),
    ("revealed", "failed"),
    ("detected", "failed"),
    ("generating", "failed"),
    ("uploading", "failed"),
    ("ready", "failed"),
    ("failed", "detected"),
    ("failed", "uploading"),
    ("failed", "ready"),
)


def _id() -> Mapped[UUID]:
    return mapped_column(
        Uuid, primary_key=True, default=uuid7, server_default=text("gen_random_uuid()")
    )


def _now() -> Mapped[datetime]:
    return mapped_column(Instant, server_default=func.now())


class Author(Base):
    """Somebody whose prompt pictures are made from."""

    __tablename__ = "authors"
    __table_args__ = (
        CheckConstraint("char_length(prompt_text) BETWEEN 1 AND 1000", name="prompt_length"),
        Index("uq_authors_wallet_address", func.lower(column("wallet_address")), unique=True),
    )

    id: Mapped[UUID] = _id()
    wallet_address: Mapped[str] = mapped_column(String(42))
    twitter_handle: Mapped[str | None] = mapped_column(String(255))
    farcaster_handle: Mapped[str | None] = mapped_column(String(255))
    farcaster_fid: Mapped[int | None] = mapped_column(BigInteger)
    prompt_text: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


class MintEvent(Base):
    """One BatchMinted log on the canonical chain."""

    __tablename__ = "mint_events"
    __table_args__ = (
        UniqueConstraint("tx_hash", "log_index"),
        CheckConstraint("quantity BETWEEN 1 AND 50", name="quantity"),
        CheckConstraint("via IN ('webhook', 'reader')", name="via"),
        Index("ix_mint_events_block_number", "block_number"),
    )

    id: Mapped[UUID] = _id()
    tx_hash: Mapped[str] = mapped_column(String(66))
    log_index: Mapped[int] = mapped_column(Integer)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(String(66))
    block_timestamp: Mapped[datetime] = mapped_column(Instant)
    minter: Mapped[str] = mapped_column(String(42))
    author_wallet: Mapped[str] = mapped_column(String(42))
    start_token_id: Mapped[int] = mapped_column(BigInteger)
    quantity: Mapped[int] = mapped_column(Integer)
    token_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    total_paid: Mapped[Decimal] = mapped_column(Uint256)
    detected_at: Mapped[datetime] = _now()
    via: Mapped[str] = mapped_column(String(16))


class Image(Base):
    """The bytes of a picture, kept once however many tokens show it."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    mime: Mapped[str] = mapped_column(String(32))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = _now()


class Token(Base):
    """One token of season 0: the row that the stages move, whose status is the truth."""

    __tablename__ = "tokens_s0"
    __table_args__ = (
        CheckConstraint(
            "status IN ('detected','generating','uploading','ready','revealed','failed')",
            name="status",
        ),
        CheckConstraint("source IN ('log', 'repair')", name="source"),
        CheckConstraint("generation_attempts >= 0", name="generation_attempts"),
        CheckConstraint(
            "status <> 'uploading' OR image_url IS NOT NULL OR image_sha256 IS NOT NULL",
            name="uploading_has_image",
        ),
        CheckConstraint("status <> 'ready' OR metadata_cid IS NOT NULL", name="ready_has_metadata"),
        Index("ix_tokens_s0_status_mint_timestamp", "status", "mint_timestamp"),
        Index("ix_tokens_s0_status_next_attempt_at", "status", "next_attempt_at"),
        Index("ix_tokens_s0_author_id", "author_id"),
        Index("ix_tokens_s0_minter_address", "minter_address"),
        Index("ix_tokens_s0_mint_event_id", "mint_event_id"),
    )

    token_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(
        Uuid, unique=True, default=uuid7, server_default=text("gen_random_uuid()")
    )
    author_id: Mapped[UUID] = mapped_column(ForeignKey(Author.id))
    minter_address: Mapped[str] = mapped_column(String(42))
    owner_address: Mapped[str] = mapped_column(String(42))
    mint_timestamp: Mapped[datetime] = mapped_column(Instant)
    mint_event_id: Mapped[UUID | None] = mapped_column(ForeignKey(MintEvent.id))
    mint_block_number: Mapped[int] = mapped_column(BigInteger)
    mint_block_hash: Mapped[str] = mapped_column(String(66))
    prompt_text: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), server_default="detected")

    image_url: Mapped[str | None] = mapped_column(Text)
    image_sha256: Mapped[str | None] = mapped_column(ForeignKey(Image.sha256))
    image_mime: Mapped[str | None] = mapped_column(String(32))
    image_bytes_size: Mapped[int | None] = mapped_column(BigInteger)
    image_cid: Mapped[str | None] = mapped_column(String(255))
    image_cid_profile: Mapped[str | None] = mapped_column(String(32))
    metadata_cid: Mapped[str | None] = mapped_column(String(255))
    metadata_json: Mapped[bytes | None] = mapped_column(LargeBinary)
    reveal_tx_hash: Mapped[str | None] = mapped_column(String(66))
    revealed_uri: Mapped[str | None] = mapped_column(Text)
    ready_at: Mapped[datetime | None] = mapped_column(Instant)
    revealed_at: Mapped[datetime | None] = mapped_column(Instant)

    censored: Mapped[bool] = mapped_column(server_default=text("false"))
    prompt_sha256: Mapped[str | None] = mapped_column(String(64))
    generation_seed: Mapped[int | None] = mapped_column(BigInteger)
    generation_model: Mapped[str | None] = mapped_column(Text)
    generation_attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    error_log: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    source: Mapped[str] = mapped_column(String(8), server_default="log")
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()

    # What the stage engine needs; two of these have names of the specification's.
    attempts: Mapped[int] = mapped_column("stage_attempts", Integer, server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column("next_attempt_at", Instant)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column("generation_error", String(1000))


class KeptWork(Base):
    """What was made for a token whose mint was undone, in case an equal mint comes back."""

    __tablename__ = "kept_work"

    token_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    author_id: Mapped[UUID] = mapped_column(ForeignKey(Author.id), primary_key=True)
    prompt_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    work: Mapped[dict[str, Any]] = mapped_column(JSONB)
    kept_at: Mapped[datetime] = _now()


class GenerationJob(Base):
    """One attempt to have a picture made; its prediction id is what makes it resumable."""

    __tablename__ = "image_generation_jobs"
    __table_args__ = (
        UniqueConstraint("token_id", "attempt_number"),
        CheckConstraint(
            "status IN ('started','succeeded','failed','censored','abandoned')", name="status"
        ),
        Index("ix_image_generation_jobs_token_id", "token_id"),
    )

    id: Mapped[UUID] = _id()
    token_id: Mapped[int | None] = mapped_column(ForeignKey(Token.token_id, ondelete="SET NULL"))
    prompt_text: Mapped[str] = mapped_column(Text)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    service: Mapped[str] = mapped_column(String(32))
    model: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), server_default="started")
    attempt_number: Mapped[int] = mapped_column(Integer)
    external_job_id: Mapped[str | None] = mapped_column(Text)
    output_url: Mapped[str | None] = mapped_column(Text)
    cost_seconds: Mapped[Decimal | None]
    error_data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()
    completed_at: Mapped[datetime | None] = mapped_column(Instant)


class UploadRecord(Base):
    """One upload of a file to IPFS, with the CID we computed and the one we were told."""

    __tablename__ = "ipfs_upload_records"
    __table_args__ = (
        CheckConstraint("upload_type IN ('image','metadata')", name="upload_type"),
        CheckConstraint("status IN ('started','completed','failed','mismatch')", name="status"),
        Index("ix_ipfs_upload_records_token_id", "token_id"),
    )

    id: Mapped[UUID] = _id()
    token_id: Mapped[int | None] = mapped_column(ForeignKey(Token.token_id, ondelete="SET NULL"))
    upload_type: Mapped[str] = mapped_column(String(16))
    provider: Mapped[str] = mapped_column(String(32))
    expected_cid: Mapped[str] = mapped_column(String(255))
    ipfs_cid: Mapped[str | None] = mapped_column(String(255))
    size: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), server_default="started")
    attempt_number: Mapped[int] = mapped_column(Integer)
    error_data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()
    completed_at: Mapped[datetime | None] = mapped_column(Instant)


class ContractState(Base):
    """What the contract's own events say of it: price, placeholder, end of the season."""

    __tablename__ = "contract_state"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSONB)
    block_number: Mapped[int] = mapped_column(BigInteger)


class AuthorClaim(Base):
    """One AuthorClaimed log: earnings an author took out."""

    __tablename__ = "author_claims"

    tx_hash: Mapped[str] = mapped_column(String(66), primary_key=True)
    log_index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    author_wallet: Mapped[str] = mapped_column(String(42))
    amount_wei: Mapped[Decimal] = mapped_column(Uint256)
    block_number: Mapped[int] = mapped_column(BigInteger)


class WebhookDelivery(Base):
    """A delivery with a good signature, by its own id: a hint that was taken."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    block_hash: Mapped[str | None] = mapped_column(String(66))
    times: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    outcome: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = _now()


class Incident(Base):
    """Something that must not be hidden: a reveal that no longer fits, a URI that is not ours."""

    __tablename__ = "incidents"
    __table_args__ = (Index("ix_incidents_created_at", "created_at"),)

    id: Mapped[UUID] = _id()
    kind: Mapped[str] = mapped_column(String(64))
    token_id: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()


class StateValue(Base):
    """What the app itself keeps of `system_state`: the last probes of what it depends on."""

    __tablename__ = "state_values"
    __table_args__ = (CheckConstraint("state_key ~ '^[A-Za-z0-9_]+$'", name="state_key"),)

    state_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    state_value: Mapped[Any] = mapped_column(JSONB)
    updated_at: Mapped[datetime] = _now()


class RevealRequest(Base):
    """An operator's wish to reveal now; the collector takes it up."""

    __tablename__ = "reveal_requests"

    batch_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid7)
    token_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    force: Mapped[bool] = mapped_column(server_default=text("false"))
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    answer: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()
    taken_at: Mapped[datetime | None] = mapped_column(Instant)


class RecoveryRequest(Base):
    """An operator's wish to have blocks read again; the auditor takes it up."""

    __tablename__ = "recovery_requests"

    id: Mapped[UUID] = _id()
    from_block: Mapped[int] = mapped_column(BigInteger)
    to_block: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = _now()
    done_at: Mapped[datetime | None] = mapped_column(Instant)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class FarcasterNonce(Base):
    """A nonce of a Farcaster text that was used: it is good once."""

    __tablename__ = "farcaster_nonces"

    nonce: Mapped[str] = mapped_column(Text, primary_key=True)
    used_at: Mapped[datetime] = _now()


def table(model: type[Base]) -> Table[Any]:
    """Return the Core table of a model."""
    return cast("Table[Any]", model.__table__)


#: Tables whose rows come from the chain and are undone with it.
DERIVED = (
    table(MintEvent),
    table(Token),
    table(ContractState),
    table(AuthorClaim),
)
