"""Migrations: any number of processes at once, down and up again, and the same as the models."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.sql import SQL, Identifier
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.schema import CreateSchema

import causeway
from causeway.base.errors import ConfigurationError
from causeway.store import migrate
from causeway.store.engine import Database
from tests.postgres_fixtures import PostgresServer, migration_lines

STEP = '''"""Step {number}."""
import sqlalchemy as sa
from alembic import op
revision = "t{number}"
down_revision = {down}
branch_labels = None
depends_on = None
def upgrade():
    op.execute("SELECT pg_sleep(0.05)")
    op.create_table("t{number}", sa.Column("n", sa.Integer(), primary_key=True), schema="t")
    {more}
def downgrade():
    op.drop_table("t{number}", schema="t")
'''


#: The rooms that declare tables on the kernel's metadata.
ROOMS = tuple("store chains indexing pipelines relayer connections auth live ops".split())


def load_every_model() -> None:
    """Import every module of the kernel's rooms, so that all its tables are known."""
    for module in pkgutil.walk_packages(causeway.__path__, "causeway."):
        room = module.name.split(".")[1]
        if room in ROOMS and not module.name.startswith("causeway.store.migrations"):
            importlib.import_module(module.name)


@pytest.fixture
async def empty_database(empty_database_url: str) -> AsyncGenerator[Database]:
    database = Database(empty_database_url)
    yield database
    await database.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two migrations of schema `t`."""
    (tmp_path / "versions").mkdir()
    write(tmp_path, 1, "None")
    write(tmp_path, 2, '"t1"')
    return tmp_path


def write(folder: Path, number: int, down: str, more: str = "") -> None:
    script = STEP.format(number=number, down=down, more=more or "pass")
    (folder / "versions" / f"t{number}_step.py").write_text(script)


def line_in(folder: Path, metadata: MetaData | None = None) -> migrate.MigrationLine:
    return migrate.MigrationLine("t", "t", metadata or MetaData("t"), str(folder))


async def tables(database: Database, schema: str = "t") -> set[str]:
    async with database.transaction() as session:
        found = await session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"), {"schema": schema}
        )
        return set(found) - {migrate.VERSION_TABLE}


class Fact(NamedTuple):
    """One thing the catalogue says about a schema."""

    table: str
    kind: str
    name: str
    definition: str


FACTS = """
SELECT c.relname, 'column', a.attname,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
        a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p', 'v')
    AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT c.relname, 'constraint', k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.connamespace = to_regnamespace(%(schema)s) AND k.contype <> 'n'
UNION ALL SELECT tablename, 'index', indexname, indexdef FROM pg_indexes
WHERE schemaname = %(schema)s
UNION ALL SELECT c.relname, 'trigger', t.tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND NOT t.tgisinternal
UNION ALL SELECT p.proname, 'function', p.oid::regprocedure::text, p.prosrc
FROM pg_proc p WHERE p.pronamespace = to_regnamespace(%(schema)s)
UNION ALL SELECT t.typname, 'enum', e.enumlabel, e.enumsortorder::text
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
WHERE t.typnamespace = to_regnamespace(%(schema)s)
UNION ALL SELECT sequencename, 'sequence', sequencename, data_type::text FROM pg_sequences
WHERE schemaname = %(schema)s
UNION ALL SELECT viewname, 'view', viewname, definition FROM pg_views
WHERE schemaname = %(schema)s
"""


def facts(url: str, schema: str) -> set[Fact]:
    """Return all that the catalogue says about a schema, but for the version table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(FACTS, {"schema": schema}).fetchall()
    return {Fact(*row) for row in rows if row[0] != migrate.VERSION_TABLE}


