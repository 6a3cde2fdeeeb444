"""The embedded database: PostgreSQL without installing, configuring or starting anything.

    async with EmbeddedPostgres.open(Path(".causeway")) as server:
        database = Database(server.url)

Any number of processes may open the same folder at the same time: the first starts the server, the
others use it, the last one stops it. None of them owns it; a keeper does (`postgres_keeper`), and
says what happens when one of them is killed. The server is reached over a Unix socket in a folder
only its user may enter, and never over the network. The application's role is no superuser, so
that row-level security applies to it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psycopg
import structlog
from psycopg import errors

from causeway.base.errors import CausewayError, ConfigurationError, ProviderUnavailable
from causeway.store import postgres_keeper
from causeway.store.postgres_home import open_lock, prepare, with_programs
from causeway.store.postgres_server import SUPERUSER, Layout, initialise, log_tail
from causeway.store.row_security import REQUESTS, roles_for

ROLE = "causeway"
NAME = "causeway"

_READY_S = 60.0
_PATIENT_S = 5.0
_STOP_S = 30.0
_WATCH_S = 0.5
_POLL_S = 0.02

_log = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """One process's use of the embedded server in a folder."""

    def __init__(
        self,
        data_dir: Path,
        *,
        user: str | None = None,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._asked_for = data_dir / "postgres"
        self._user = user if user is not None else os.environ.get("CAUSEWAY_EMBEDDED_USER") or None
        self._bin_dir = bin_dir
        self._settings = dict(settings or {})
        self._using: int | None = None
        self._changing = threading.RLock()
        self._leaving = threading.Event()
        self._watcher: threading.Thread | None = None
        self._opened: Layout | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path,
        *,
        user: str | None = None,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Self]:
        """Use the server in `data_dir/postgres` inside this block, starting it if nobody has.

        `user` is the account it runs as when we are root, `bin_dir` the folder of another
        PostgreSQL's programs, `settings` further server settings (they count for who starts it).
        Raises `ConfigurationError` when it cannot run here, `ProviderUnavailable` when it does not
        accept connections within 60 seconds.
        """
        server = cls(data_dir, user=user, bin_dir=bin_dir, settings=settings)
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            await asyncio.to_thread(server.close)

    @property
    def url(self) -> str:
        """The address of the application's database, for the role that owns it."""
        return self._url(ROLE, NAME)

    @property
    def requests_url(self) -> str:
        """The address of the same database for requests under row level security."""
        return self._url(REQUESTS, NAME)

    @property
    def layout(self) -> Layout:
        """Where the server's data, socket and log are."""
        if self._opened is None:
            raise ConfigurationError("the embedded database is not started")
        return self._opened

    def start(self) -> None:
        """Use the server from now on, starting it if nobody has; see `open`."""
        with self._changing:
            self._opened = prepare(
                self._asked_for, user=self._user, bin_dir=self._bin_dir, settings=self._settings
            )
            began = time.monotonic()
            self._enter(began + _READY_S)
            try:
                self._ensure(began + _READY_S)
            except BaseException:
                self.close()
                raise
            self._leaving.clear()
            self._watcher = threading.Thread(target=self._watch, name="embedded", daemon=True)
            self._watcher.start()
        _log.info(
            "embedded database ready",
            data=str(self.layout.home),
            user=self.layout.account.name,
            seconds=round(time.monotonic() - began, 3),
        )

    def close(self) -> None:
        """Stop using the server; if nobody else does, wait until it has stopped."""
        with self._changing:  # a start that was cancelled may still be under way in its thread
            self._leaving.set()
            if self._watcher is not None:
                self._watcher.join()
                self._watcher = None
            if self._using is None:
                return
            os.close(self._using)
            self._using = None
            with suppress(FileNotFoundError):
                if self._was_last():
                    deadline = time.monotonic() + _STOP_S
                    while self._is_kept() and time.monotonic() < deadline:
                        time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def administrator(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """Open a superuser's connection in autocommit, for tests and repairs; close it yourself."""
        return psycopg.connect(self._url(SUPERUSER, name), autocommit=True, connect_timeout=10)

    def _url(self, role: str, name: str) -> str:
        return f"postgresql://{role}@/{name}?host={quote(str(self.layout.socket_dir), safe='')}"

    def _enter(self, deadline: float) -> None:
        """Become a user of the server; while the last one's leaving stops it, wait."""
        descriptor = open_lock(self.layout, "users.lock")
        try:
            _lock(descriptor, fcntl.LOCK_SH, deadline)
        except BaseException:
            os.close(descriptor)
            raise
        self._using = descriptor

    def _ensure(self, deadline: float) -> None:
        """Have a keeper and a server that accepts connections, and our database in it."""
        with self._starting(deadline):
            if not self._is_kept():
                self._keep(deadline)
            self._wait_until_ready(deadline)

    def _keep(self, deadline: float) -> None:
        layout = with_programs(self.layout)
        initialise(layout)
        descriptor = open_lock(layout, "keeper.lock")
        try:
            _lock(descriptor, fcntl.LOCK_EX, deadline)
            postgres_keeper.spawn(layout, descriptor)
        finally:
            os.close(descriptor)

    def _wait_until_ready(self, deadline: float) -> None:
        patient_until = time.monotonic() + _PATIENT_S
        while True:
            try:
                if not self._has_roles():
                    self._make_database()
            except (errors.InvalidCatalogName, errors.InvalidAuthorizationSpecification):
                self._make_database()
            except psycopg.OperationalError as error:
                if _is_missing(error):
                    self._make_database()
                elif not self._is_kept():
                    raise ProviderUnavailable(
                        f"the embedded database does not start: {log_tail(self.layout)}"
                    ) from None
            else:
                return
            now = time.monotonic()
            if now > deadline:
                raise ProviderUnavailable(
                    f"the embedded database accepts no connections: {log_tail(self.layout)}"
                )
            if now > patient_until:
                patient_until = deadline
                _log.info("embedded database is recovering", data=str(self.layout.home))
            time.sleep(_POLL_S)

    def _make_database(self) -> None:
        with self.administrator() as connection:
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchall():
                connection.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOCREATEROLE")
                # As for a role of any other name: `$user` would be the kernel's schema.
                connection.execute(f"ALTER ROLE {ROLE} SET search_path TO public")
            connection.execute(roles_for(ROLE).encode())
            if not connection.execute(
                "SELECT FROM pg_database WHERE datname = %s", [NAME]
            ).fetchall():
                connection.execute(f"CREATE DATABASE {NAME} OWNER {ROLE}")

    def _has_roles(self) -> bool:
        with psycopg.connect(self.url, connect_timeout=10) as connection:
            found = connection.execute("SELECT to_regrole(%s) IS NOT NULL", [REQUESTS]).fetchone()
        return found is not None and bool(found[0])

    @contextmanager
    def _starting(self, deadline: float) -> Generator[None]:
        descriptor = open_lock(self.layout, "start.lock")
        try:
            _lock(descriptor, fcntl.LOCK_EX, deadline)
            yield
        finally:
            os.close(descriptor)

    def _is_kept(self) -> bool:
        return self._is_locked("keeper.lock", fcntl.LOCK_SH)

    def _was_last(self) -> bool:
        # Held for others only: some still use it. Held against others too: the keeper is stopping.
        in_use = self._is_locked("users.lock", fcntl.LOCK_EX)
        return not in_use or self._is_locked("users.lock", fcntl.LOCK_SH)

    def _is_locked(self, name: str, against: int) -> bool:
        descriptor = open_lock(self.layout, name)
        try:
            fcntl.flock(descriptor, against | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _watch(self) -> None:
        """Replace a keeper that was killed, for as long as we use the server."""
        while not self._leaving.wait(_WATCH_S):
            try:
                if not self._is_kept():
                    _log.warning("embedded database lost its keeper", data=str(self.layout.home))
                    self._ensure(time.monotonic() + _READY_S)
            except FileNotFoundError:
                _log.error("embedded database was removed", data=str(self.layout.home))
                return
            except (CausewayError, OSError, psycopg.Error) as error:
                _log.error("embedded database is away", error=str(error))


def _is_missing(error: psycopg.OperationalError) -> bool:
    # libpq gives no SQLSTATE for a connection that was refused, only the server's words.
    return f'"{ROLE}" does not exist' in str(error)


def _lock(descriptor: int, kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ProviderUnavailable(
                    "another process has been starting or stopping the embedded database for "
                    f"{_READY_S:.0f} seconds"
                ) from None
            time.sleep(_POLL_S)
        else:
            return
