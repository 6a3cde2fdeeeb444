"""The undo log: what facts changed is given back exactly, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ConfigurationError
from causeway.indexing.undo import (
    attach_undo,
    detach_undo,
    forget_up_to,
    note_changes,
    undo_above,
)
from causeway.store.engine import Database

SCHEMA = """
CREATE SCHEMA t;
CREATE TYPE t.mood AS ENUM ('good', 'bad');
CREATE TYPE t.pair AS (a integer, b text);
CREATE DOMAIN t.small AS integer CHECK (value < 100);
CREATE TABLE t.kinds (
    id integer PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    wei numeric(78, 0), ratio double precision, raw bytea, words text[], grid integer[],
    weis numeric(78, 0)[], blobs bytea[], mood t.mood, moods t.mood[], extra jsonb,
    sure jsonb NOT NULL DEFAULT '{}', plain json, seen timestamptz, day date, span interval,
    token uuid, flag boolean, pair t.pair, small t.small, range int8range,
    twice integer GENERATED ALWAYS AS (id * 2) STORED
);
CREATE TABLE t.parents (id integer PRIMARY KEY, name text UNIQUE);
CREATE TABLE t.children (
    id integer PRIMARY KEY,
    parent integer NOT NULL REFERENCES t.parents ON DELETE CASCADE ON UPDATE CASCADE,
    note text
);
CREATE TABLE t.grandchildren (
    id integer PRIMARY KEY,
    child integer NOT NULL REFERENCES t.children ON DELETE CASCADE
);
CREATE TABLE t.friends (id integer PRIMARY KEY, parent integer REFERENCES t.parents
    ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE t.pairs (a integer, b text, value integer, PRIMARY KEY (a, b));
CREATE TABLE t."Keyless" (value integer)
"""
TABLES = ("kinds", "parents", "children", "grandchildren", "friends", "pairs")

FULL = """
INSERT INTO t.kinds VALUES (
    {id}, DEFAULT, {wei}, 0.1 + 0.2, '\\x00ff', ARRAY['a', NULL, '{{"x"}}', ''],
    ARRAY[[1, 2], [3, 4]], ARRAY[{wei}, 0]::numeric[], ARRAY['\\x01'::bytea], 'good',
    ARRAY['bad', 'good']::t.mood[], '{{"a": [1.50, null, "\\u00fc"]}}', 'null', '[1, 2]',
    '2026-11-20 12:34:56.123456+02', 'infinity', '1 year 2 days 03:04:05.6',
    'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', true, ROW(1, 'x, "y"')::t.pair, 99, '[1,5)'
)
"""
EMPTY = "INSERT INTO t.kinds (id) VALUES ({id})"


@pytest.fixture
async def session(database: Database) -> AsyncGenerator[AsyncSession]:
    """A transaction on tables of many kinds, with some rows in them."""
    statements = [
        *SCHEMA.split(";"),
        *(one for table in TABLES for one in attach_undo(f"t.{table}")),
        FULL.format(id=1, wei=2**255 + 1),
        EMPTY.format(id=2),
        "INSERT INTO t.parents SELECT n, 'p' || n FROM generate_series(1, 4) AS n",
        "INSERT INTO t.children SELECT n, 1 + n % 3, 'c' FROM generate_series(1, 6) AS n",
        "INSERT INTO t.grandchildren SELECT n, 1 + n % 6 FROM generate_series(1, 12) AS n",
        "INSERT INTO t.friends SELECT n, 1 + n % 4 FROM generate_series(1, 4) AS n",
        "INSERT INTO t.pairs SELECT n % 2, 'b' || n, n FROM generate_series(1, 6) AS n",
    ]
    async with database.transaction() as opened:
        await run(opened, statements)
        yield opened


async def run(session: AsyncSession, statements: Sequence[str]) -> None:
    for statement in statements:
        connection = await session.connection()
        await connection.exec_driver_sql(statement.replace("%", "%%"))


async def state(session: AsyncSession) -> list[str]:
    """Return every row as text, which tells apart what JSON does not."""
    rows: list[str] = []
    for table in TABLES:
        found = await session.scalars(text(f"SELECT '{table}' || r::text FROM t.{table} AS r"))
        rows += sorted(found)
    return rows


DOINGS = {
    "insert": [FULL.format(id=3, wei=7), EMPTY.format(id=4)],
    "insert many": ["INSERT INTO t.pairs SELECT 7, 'x' || n, n FROM generate_series(1, 50) AS n"],
    "delete": ["DELETE FROM t.kinds"],
    "delete by half a key": ["DELETE FROM t.pairs WHERE a = 1"],
    "update every column": [
        "UPDATE t.kinds SET wei = wei - 1, ratio = 1e300, raw = '\\x', words = '{}', grid = NULL, "
        "weis = NULL, blobs = '{}', mood = 'bad', moods = '{}', extra = '7', sure = '[]', "
        "plain = '{}', seen = now(), day = now(), span = '0', token = NULL, flag = NULL, "
        "pair = NULL, small = NULL, range = 'empty'"
    ],
    "update to nothing": ["UPDATE t.kinds SET wei = NULL, words = NULL, sure = '{\"a\": null}'"],
    "update from nothing": ["UPDATE t.kinds SET wei = 1, raw = '\\x01', mood = 'bad' WHERE id = 2"],
    "update the same row twice": [
        "UPDATE t.pairs SET value = value + 1 WHERE a = 1",
        "UPDATE t.pairs SET value = value * 10",
    ],
    "update nothing at all": ["UPDATE t.pairs SET value = value"],
    "change a key": ["UPDATE t.pairs SET a = a + 5 WHERE value < 4"],
    "shift keys to taken places": [
        "CREATE TABLE t.shifted AS SELECT * FROM t.parents ORDER BY id DESC",
        "DELETE FROM t.friends",
        "DELETE FROM t.parents",
        "INSERT INTO t.parents SELECT * FROM t.shifted",
        "UPDATE t.parents SET id = id + 1",
    ],
    "shift keys over each other": [
        "UPDATE t.kinds SET id = 10 - id",
        "UPDATE t.pairs SET a = 1 - a",
    ],
    "insert, change and delete": [
        EMPTY.format(id=5),
        "UPDATE t.kinds SET wei = 5 WHERE id = 5",
        "DELETE FROM t.kinds WHERE id = 5",
        FULL.format(id=5, wei=6),
    ],
    "delete and insert again": ["DELETE FROM t.kinds WHERE id = 1", EMPTY.format(id=1)],
    "delete a parent with all that hangs on it": ["DELETE FROM t.parents WHERE id <= 2"],
    "delete leaves first": [
        "DELETE FROM t.grandchildren",
        "DELETE FROM t.children",
        "DELETE FROM t.parents",
    ],
    "change a parent's key": ["UPDATE t.parents SET id = 40 WHERE id = 1"],
    "new family": [
        "INSERT INTO t.parents VALUES (9, 'p9')",
        "INSERT INTO t.children VALUES (9, 9, 'c9')",
        "UPDATE t.children SET parent = 9 WHERE id = 1",
        "UPDATE t.friends SET parent = 9",
        "DELETE FROM t.parents WHERE id IN (1, 9)",
    ],
    "upsert": [
        "INSERT INTO t.pairs VALUES (1, 'b1', 100), (1, 'new', 100) "
        "ON CONFLICT (a, b) DO UPDATE SET value = excluded.value"
    ],
    "merge": [
        "MERGE INTO t.pairs AS p USING (VALUES (1, 'b1'), (8, 'n')) AS v (a, b) "
        "ON p.a = v.a AND p.b = v.b WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT VALUES (v.a, v.b, 0)"
    ],
    "a name given to another": [
        "UPDATE t.parents SET name = 'x' WHERE id = 1",
        "UPDATE t.parents SET name = 'p1' WHERE id = 2",
    ],
}


@pytest.mark.parametrize("doing", DOINGS)
async def test_rows_are_as_before_when_undone(session: AsyncSession, doing: str) -> None:
    before = await state(session)
    await note_changes(session, "s:1", 7)
    await run(session, DOINGS[doing])
    await note_changes(session, "s:1", None)
    if doing != "update nothing at all":
        assert await state(session) != before
        assert await session.scalar(text("SELECT count(*) FROM causeway.undo_log")) > 0
    undone = await undo_above(session, "s:1", 6)
    assert await state(session) == before
    assert (undone > 0) == (doing != "update nothing at all")
    assert await session.scalar(text("SELECT count(*) FROM causeway.undo_log")) == 0


async def test_everything_at_once_is_undone_block_by_block(session: AsyncSession) -> None:
    order = [name for name in DOINGS if "family" in name or "key" not in name]
    states: list[list[str]] = []
    done: list[str] = []
    for name in order:
        states.append(await state(session))
        await note_changes(session, "s", len(done))
        point = await session.begin_nested()
        try:
            await run(session, DOINGS[name])
        except IntegrityError:
            await point.rollback()
            states.pop()
            continue
        await point.commit()
        done.append(name)
    assert len(done) > 8
    await note_changes(session, "s", None)
    for block in reversed(range(len(done))):
        await undo_above(session, "s", block - 1)
        assert await state(session) == states[block], done[block]


async def test_changes_outside_the_indexer_stay(session: AsyncSession) -> None:
    await note_changes(session, "s", 5)
    await run(session, ["UPDATE t.parents SET name = 'fact' WHERE id = 1"])
    await note_changes(session, "s", None)
    await run(session, ["INSERT INTO t.pairs VALUES (3, 'stage', 1)"])
    await run(session, ["UPDATE t.kinds SET flag = false, wei = 3 WHERE id = 1"])
    await note_changes(session, "s", 6)
    await run(session, ["UPDATE t.kinds SET wei = 4 WHERE id = 1"])
    await note_changes(session, "s", None)
    await run(session, ["UPDATE t.kinds SET ratio = 2 WHERE id = 1"])
    await undo_above(session, "s", 5)
    row = (await session.execute(text("SELECT wei, flag, ratio FROM t.kinds WHERE id = 1"))).one()
    assert tuple(row) == (3, False, 2)
    assert await session.scalar(text("SELECT value FROM t.pairs WHERE a = 3")) == 1
    assert await session.scalar(text("SELECT name FROM t.parents WHERE id = 1")) == "fact"
    await undo_above(session, "s", 4)
    assert await session.scalar(text("SELECT name FROM t.parents WHERE id = 1")) == "p1"


async def test_sources_and_final_blocks_are_kept_apart(session: AsyncSession) -> None:
    for source, block, key in (("a", 5, 1), ("a", 6, 2), ("b", 6, 3)):
        await note_changes(session, source, block)
        await run(session, [f"UPDATE t.parents SET name = 'x{key}' WHERE id = {key}"])
    await note_changes(session, "a", None)
    await forget_up_to(session, "a", 5)
    assert await undo_above(session, "a", 0) == 1
    names = await session.scalars(text("SELECT name FROM t.parents ORDER BY id"))
    assert list(names) == ["x1", "p2", "x3", "p4"]


async def test_noting_ends_with_the_transaction(database: Database) -> None:
    async with database.transaction() as session:
        await run(session, ["CREATE SCHEMA t", "CREATE TABLE t.x (id integer PRIMARY KEY)"])
        await run(session, attach_undo("t.x"))
        await note_changes(session, "s", 1)
    for _ in range(12):  # whatever connection the pool gives
        async with database.transaction() as session:
            await run(session, ["INSERT INTO t.x SELECT coalesce(max(id), 0) + 1 FROM t.x"])
            assert await session.scalar(text("SELECT count(*) FROM causeway.undo_log")) == 0


async def test_an_undo_survives_a_migration_of_its_table(session: AsyncSession) -> None:
    await note_changes(session, "s", 1)
    await run(session, ["UPDATE t.parents SET name = 'x' WHERE id = 1", "DELETE FROM t.pairs"])
    await run(session, ["UPDATE t.friends SET parent = NULL", "DELETE FROM t.grandchildren"])
    await note_changes(session, "s", None)
    await run(
        session,
        [
            "ALTER TABLE t.parents ADD COLUMN added text NOT NULL DEFAULT 'd'",
            "ALTER TABLE t.pairs DROP COLUMN value, ADD COLUMN added text NOT NULL DEFAULT 'd'",
            "ALTER TABLE t.friends DROP COLUMN parent",
            "DROP TABLE t.grandchildren",
        ],
    )
    await undo_above(session, "s", 0)
    rows = await session.execute(text("SELECT name, added FROM t.parents WHERE id = 1"))
    assert tuple(rows.one()) == ("p1", "d")
    assert await session.scalar(text("SELECT count(*) FROM t.pairs WHERE added = 'd'")) == 6


async def test_what_a_foreign_key_forbids_is_told(session: AsyncSession) -> None:
    await note_changes(session, "s", 1)
    await run(session, ["DELETE FROM t.children WHERE id = 6"])
    await note_changes(session, "s", None)
    await run(session, ["DELETE FROM t.parents"])  # a stage removed what the child hung on
    with pytest.raises(IntegrityError, match="violates foreign key constraint"):
        await undo_above(session, "s", 0)


async def test_a_table_without_a_key_is_refused_when_it_is_noted(session: AsyncSession) -> None:
    await run(
        session, [one.replace("t.keyless", 't."Keyless"') for one in attach_undo("t.keyless")]
    )
    await run(session, ['INSERT INTO t."Keyless" VALUES (1)'])
    await note_changes(session, "s", 1)
    with pytest.raises(DBAPIError, match="has no primary key"):
        await run(session, ['INSERT INTO t."Keyless" VALUES (2)'])


async def test_detached_tables_are_not_noted(session: AsyncSession) -> None:
    await run(session, [*detach_undo("t.pairs"), *detach_undo("t.pairs")])
    await note_changes(session, "s", 1)
    await run(session, ["DELETE FROM t.pairs"])
    assert await undo_above(session, "s", 0) == 0


@pytest.mark.parametrize("name", ["pairs", 't."x"', "t.x; DROP TABLE y", "T.x", "a.b.c", ""])
def test_only_plain_names_are_attached(name: str) -> None:
    with pytest.raises(ConfigurationError):
        attach_undo(name)
