"""Migrations: one line for the kernel, one for every app, each in a schema of its own.

A line is a folder with Alembic versions and the schema they make; its version table
(`alembic_version`) is in that schema, so lines never meet. `env.py` is shared: an app's folder
needs only `versions/`.

Any number of processes may call `upgrade` at the same moment. A line runs in one transaction that
first takes an advisory lock belonging to that transaction (so that it works behind a
transaction-mode pooler, too); whoever comes second finds nothing left to do, and who finds nothing
to do from the start takes no lock at all.

Alembic keeps the migration it is running in module variables, and is synchronous: every run happens
in a thread of its own, one at a time in a process.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, MetaData, NullPool, create_engine, text

from causeway.base.errors import ConfigurationError
from causeway.store.engine import Database
from causeway.store.schema import kernel_metadata

T = TypeVar("T")

VERSION_TABLE = "alembic_version"

_ENVIRONMENT = Path(__file__).parent / "migrations"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class MigrationLine:
    """One schema and the versions that make it.

    `location` is the folder that holds `versions/`: `causeway.apps.glisk:migrations` (a folder
    inside a package) or a path.
    """

    name: str
    schema: str
    metadata: MetaData
    location: str

    @property
    def versions(self) -> Path:
        """The folder with the version files; `ConfigurationError` when the package is not there."""
        return _folder(self.location) / "versions"


@dataclass(frozen=True)
class LineStatus:
    """Where a line is: the revision in the database, the newest one, and how many are between."""

    name: str
    current: str | None
    head: str | None
    pending: int


def kernel_line() -> MigrationLine:
    """Return the kernel's own line, schema `causeway`."""
    return MigrationLine("kernel", "causeway", kernel_metadata, "causeway.store:migrations")


async def upgrade(database: Database, lines: Iterable[MigrationLine], to: str = "head") -> None:
    """Bring every line to revision `to`, in order, each in one transaction.

    Raises `ConfigurationError` when the database is at a revision this code does not know.
    """
    for line in lines:
        await _in_thread(database, _upgrade, line, to)


async def downgrade(database: Database, line: MigrationLine, to: str) -> None:
    """Take one line back to revision `to` (`base`: before its first), in one transaction."""
    await _in_thread(database, _downgrade, line, to)


async def status(database: Database, lines: Iterable[MigrationLine]) -> list[LineStatus]:
    """Say where each line is, changing nothing."""
    return [await _in_thread(database, _status, line) for line in lines]


async def differences(database: Database, line: MigrationLine) -> list[Any]:
    """Return how the tables in the database differ from the models, as Alembic's operations.

    Looks at this line's schema only; left out are views (`info={"is_view": True}`), partitions, the
    version table, and tables whose names begin as `metadata.info["tables_of_others"]` says. Alembic
    does not see check constraints, conditions of indexes, triggers and functions.
    """
    return await _in_thread(database, _differences, line)


def make(line: MigrationLine, message: str, *, revision: str | None = None) -> Path:
    """Write an empty version file after the newest one, for a developer to fill; return its path.

    Raises `ConfigurationError` when the line has more than one head.
    """
    line.versions.mkdir(parents=True, exist_ok=True)
    _head(line)
    written = command.revision(_config(line), message, rev_id=revision)
    if written is None or isinstance(written, list):
        raise ConfigurationError(f"no version file was written for {line.name}")
    return Path(written.path)


def configuration_of(config: Config) -> dict[str, Any]:
    """Return what `env.py` passes to `context.configure`; called by Alembic's own machinery."""
    return _options(config.attributes["line"]) | {"connection": config.attributes["connection"]}


def _folder(location: str) -> Path:
    package, colon, inside = location.partition(":")
    if not colon:
        return Path(location).resolve()
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"migrations {location!r}: there is no package {package!r}")
    return Path(next(iter(spec.submodule_search_locations)), inside)


def _config(line: MigrationLine, connection: Connection | None = None) -> Config:
    config = Config()
    for key, value in {
        "script_location": _ENVIRONMENT,
        "version_locations": line.versions,
        "path_separator": "newline",
        "file_template": "%(rev)s_%(slug)s",
    }.items():
        config.set_main_option(key, str(value).replace("%", "%%"))
    config.attributes["line"] = line
    config.attributes["connection"] = connection
    return config


def _leave_search_path(connection: Connection) -> None:
    """See no schema but the server's own until the transaction ends.

    Migrations name their schemas. What the role's search path holds differs from place to place (a
    role `causeway` has the schema `causeway` in it), and what is made or compared must not.
    """
    connection.execute(text("SET LOCAL search_path TO pg_catalog"))
    connection.dialect.default_schema_name = "pg_catalog"


