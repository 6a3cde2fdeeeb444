"""What is copied into a table is what is in the table, for every kind of column and any values."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable

from causeway.base.errors import Bug, InvalidInput
from causeway.store.copy import copy_rows
from causeway.store.engine import Database


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Return signed integers of so many bits, the extremes often."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return st.integers(low, high) | st.sampled_from((low, high, 0, -1))


_NO_NUL = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
TEXTS = st.text(_NO_NUL)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS | st.just("\\u0000"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
_EDGES = (0, 1, 9_999, 10_000, 10**16 - 1, 10**16, 10**35, 2**256 - 1, -1, -(2**255), 10**78 - 1)
TIMES = st.datetimes(
    datetime.fromisoformat("0001-01-02"),
    datetime.fromisoformat("9999-12-30"),
    timezones=st.sampled_from((UTC, timezone.max)),
)
#: By the column's name: its type and what it can hold.
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "small": (SmallInteger, numbers(16)),
    "plain": (Integer, numbers(32)),
    "big": (BigInteger, numbers(64)),
    "amount": (
        Numeric(78, 0),
        st.sampled_from(_EDGES) | st.integers(0, 10**35) | st.integers(-(2**255), 2**256 - 1),
    ),
    "address": (LargeBinary, st.binary(min_size=20, max_size=20)),
    "data": (LargeBinary, st.binary(max_size=40)),
    "yes": (Boolean, st.booleans()),
    "ratio": (Double, st.floats(allow_nan=False)),
    "words": (Text, TEXTS),
    "name": (String, TEXTS),
    "seen": (DateTime(timezone=True), TIMES),
    "id": (Uuid, st.uuids()),
    "extra": (JSONB(none_as_null=True), JSON.filter(lambda value: value is not None)),
    "smalls": (ARRAY(SmallInteger), st.lists(numbers(16), max_size=3)),
    "plains": (ARRAY(Integer), st.lists(numbers(32), max_size=3)),
    "bigs": (ARRAY(BigInteger), st.lists(numbers(64), max_size=3)),
    "texts": (ARRAY(Text), st.lists(TEXTS, max_size=3)),
    "hashes": (ARRAY(LargeBinary), st.lists(st.binary(max_size=8), max_size=3)),
}
#: Those of one width: only such tables are laid out all rows at once.
FIXED = ("small", "plain", "big", "amount", "address", "yes", "ratio", "seen", "id")

Rows = list[tuple[Any, ...]]


def table(kinds: Sequence[str], *, nullable: bool) -> Table:
    """Return a temporary table of these columns, beside the row's place."""
    columns = [Column(name, KINDS[name][0], nullable=nullable) for name in kinds]
    place = Column("place", Integer, primary_key=True)
    return Table("copied", MetaData(), place, *columns, prefixes=["TEMPORARY"])


async def copied(session: AsyncSession, made: Table, kinds: Sequence[str], rows: Rows) -> Rows:
    """Copy rows into the table, made anew, and read them back."""
    await session.execute(text("DROP TABLE IF EXISTS pg_temp.copied"))
    await session.execute(CreateTable(made))
    columns = [range(len(rows)), *zip(*rows, strict=True)]
    names = ["place", *kinds]
    assert await copy_rows(session, made, names, columns, into="pg_temp.copied") == len(rows)
    found = await session.execute(made.select().order_by(made.c.place))
    return [tuple(row)[1:] for row in found]


def rows_of(
    kinds: Sequence[str], *, nullable: bool, most: int
) -> st.SearchStrategy[tuple[tuple[str, ...], Rows]]:
    """Return any of these kinds of columns and rows of them."""
    some = st.lists(st.sampled_from(kinds), min_size=1, max_size=6, unique=True).map(tuple)

    def filled(names: tuple[str, ...]) -> st.SearchStrategy[tuple[tuple[str, ...], Rows]]:
        values = [KINDS[name][1] for name in names]
        if nullable:
            values = [st.none() | one for one in values]
        rows = st.lists(st.tuples(*values), min_size=1, max_size=most)
        return st.tuples(st.just(names), rows)

    return some.flatmap(filled)


ONE_DATABASE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ONE_DATABASE
@given(st.data(), st.booleans())
async def test_rows_are_what_was_copied(
    database: Database, data: st.DataObject, nullable: bool
) -> None:
    kinds, rows = data.draw(rows_of(tuple(KINDS), nullable=nullable, most=24))
    async with database.transaction() as session:
        assert await copied(session, table(kinds, nullable=nullable), kinds, rows) == rows


