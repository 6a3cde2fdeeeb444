"""Where connections are kept: one row for each person and provider, its tokens encrypted.

A token decrypts only in the row of its app, provider and subject. `version` grows with every new
token, and a token is replaced only by who has seen the latest: what somebody else stored in
between is never overwritten.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.connections.credential import Account, Credential, Kind, Tokens
from causeway.connections.errors import AccountTaken
from causeway.store.encryption import Keyring, Undecryptable
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)

_COLUMNS = (
    "id, app, provider, subject, kind, expires_at, refresh_expires_at, scopes, account_id, "
    "account_name, version, connected_at, updated_at, rejected_at, rejected_why, "
    "refresh_token IS NOT NULL AS can_refresh"
)
#: Providers where revoking any token ends everything this account allowed us: they are told when
#: the connection ends and not before, and by the refresh token, which does not expire.
_WHOLE_GRANT = frozenset({"strava"})
_TAKEN = "uq_connections_app_provider_account_id"


@dataclass(frozen=True)
class Connection:
    """What is known of a connection, without its tokens."""

    id: uuid.UUID
    app: str
    provider: str
    subject: str
    kind: Kind
    account: Account | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    refresh_expires_at: datetime | None
    version: int
    connected_at: datetime
    updated_at: datetime
    #: Since when the provider refuses the token, and why; None while it works.
    rejected_at: datetime | None
    rejected_why: str | None
    #: Whether there is a refresh token.
    can_refresh: bool

    def is_usable(self, now: datetime) -> bool:
        """Say whether a call may succeed, as far as is known without asking the provider."""
        if self.rejected_at is not None:
            return False
        if self.expires_at is None or self.expires_at > now:
            return True
        return self.can_refresh and (
            self.refresh_expires_at is None or self.refresh_expires_at > now
        )


@dataclass(frozen=True)
class Opened:
    """A connection with its tokens."""

    connection: Connection
    access_token: SecretStr = field(repr=False)
    refresh_token: SecretStr | None = field(repr=False)

    @property
    def credential(self) -> Credential:
        """What providers are asked with."""
        c = self.connection
        return Credential(
            c.provider, c.kind, self.access_token, c.id, c.version, c.account, c.scopes
        )


def revokes_everything(provider: str) -> bool:
    """Say whether revoking any token there ends everything its account allowed us."""
    return provider in _WHOLE_GRANT


def token_place(app: str, provider: str, subject: str, column: str) -> tuple[str, ...]:
    """Return the place a connection's token is bound to."""
    return ("connections", app, provider, subject, column)


def revocation_place(id_: uuid.UUID, app: str, provider: str) -> tuple[str, ...]:
    """Return the place a token to be revoked is bound to."""
    return ("connection_revocations", str(id_), app, provider)


