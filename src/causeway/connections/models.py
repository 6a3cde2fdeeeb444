"""The kernel's tables of this room. Every token in them is a ciphertext bound to its row."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase

_NOW = text("clock_timestamp()")


class ConnectionRow(KernelBase):
    """One person's link to one provider, in one app."""

    __tablename__ = "connections"
    __table_args__ = (
        CheckConstraint("kind IN ('oauth', 'api_key')", name="kind"),
        UniqueConstraint("app", "provider", "subject"),
        # One account serves one subject at a time.
        UniqueConstraint("app", "provider", "account_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    app: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(Text)
    #: Whose it is, in the app's words (a wallet's address in lower case).
    subject: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    #: Ciphertexts of `causeway.store.encryption`; an API key is an access token.
    access_token: Mapped[str] = mapped_column(Text)
    refresh_token: Mapped[str | None] = mapped_column(Text)
    #: Of the access token; None when it does not expire.
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    refresh_expires_at: Mapped[datetime | None] = mapped_column(Instant)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    account_id: Mapped[str | None] = mapped_column(Text)
    account_name: Mapped[str | None] = mapped_column(Text)
    #: Grows with every new token: who has an older one reads again.
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    connected_at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    #: Since when the provider refuses this token, and in which words of ours.
    rejected_at: Mapped[datetime | None] = mapped_column(Instant)
    rejected_why: Mapped[str | None] = mapped_column(Text)


class RevocationRow(KernelBase):
    """A token that is not used any more, until the provider has been told."""

    __tablename__ = "connection_revocations"
    __table_args__ = (Index(None, "app", "due_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    app: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(Text)
    token: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=_NOW)
    last_error: Mapped[str | None] = mapped_column(Text)
    #: Whose it was, where revoking it ends all that this person allowed us.
    account_id: Mapped[str | None] = mapped_column(Text)


class OAuthStateRow(KernelBase):
    """An authorization under way. Deleted by its use."""

    __tablename__ = "auth_oauth_states"

    #: Hex SHA-256 of the state: reading this table gives nobody a state to use.
    state_sha256: Mapped[str] = mapped_column(Text, primary_key=True)
    action: Mapped[str] = mapped_column(Text)
    #: Who it is for, in the app's words (a wallet's address).
    subject: Mapped[str] = mapped_column(Text)
    verifier: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
