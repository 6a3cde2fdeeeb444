"""The kernel's tables of this room: channels, the last messages of each, tickets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase


class ChannelRow(KernelBase):
    """How far a channel has come. Never deleted: its numbers would begin again."""

    __tablename__ = "live_channels"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class MessageRow(KernelBase):
    """A message that clients may still ask for."""

    __tablename__ = "live_messages"

    channel: Mapped[str] = mapped_column(Text, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    sent_at: Mapped[datetime] = mapped_column(Instant, index=True)


class TicketRow(KernelBase):
    """A right to open one connection, once; only the ticket's hash is kept."""

    __tablename__ = "live_tickets"

    sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    claims: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    #: Until when the person's own token is good.
    person_until: Mapped[datetime | None] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