def _options(line: MigrationLine, partitions: frozenset[str] = frozenset()) -> dict[str, Any]:
    others: tuple[str, ...] = line.metadata.info.get("tables_of_others", ())

    def include_name(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "schema" or name == line.schema

    def include_object(
        thing: object, name: str | None, kind: str, _reflected: bool, _other: object
    ) -> bool:
        if kind != "table":
            return True
        info: dict[Any, Any] = getattr(thing, "info", {})
        is_ours = name is not None and not name.startswith(others)
        return is_ours and not info.get("is_view") and name not in partitions

    return {
        "target_metadata": line.metadata,
        "version_table": VERSION_TABLE,
        "version_table_schema": line.schema,
        "include_schemas": True,
        "include_name": include_name,
        "include_object": include_object,
        "compare_type": True,
        "compare_server_default": True,
    }


async def _in_thread(database: Database, work: Callable[..., T], *args: object) -> T:
    def run() -> T:
        engine = create_engine(
            database.url, poolclass=NullPool, connect_args=database.connect_arguments
        )
        try:
            with _one_at_a_time, engine.connect() as connection:
                return work(connection, *args)
        finally:
            engine.dispose()

    return await asyncio.to_thread(run)


def _upgrade(connection: Connection, line: MigrationLine, to: str) -> None:
    if to == "head" and _current(connection, line) == _head(line):
        return
    connection.rollback()
    with connection.begin():
        _leave_search_path(connection)
        _lock(connection, line)
        _make_schema(connection, line)
        _check_known(connection, line)
        command.upgrade(_config(line, connection), to)


def _downgrade(connection: Connection, line: MigrationLine, to: str) -> None:
    with connection.begin():
        _leave_search_path(connection)
        _lock(connection, line)
        _check_known(connection, line)
        if _current(connection, line) is not None:
            command.downgrade(_config(line, connection), to)


def _status(connection: Connection, line: MigrationLine) -> LineStatus:
    current, head = _current(connection, line), _head(line)
    _check_known(connection, line)
    pending = 0
    if head is not None:
        pending = sum(1 for _ in _script(line).iterate_revisions(head, current or "base"))
    return LineStatus(line.name, current, head, pending)


def _differences(connection: Connection, line: MigrationLine) -> list[Any]:
    # A role named like the schema has it as its default, whose tables Alembic takes for others.
    connection.execute(text("SET LOCAL search_path TO pg_catalog"))
    connection.dialect.default_schema_name = "pg_catalog"
    _leave_search_path(connection)
    partitions = connection.scalars(
        text(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = :schema AND c.relispartition"
        ),
        {"schema": line.schema},
    )
    options = _options(line, frozenset(partitions))
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, line.metadata))


def _lock(connection: Connection, line: MigrationLine) -> None:
    digest = hashlib.sha256(f"causeway.migrate.{line.schema}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _make_schema(connection: Connection, line: MigrationLine) -> None:
    # IF NOT EXISTS would ask for the right to create schemas even where there is nothing to do.
    there = connection.scalar(
        text("SELECT true FROM pg_namespace WHERE nspname = :schema"), {"schema": line.schema}
    )
    if not there:
        quoted = connection.dialect.identifier_preparer.quote(line.schema)
        connection.execute(text(f"CREATE SCHEMA {quoted}"))


def _current(connection: Connection, line: MigrationLine) -> str | None:
    preparer = connection.dialect.identifier_preparer
    table = f"{preparer.quote(line.schema)}.{VERSION_TABLE}"
    if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    return connection.scalar(text(f"SELECT version_num FROM {table}"))


def _script(line: MigrationLine) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(line))


def _head(line: MigrationLine) -> str | None:
    heads: Sequence[str] = _script(line).get_heads()
    if len(heads) > 1:
        raise ConfigurationError(
            f"the migrations of {line.name} have {len(heads)} ends ({', '.join(sorted(heads))}); "
            "give one of them the other as its down_revision"
        )
    return heads[0] if heads else None


def _check_known(connection: Connection, line: MigrationLine) -> None:
    current = _current(connection, line)
    if current is None:
        return
    try:
        _script(line).get_revision(current)
    except CommandError:
        raise ConfigurationError(
            f"the schema {line.schema!r} is at revision {current!r}, which this version does not "
            "know; it was migrated by a newer one: run that, or restore a backup"
        ) from None
