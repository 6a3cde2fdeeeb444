"""The database: one engine, short transactions, and notifications when a session allows them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from causeway.base.errors import ConfigurationError

#: Names under which people write a PostgreSQL address; all are opened with psycopg 3.
_DRIVERS = {
    "postgres",
    "postgresql",
    "postgresql+psycopg",
    "postgresql+psycopg2",
    "postgresql+asyncpg",
}

#: In addresses people copy from elsewhere; libpq refuses an address with a word it does not know.
_OTHER_CLIENTS_WORDS = (
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "schema",
    "prepared_statement_cache_size",
    "statement_cache_size",
)


def normalise_url(url: str) -> URL:
    """Return `url` as SQLAlchemy's address for psycopg 3, whatever driver it named.

    Raises `ConfigurationError` (without the password) when it is no PostgreSQL address.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its text may hold the password
        raise ConfigurationError(
            "DATABASE_URL is not an address; write postgresql://user:password@host:5432/name"
        ) from None
    if parsed.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"DATABASE_URL names {parsed.drivername!r}; only PostgreSQL is supported: "
            "write postgresql://user:password@host:5432/name"
        )
    return _without_other_drivers_words(parsed.set(drivername="postgresql+psycopg"))


def _without_other_drivers_words(url: URL) -> URL:
    """Put asyncpg's `ssl` into libpq's words and drop what only other clients understand."""
    ssl = url.query.get("ssl")
    if ssl is not None and "sslmode" not in url.query:
        word = ssl if isinstance(ssl, str) else ssl[0]
        word = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(
            word.lower(), word
        )
        url = url.update_query_dict({"sslmode": word})
    return url.difference_update_query(["ssl", *_OTHER_CLIENTS_WORDS])


def _has_own_session(url: URL) -> bool:
    """Whether a connection to `url` keeps its server session between transactions.

    It does not behind a pooler in transaction mode: `?pgbouncer=true`, as such addresses are
    handed out, or port 6543, Supabase's.
    """
    return url.query.get("pgbouncer") not in ("true", "1") and url.port != 6543


def _dump_json(value: object) -> str:
    return orjson.dumps(value).decode()


class Database:
    """A PostgreSQL database: the engine, its sessions, and where to find it.

    Times go in and come out aware and in UTC. A transaction is always short: nothing outside the
    database is talked to while one is open.
    """

    def __init__(
        self, url: str | URL, *, pool_size: int = 10, application_name: str = "causeway"
    ) -> None:
        written = url.render_as_string(False) if isinstance(url, URL) else url
        self.url = normalise_url(written)
        #: Whether LISTEN and other things of a session work; without, one can only poll.
        self.has_own_session = _has_own_session(make_url(written))
        #: What every connection is opened with, also those made without this engine.
        self.connect_arguments: dict[str, Any] = {
            "application_name": application_name,
            "connect_timeout": 10,
        }
        if self.has_own_session:
            self.connect_arguments["options"] = "-c timezone=UTC"
        else:  # the next transaction may be on another session, which has prepared nothing
            self.connect_arguments["prepare_threshold"] = None
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            json_serializer=_dump_json,
            json_deserializer=orjson.loads,
            connect_args=self.connect_arguments,
        )
        # A session that was closed stays closed: what is done on it later would be lost in silence.
        self.sessions = async_sessionmaker(
            self.engine, expire_on_commit=False, close_resets_only=False
        )

    @property
    def conninfo(self) -> str:
        """The address in libpq's own form, with its password: never shown, never logged."""
        plain = self.url.set(drivername="postgresql")
        return plain.render_as_string(hide_password=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """Open a session in a transaction: committed at the end, rolled back on an error."""
        async with self.sessions() as session, session.begin():
            yield session

    async def raw_connection(self) -> psycopg.AsyncConnection[Any]:
        """Open a connection of its own, in autocommit, for LISTEN; the caller closes it."""
        return await psycopg.AsyncConnection.connect(
            self.conninfo, autocommit=True, **self.connect_arguments
        )

    async def ping(self) -> None:
        """Ask the server for nothing; raises what the driver raises when it is away."""
        async with self.engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()
