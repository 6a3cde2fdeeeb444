"""The kernel's own record of work: transitions, what is paused, and effects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase

_NOW = text("clock_timestamp()")


class Transition(KernelBase):
    """One change of a row's status; written by the database, whoever changed it."""

    __tablename__ = "transitions"
    __table_args__ = (Index(None, "app", "row_key", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    app: Mapped[str] = mapped_column(Text)
    row_key: Mapped[str] = mapped_column(Text)
    #: None: the row is new.
    from_status: Mapped[str | None] = mapped_column(Text)
    #: None: the row is gone.
    to_status: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    #: `stage@host:pid` of the worker that held the row, or what the session calls itself.
    worker: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str | None] = mapped_column(Text)


class StageControl(KernelBase):
    """Why a stage does not take up rows, and how it went lately; shared by all processes."""

    __tablename__ = "stage_control"

    app: Mapped[str] = mapped_column(Text, primary_key=True)
    stage: Mapped[str] = mapped_column(Text, primary_key=True)
    #: `operator`, `configuration` or `outage`; None while it runs.
    paused_by: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    since: Mapped[datetime | None] = mapped_column(Instant)
    #: When one row may be tried to see whether it works again; None for an operator's pause.
    probe_at: Mapped[datetime | None] = mapped_column(Instant)
    last_success_at: Mapped[datetime | None] = mapped_column(Instant)
    last_error: Mapped[str | None] = mapped_column(Text)
    last_error_at: Mapped[datetime | None] = mapped_column(Instant)


class Effect(KernelBase):
    """One thing done outside the database for a row, at most once where it can be looked up."""

    __tablename__ = "effects"

    app: Mapped[str] = mapped_column(Text, primary_key=True)
    row_key: Mapped[str] = mapped_column(Text, primary_key=True)
    step: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    finished: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    result: Mapped[Any] = mapped_column(JSONB, nullable=True)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("1"))
