"""The indexer's own tables, in schema `causeway`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from causeway.chains.protocol import Block
from causeway.store.schema import Instant, KernelBase


class Checkpoint(KernelBase):
    """How far a source has been applied. Whoever moves this row applies the facts between."""

    __tablename__ = "checkpoints"

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    start_block: Mapped[int] = mapped_column(BigInteger)
    #: The newest block applied; `start_block - 1` before the first.
    number: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(Text)
    timestamp: Mapped[datetime] = mapped_column(Instant)
    #: The newest block that was ever seen as final; never goes down.
    final_number: Mapped[int] = mapped_column(BigInteger)
    #: The chain's newest block when the row was last written, for showing.
    head_number: Mapped[int] = mapped_column(BigInteger)
    #: Why it does not go on, in words for a person; null while all is well.
    problem: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(Instant, server_default=text("clock_timestamp()"))

    @property
    def block(self) -> Block:
        """The newest block applied; its parent's hash is not kept here."""
        return Block(self.number, self.hash, "", self.timestamp)


class AppliedBlock(KernelBase):
    """A block that was applied and may still be replaced: where a fork is looked for."""

    __tablename__ = "blocks"

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hash: Mapped[str] = mapped_column(Text)
    parent_hash: Mapped[str] = mapped_column(Text)
    timestamp: Mapped[datetime] = mapped_column(Instant)


class UndoEntry(KernelBase):
    """What one row was before a fact of a block that may still be replaced changed it."""

    __tablename__ = "undo_log"
    __table_args__ = (Index(None, "source", "block_number"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    table_schema: Mapped[str] = mapped_column(Text)
    table_name: Mapped[str] = mapped_column(Text)
    #: What the fact did: `insert`, `update` or `delete`.
    operation: Mapped[str] = mapped_column(Text)
    #: The row's primary key, column by column.
    key: Mapped[dict[str, Any]] = mapped_column(JSONB)
    #: `update`: the changed columns as they were; `delete`: the whole row; `insert`: null.
    old: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class Discovered(KernelBase):
    """A contract that a source's factory made, and the block that told of it."""

    __tablename__ = "discovered"
    __table_args__ = (Index(None, "source", "block_number"),)

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Lower-case hex with 0x.
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger)


class Effect(KernelBase):
    """Something to be done outside because of a fact, waiting for the finality it needs."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            None,
            "source",
            "block_number",
        ),
        Index(
            "ix_outbox_waiting", "source", "due_block", postgresql_where=text("state = 'waiting'")
        ),
        CheckConstraint("state IN ('waiting', 'released', 'undone')", name="state"),
    )

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Chain, transaction hash, place of the log in its transaction and the effect's name: the same
    #: after a reorg that mines the transaction again, and after reading the chain anew.
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(Text)
    #: Released when a block with this number is applied; null: when its own block is final.
    due_block: Mapped[int | None] = mapped_column(BigInteger)
    #: `undone`: it was released, and its block is gone.
    state: Mapped[str] = mapped_column(Text, server_default=text("'waiting'"))
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=text("clock_timestamp()"))
    released_at: Mapped[datetime | None] = mapped_column(Instant)
