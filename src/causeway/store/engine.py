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


def normalise_url(url: str) -> URL:
    """Return `url` as SQLAlchemy's address for psycopg 3, whatever driver it named.

    Raises `ConfigurationError` (without the password) when it is no PostgreSQL address.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "DATABASE_URL is not an address; write postgresql://user:password@host:5432/name"
        ) from None
    if parsed.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"DATABASE_URL names {parsed.drivername!r}; only PostgreSQL is supported: "
            "write postgresql://user:password@host:5432/name"
        )
    return parsed.set(drivername="postgresql+psycopg")


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
        self.url = normalise_url(url.render_as_string(False) if isinstance(url, URL) else url)
        #: What every connection is opened with, also those made without this engine.
        self.connect_arguments: dict[str, Any] = {
            "application_name": application_name,
            "connect_timeout": 10,
            "options": "-c timezone=UTC",
        }
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            json_serializer=_dump_json,
            json_deserializer=orjson.loads,
            connect_args=self.connect_arguments,
        )
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @property
    def conninfo(self) -> str:
        """The address in libpq's own form, for connections made without SQLAlchemy."""
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
            self.conninfo, autocommit=True, connect_timeout=10
        )

    async def ping(self) -> None:
        """Ask the server for nothing; raises what the driver raises when it is away."""
        async with self.engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()