def upgrade_at_once(url: str, what: str, processes: int = 4) -> None:
    """Let several processes upgrade at the same moment."""
    program = Path(__file__).parent / "upgrading_process.py"
    started = [
        subprocess.Popen(
            [sys.executable, program, url, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint


async def test_four_processes_may_upgrade_at_once(empty_database: Database, folder: Path) -> None:
    url = empty_database.url.set(drivername="postgresql").render_as_string(False)
    await asyncio.to_thread(upgrade_at_once, url, str(folder))
    line = line_in(folder)
    assert await migrate.status(empty_database, [line]) == [migrate.LineStatus("t", "t2", "t2", 0)]
    assert await tables(empty_database) == {"t1", "t2"}


async def test_tasks_of_one_process_may_upgrade_at_once(
    empty_database: Database, folder: Path
) -> None:
    line = line_in(folder)
    await asyncio.gather(*(migrate.upgrade(empty_database, [line]) for _ in range(4)))
    assert await tables(empty_database) == {"t1", "t2"}


async def test_different_databases_may_be_upgraded_at_once(
    shared_server: PostgresServer, empty_database: Database, folder: Path
) -> None:
    name = f"{empty_database.url.database}_too"
    other = Database(shared_server.create(name))
    line = line_in(folder)
    await asyncio.gather(
        *(migrate.upgrade(database, [line]) for database in (empty_database, other))
    )
    assert await tables(empty_database) == await tables(other) == {"t1", "t2"}
    await other.close()
    shared_server.drop(name)


async def test_a_step_that_names_no_schema_fails_whatever_the_role_is_called(
    empty_database: Database, folder: Path
) -> None:
    write(folder, 3, '"t2"', more='op.execute("CREATE TABLE somewhere (n int)")')
    with pytest.raises(Exception, match="permission denied"):
        await migrate.upgrade(empty_database, [line_in(folder)])


async def test_a_failing_step_leaves_nothing_of_its_run(
    empty_database: Database, folder: Path
) -> None:
    write(folder, 3, '"t2"', more='op.execute("SELECT 1/0")')
    with pytest.raises(Exception, match="division by zero"):
        await migrate.upgrade(empty_database, [line_in(folder)])
    assert await tables(empty_database) == set()
    write(folder, 3, '"t2"')
    await migrate.upgrade(empty_database, [line_in(folder)])
    assert await tables(empty_database) == {"t1", "t2", "t3"}


async def test_status_counts_what_is_left(empty_database: Database, folder: Path) -> None:
    line = line_in(folder)
    assert await migrate.status(empty_database, [line]) == [migrate.LineStatus("t", None, "t2", 2)]
    await migrate.upgrade(empty_database, [line], "t1")
    assert await migrate.status(empty_database, [line]) == [migrate.LineStatus("t", "t1", "t2", 1)]


async def test_who_finds_nothing_to_do_waits_for_nobody(
    empty_database: Database, folder: Path
) -> None:
    line = line_in(folder)
    await migrate.upgrade(empty_database, [line])
    async with empty_database.sessions() as session:  # somebody has the line's tables and lock
        await session.execute(text("LOCK TABLE t.alembic_version IN SHARE MODE"))
        await session.run_sync(lambda s: migrate._lock(s.connection(), line))
        await asyncio.wait_for(migrate.upgrade(empty_database, [line]), 10)


async def test_a_role_that_may_not_create_schemas_can_upgrade_in_one_that_is_there(
    shared_server: PostgresServer, empty_database: Database, folder: Path
) -> None:
    name = str(empty_database.url.database)
    with shared_server.administrator(name) as connection:
        connection.execute("CREATE SCHEMA t AUTHORIZATION causeway")
        connection.execute(SQL("ALTER DATABASE {} OWNER TO postgres").format(Identifier(name)))
    await migrate.upgrade(empty_database, [line_in(folder)])
    assert await tables(empty_database) == {"t1", "t2"}


async def test_a_database_of_a_newer_version_is_refused(
    empty_database: Database, folder: Path
) -> None:
    write(folder, 3, '"t2"')
    await migrate.upgrade(empty_database, [line_in(folder)])
    (folder / "versions" / "t3_step.py").unlink()
    with pytest.raises(ConfigurationError, match="newer"):
        await migrate.upgrade(empty_database, [line_in(folder)])
    assert await tables(empty_database) == {"t1", "t2", "t3"}


async def test_two_ends_are_refused(empty_database: Database, folder: Path) -> None:
    write(folder, 3, '"t1"')
    with pytest.raises(ConfigurationError, match="2 ends"):
        await migrate.upgrade(empty_database, [line_in(folder)])


async def test_a_new_version_file_follows_the_newest(
    empty_database: Database, folder: Path
) -> None:
    line = line_in(folder)
    path = migrate.make(line, "Add colours", revision="t3")
    assert path == folder / "versions" / "t3_add_colours.py"
    await migrate.upgrade(empty_database, [line])
    assert (await migrate.status(empty_database, [line]))[0].current == "t3"


async def test_differences_are_found_and_views_and_partitions_are_none(
    empty_database: Database, folder: Path
) -> None:
    metadata = MetaData("t")
    Table("t1", metadata, Column("n", Integer, primary_key=True))
    Table("t2", metadata, Column("n", Integer, primary_key=True))
    Table("seen", metadata, Column("n", Integer), info={"is_view": True})
    line = line_in(folder, metadata)
    await migrate.upgrade(empty_database, [line])
    assert await migrate.differences(empty_database, line) == []
    async with empty_database.transaction() as session:
        await session.execute(text("CREATE VIEW t.seen AS SELECT n FROM t.t1"))
        await session.execute(text("CREATE SCHEMA elsewhere CREATE TABLE x (n int)"))
    Table("days", metadata, Column("n", Integer), postgresql_partition_by="RANGE (n)")
    async with empty_database.transaction() as session:
        await session.execute(text("CREATE TABLE t.days (n int) PARTITION BY RANGE (n)"))
        await session.execute(
            text("CREATE TABLE t.days_1 PARTITION OF t.days FOR VALUES FROM (1) TO (2)")
        )
    assert await migrate.differences(empty_database, line) == []
    async with empty_database.transaction() as session:
        await session.execute(text("ALTER TABLE t.t1 ADD COLUMN extra int"))
        await session.execute(text("ALTER TABLE t.t2 ALTER COLUMN n TYPE bigint"))
    kinds = str(await migrate.differences(empty_database, line))
    assert "remove_column" in kinds
    assert "modify_type" in kinds


@pytest.mark.parametrize("line", migration_lines(), ids=lambda line: line.name)
async def test_every_step_goes_down_and_up_again(
    empty_database: Database, empty_database_url: str, line: migrate.MigrationLine
) -> None:
    if line.name != "kernel":  # an app's tables may stand on the kernel's
        await migrate.upgrade(empty_database, [migrate.kernel_line()])
    script = ScriptDirectory.from_config(migrate._config(line))
    steps = [step.revision for step in reversed(list(script.walk_revisions()))]
    before = facts(empty_database_url, line.schema)
    for number, step in enumerate(steps):
        await migrate.upgrade(empty_database, [line], step)
        after = facts(empty_database_url, line.schema)
        await migrate.downgrade(empty_database, line, steps[number - 1] if number else "base")
        assert facts(empty_database_url, line.schema) == before
        await migrate.upgrade(empty_database, [line], step)
        assert facts(empty_database_url, line.schema) == after
        before = after
    await migrate.downgrade(empty_database, line, "base")
    assert facts(empty_database_url, line.schema) == set()


@pytest.mark.parametrize("line", migration_lines(), ids=lambda line: line.name)
async def test_migrations_make_exactly_the_tables_of_the_models(
    database: Database,
    database_url: str,
    empty_database: Database,
    empty_database_url: str,
    line: migrate.MigrationLine,
) -> None:
    load_every_model()
    assert await migrate.differences(database, line) == []
    assert await tables(database, "public") == set()
    # Alembic does not compare everything (check constraints, conditions of indexes), the
    # catalogue of a database made from the models does.
    declared = MetaData(line.schema, naming_convention=line.metadata.naming_convention)
    for table in line.metadata.sorted_tables:
        if not table.info.get("is_view"):
            table.to_metadata(declared)
    async with empty_database.engine.begin() as connection:
        await connection.execute(CreateSchema(line.schema))
        await connection.run_sync(declared.create_all)
    names = {table.name for table in declared.sorted_tables}
    kinds = {"column", "constraint", "index"}

    def comparable(url: str) -> list[Fact]:
        found = facts(url, line.schema)
        return sorted(fact for fact in found if fact.kind in kinds and fact.table in names)

    assert comparable(database_url) == comparable(empty_database_url)
