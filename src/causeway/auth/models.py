"""The kernel's tables of this room: what was handed out and may come back once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase


class ChallengeRow(KernelBase):
    """A nonce given out for one action of one wallet. Kept for a while after its use."""

    __tablename__ = "auth_challenges"

    nonce: Mapped[str] = mapped_column(Text, primary_key=True)
    action: Mapped[str] = mapped_column(Text)
    #: EIP-55.
    address: Mapped[str] = mapped_column(Text)
    #: 64 hex digits, when the payload was known already.
    payload_sha256: Mapped[str | None] = mapped_column(Text)
    issued_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
    consumed_at: Mapped[datetime | None] = mapped_column(Instant)


class SignedMessageRow(KernelBase):
    """A message of a wallet that was accepted. Kept until its timestamp is stale for everybody."""

    __tablename__ = "auth_signed_messages"

    #: 20 bytes.
    wallet: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    message_sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    #: By the database's clock.
    used_at: Mapped[datetime] = mapped_column(
        Instant, server_default=text("clock_timestamp()"), index=True
    )