@ONE_DATABASE
@given(st.data())
async def test_rows_of_one_width_are_what_was_copied(
    database: Database, data: st.DataObject
) -> None:
    kinds, few = data.draw(rows_of(FIXED, nullable=False, most=8))
    rows = few * (16 // len(few) + 1)
    async with database.transaction() as session:
        assert await copied(session, table(kinds, nullable=False), kinds, rows) == rows


async def test_many_rows_go_in_pieces_some_of_one_width_and_some_not(database: Database) -> None:
    kinds = ("big", "data", "amount", "seen")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows: Rows = [
        (at, bytes(20 if at < 9_000 or at % 2 else 21), at**4, start + timedelta(seconds=at // 7))
        for at in range(20_000)
    ]
    async with database.transaction() as session:
        assert await copied(session, table(kinds, nullable=False), kinds, rows) == rows


async def test_numbers_keep_their_bits(database: Database) -> None:
    """Compared as bytes, since no NaN equals itself."""
    values = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324] * 4
    async with database.transaction() as session:
        made = table(["ratio"], nullable=False)
        for few in (values[:5], values):
            found = await copied(session, made, ["ratio"], [(one,) for one in few])
            kept = [struct.pack("!d", value) for (value,) in found]
            assert kept == [struct.pack("!d", one) for one in few]


BAD: list[tuple[str, Any]] = [
    ("small", 2**15),
    ("plain", 2**31),
    ("big", -(2**63) - 1),
    ("big", "5"),
    ("plain", 1.5),
    ("amount", "5"),
    ("amount", 1.5),
    ("amount", Decimal("0.5")),
    ("amount", Decimal("Infinity")),
    ("amount", 10**170),
    ("address", "0x00"),
    ("words", "a\0b"),
    ("words", "\ud800"),
    ("extra", {"a": ["\0"]}),
    ("extra", ["\\\0"]),
    ("seen", datetime(2026, 1, 1)),  # noqa: DTZ001 - a time without a zone is what is refused
    ("id", "not one"),
    ("texts", ["a", None]),
    ("plains", [2**31]),
]


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize(("kind", "bad"), BAD, ids=lambda one: str(one)[:16])
async def test_a_value_its_column_cannot_hold_is_named(
    database: Database, kind: str, bad: Any, count: int
) -> None:
    good: dict[str, Any] = {
        "seen": datetime(2026, 1, 1, tzinfo=UTC),
        "id": uuid.UUID(int=1),
        "address": b"1",
        "words": "",
        "extra": {},
        "texts": [],
        "plains": [],
    }
    fine = good.get(kind, 1)
    rows: Rows = [(fine,)] * (count - 1) + [(bad,)]
    async with database.transaction() as session:
        made = table([kind], nullable=False)
        with pytest.raises(InvalidInput, match=f"column {kind} .* in row {count - 1}"):
            await copied(session, made, [kind], rows)


@ONE_DATABASE
@given(st.text())
@example("\\u0000")
@example("\\\0")
@example("\\\\u0000")
async def test_json_text_is_kept_or_refused_for_its_nul(database: Database, value: str) -> None:
    async with database.transaction() as session:
        made = table(["extra"], nullable=False)
        if "\0" in value:
            with pytest.raises(InvalidInput, match="NUL"):
                await copied(session, made, ["extra"], [([value],)])
        else:
            assert await copied(session, made, ["extra"], [([value],)]) == [([value],)]


@pytest.mark.parametrize("count", [1, 20])
async def test_whole_numbers_read_from_a_table_can_be_written_again(
    database: Database, count: int
) -> None:
    async with database.transaction() as session:
        made = table(["amount"], nullable=False)
        read = await copied(session, made, ["amount"], [(value,) for value in (7, -(10**40))])
        assert all(isinstance(value, Decimal) for (value,) in read)
        assert await copied(session, made, ["amount"], read * count) == read * count


async def test_nothing_is_copied_where_there_are_no_rows(database: Database) -> None:
    async with database.transaction() as session:
        made = table(["big"], nullable=False)
        await session.execute(CreateTable(made))
        assert await copy_rows(session, made, ["place", "big"], [[], []]) == 0
        with pytest.raises(Bug, match="different lengths"):
            await copy_rows(session, made, ["place", "big"], [[1, 2], [3]], into="pg_temp.copied")