class Vault:
    """The connections of one app."""

    def __init__(self, database: Database, keyring: Keyring, app: str) -> None:
        self.database = database
        self.app = app
        self._keyring = keyring

    async def save(
        self, provider: str, subject: str, tokens: Tokens, account: Account | None
    ) -> Connection:
        """Keep a connection; it takes the place of an earlier one of the same person.

        A token that is replaced is queued to be revoked. Raises `AccountTaken` when the account is
        linked to another subject.
        """
        values = {
            **self._sealed(provider, subject, tokens),
            "id": uuid.uuid4(),
            "app": self.app,
            "provider": provider,
            "subject": subject,
            "kind": tokens.kind,
            "scopes": list(tokens.scopes),
            "account_id": account.id if account else None,
            "account_name": account.name if account else None,
        }
        try:
            async with self.database.transaction() as session:
                await self._lock(session, provider, subject)
                before = (
                    await session.execute(
                        # Locked: a refresh must not put another token there before it is replaced.
                        text(
                            "SELECT kind, access_token, refresh_token, account_id "
                            f"FROM causeway.connections WHERE {_THIS} FOR UPDATE"
                        ),
                        values,
                    )
                ).one_or_none()
                row = (await session.execute(text(_UPSERT), values)).one()
                if provider in _WHOLE_GRANT:
                    await self._unqueue(session, provider, row.account_id)
                    if before is not None and before.account_id == row.account_id:
                        before = None
                replaced = self._to_revoke(provider, subject, before)
                if replaced is not None and replaced != tokens.access_token:
                    await self._queue(
                        session, provider, replaced, before.account_id if before else None
                    )
        except IntegrityError as error:
            if _TAKEN in str(error.orig):
                raise AccountTaken from None
            raise
        return _connection(row)

    async def find(self, provider: str, subject: str) -> Connection | None:
        """Return what is known of a connection; None when there is none."""
        async with self.database.transaction() as session:
            row = (
                await session.execute(
                    text(f"SELECT {_COLUMNS} FROM causeway.connections WHERE {_THIS}"),
                    {"app": self.app, "provider": provider, "subject": subject},
                )
            ).one_or_none()
        return None if row is None else _connection(row)

    async def open(self, provider: str, subject: str) -> Opened | None:
        """Return a connection with its tokens; `Undecryptable` when they cannot be read."""
        async with self.database.transaction() as session:
            return await self._open(session, provider, subject)

    async def replace(self, seen: Connection, tokens: Tokens) -> bool:
        """Keep new tokens of a connection unless others were stored since it was `seen`."""
        scopes = list(tokens.scopes or seen.scopes)
        async with self.database.transaction() as session:
            stored = await session.scalar(
                text(
                    """
                    UPDATE causeway.connections SET access_token = :access_token,
                        refresh_token = :refresh_token, expires_at = :expires_at,
                        refresh_expires_at = :refresh_expires_at, scopes = :scopes,
                        version = version + 1, updated_at = clock_timestamp(),
                        rejected_at = NULL, rejected_why = NULL
                    WHERE id = :id AND version = :version RETURNING true
                    """
                ),
                {
                    **self._sealed(seen.provider, seen.subject, tokens),
                    "scopes": scopes,
                    "id": seen.id,
                    "version": seen.version,
                },
            )
        return bool(stored)

    async def rejected(self, seen: Connection, why: str | None) -> None:
        """Note that the provider refuses the token that was `seen`, or, with None, takes it."""
        async with self.database.transaction() as session:
            await session.execute(
                text(
                    """
                    UPDATE causeway.connections SET rejected_why = :why, rejected_at = CASE
                        WHEN CAST(:why AS text) IS NOT NULL
                        THEN coalesce(rejected_at, clock_timestamp()) END
                    WHERE id = :id AND version = :version
                    """
                ),
                {"id": seen.id, "version": seen.version, "why": why},
            )

    async def remove(self, provider: str, subject: str) -> bool:
        """Delete a connection and queue its token to be revoked; return whether there was one."""
        async with self.database.transaction() as session:
            await self._lock(session, provider, subject)
            row = (
                await session.execute(
                    text(
                        f"DELETE FROM causeway.connections WHERE {_THIS} "
                        "RETURNING id, kind, access_token, refresh_token, account_id"
                    ),
                    {"app": self.app, "provider": provider, "subject": subject},
                )
            ).one_or_none()
            if row is None:
                return False
            await session.execute(
                text("DELETE FROM causeway.leases WHERE name = :name"),
                {"name": lease_name(row.id)},
            )
            token = self._to_revoke(provider, subject, row)
            if token is not None:
                await self._queue(session, provider, token, row.account_id)
        return True

    async def discard(self, provider: str, token: SecretStr) -> None:
        """Queue a token that will not be used to be revoked."""
        if provider in _WHOLE_GRANT:
            # Others of the same account may be in use, and this one ends by itself.
            return
        async with self.database.transaction() as session:
            await self._queue(session, provider, token)

    def _to_revoke(self, provider: str, subject: str, row: Row[Any] | None) -> SecretStr | None:
        """Return the token of a row that goes, when the provider can be told of it."""
        if row is None or row.kind != "oauth":
            return None
        column = "access_token"
        if provider in _WHOLE_GRANT and row.refresh_token is not None:
            column = "refresh_token"
        place = token_place(self.app, provider, subject, column)
        try:
            return self._keyring.decrypt(getattr(row, column), place)
        except Undecryptable as error:
            # What cannot be read must not keep anybody from connecting again.
            _log.warning("token_not_revoked", provider=provider, why=error.message)
            return None

    async def _unqueue(self, session: AsyncSession, provider: str, account_id: str | None) -> None:
        """Revoke nothing of an account that is connected again."""
        await session.execute(
            text(
                "DELETE FROM causeway.connection_revocations "
                "WHERE app = :app AND provider = :provider AND account_id = :account_id"
            ),
            {"app": self.app, "provider": provider, "account_id": account_id},
        )

    async def _queue(
        self,
        session: AsyncSession,
        provider: str,
        token: SecretStr,
        account_id: str | None = None,
    ) -> None:
        id_ = uuid.uuid4()
        await session.execute(
            text(
                "INSERT INTO causeway.connection_revocations (id, app, provider, token, account_id)"
                " VALUES (:id, :app, :provider, :token, :account_id)"
            ),
            {
                "id": id_,
                "account_id": account_id,
                "app": self.app,
                "provider": provider,
                "token": self._keyring.encrypt(token, revocation_place(id_, self.app, provider)),
            },
        )

    async def _lock(self, session: AsyncSession, provider: str, subject: str) -> None:
        """Let nobody else connect or disconnect this person until the transaction ends."""
        await session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"),
            {"key": "\x1f".join(("causeway connection", self.app, provider, subject))},
        )

    async def _open(self, session: AsyncSession, provider: str, subject: str) -> Opened | None:
        row = (
            await session.execute(
                text(
                    f"SELECT {_COLUMNS}, access_token, refresh_token "
                    f"FROM causeway.connections WHERE {_THIS}"
                ),
                {"app": self.app, "provider": provider, "subject": subject},
            )
        ).one_or_none()
        if row is None:
            return None

        def token(column: str, sealed: str) -> SecretStr:
            return self._keyring.decrypt(sealed, token_place(self.app, provider, subject, column))

        return Opened(
            _connection(row),
            token("access_token", row.access_token),
            token("refresh_token", row.refresh_token) if row.refresh_token else None,
        )

    def _sealed(self, provider: str, subject: str, tokens: Tokens) -> dict[str, Any]:
        def sealed(column: str, token: SecretStr) -> str:
            return self._keyring.encrypt(token, token_place(self.app, provider, subject, column))

        refresh = tokens.refresh_token
        return {
            "access_token": sealed("access_token", tokens.access_token),
            "refresh_token": sealed("refresh_token", refresh) if refresh else None,
            "expires_at": tokens.expires_at,
            "refresh_expires_at": tokens.refresh_expires_at,
        }


def lease_name(id_: uuid.UUID) -> str:
    """Return the name of the lease under which a connection's token is refreshed."""
    return f"connection:{id_}"


_THIS = "app = :app AND provider = :provider AND subject = :subject"

_UPSERT = f"""
    INSERT INTO causeway.connections AS c (id, app, provider, subject, kind, access_token,
        refresh_token, expires_at, refresh_expires_at, scopes, account_id, account_name)
    VALUES (:id, :app, :provider, :subject, :kind, :access_token,
        :refresh_token, :expires_at, :refresh_expires_at, :scopes, :account_id, :account_name)
    ON CONFLICT (app, provider, subject) DO UPDATE SET kind = excluded.kind,
        access_token = excluded.access_token, refresh_token = excluded.refresh_token,
        expires_at = excluded.expires_at, refresh_expires_at = excluded.refresh_expires_at,
        scopes = excluded.scopes, account_id = excluded.account_id,
        account_name = excluded.account_name, version = c.version + 1,
        connected_at = clock_timestamp(), updated_at = clock_timestamp(),
        rejected_at = NULL, rejected_why = NULL
    RETURNING {_COLUMNS}
"""


async def list_connections(
    database: Database, *, app: str | None = None, provider: str | None = None
) -> Sequence[Connection]:
    """Return the connections of all apps, or of one, or of one provider, without tokens."""
    async with database.transaction() as session:
        rows = await session.execute(
            text(
                f"SELECT {_COLUMNS} FROM causeway.connections "
                "WHERE app = coalesce(CAST(:app AS text), app) "
                "AND provider = coalesce(CAST(:provider AS text), provider) "
                "ORDER BY app, provider, subject"
            ),
            {"app": app, "provider": provider},
        )
        return [_connection(row) for row in rows]


def _connection(row: Row[Any]) -> Connection:
    account = None if row.account_id is None else Account(row.account_id, row.account_name)
    return Connection(
        row.id,
        row.app,
        row.provider,
        row.subject,
        row.kind,
        account,
        tuple(row.scopes),
        row.expires_at,
        row.refresh_expires_at,
        row.version,
        row.connected_at,
        row.updated_at,
        row.rejected_at,
        row.rejected_why,
        row.can_refresh,
    )
