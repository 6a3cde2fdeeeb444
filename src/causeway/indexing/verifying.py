"""Comparing the rows of a source with the chain, row by row, and mending what differs.

Rows that belong to one block each can be compared: those of declared tables and of `by_block`
tables. They are made once more from logs that are proved complete, written beside the real ones,
and the database says which are missing and which are too many. Rows of state (`derived`) depend on
everything before and are not compared; nor are whole blocks, which an app keeps in its own form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ChainBehind, InvalidInput, NotFound
from causeway.chains.logs import LogChain
from causeway.indexing import checkpoint as checkpoints
from causeway.indexing.events import EventReading, Events
from causeway.indexing.rows import Rows
from causeway.indexing.source import Source
from causeway.store.copy import copy_rows
from causeway.store.engine import Database

#: Blocks compared at once.
_AT_ONCE = 500
_EXPECTED = "causeway_expected"
#: How often a stretch that may be replaced is read again when it moves meanwhile.
_ATTEMPTS = 10
#: A default that is another value each time (`now()`, `nextval(...)`); what is put into such a
#: column by the database says nothing about the chain.
_CHANGING = re.compile(r"\(|^current_|^local", re.IGNORECASE)

#: Told how far it is: the block that was reached.
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A block whose rows in a table are not those that the chain gives."""

    table: str
    block: int
    missing: int
    extra: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, and how far there was anything to compare with."""

    differences: list[Difference]
    #: The newest block that was compared.
    compared_to: int
    #: Why those above it, which are not final, were not: nobody who was asked has them.
    left_out: str | None = None


class _Collected(Rows):
    """Keeps what row handlers add, and writes nothing."""

    async def flush(self) -> None:
        """Write nothing: what was added is taken from here."""
        self._put.clear()

    def taken(self) -> dict[Table, list[dict[str, object]]]:
        """Return what was added, by table."""
        return {table: list(rows) for table, rows in self._added.items()}


async def verify(
    database: Database,
    chain: LogChain,
    source: Source,
    first: int,
    last: int,
    *,
    told: Told = lambda _: None,
    repair: bool = False,
) -> Comparison:
    """Compare the rows of blocks `first` to `last` with the chain.

    Blocks that can still be replaced are compared with the very blocks that were applied, by their
    hashes: of a provider that has others there, nothing is said about the rows. With `repair` the
    rows of final blocks are made the chain's, a stretch of them in one transaction; readers wait.
    Raises `NotFound` for a source that has not begun, `InvalidInput` for a range it has not
    applied (or that is not final, with `repair`) or when it has no rows that can be compared, and
    what reading the chain raises.
    """
    if not source.blocked():
        raise InvalidInput(f"source {source.name!r} has no rows that belong to one block each")
    async with database.transaction() as session:
        here = await checkpoints.load(session, source.name)
    if here is None:
        raise NotFound(f"source {source.name!r} has not begun")
    if not source.start_block <= first <= last <= here.number:
        raise InvalidInput(
            f"blocks {first} to {last} are not applied; "
            f"{source.start_block} to {here.number} can be compared"
        )
    if repair and last > here.final_number:
        # Between reading the chain and writing, or at another provider, they may be other blocks.
        raise InvalidInput(
            f"only final blocks can be mended, up to {here.final_number}; what is above them is "
            "mended by the chain's next reorganisation or when it is final"
        )
    one = _Verifying(database, source, EventReading(chain, source, _AT_ONCE), repair)
    async with database.transaction() as session:
        await one.reading.prepare(session)
    begin = first
    while begin <= last:
        end = min(begin + _AT_ONCE - 1, last)
        if begin <= here.final_number:
            end = min(end, here.final_number)
            await one.compare(begin, end, None)
        else:
            found = await one.compare_replaceable(begin, end)
            if isinstance(found, str):
                return Comparison(one.found, begin - 1, found)
            if found < end:  # a reorganisation made the chain shorter, and that is all there is
                return Comparison(one.found, found)
        told(end)
        begin = end + 1
    return Comparison(one.found, last)


class _Verifying:
    """One comparison on its way."""

    def __init__(
        self, database: Database, source: Source, reading: EventReading, repair: bool
    ) -> None:
        self.database = database
        self.source = source
        self.reading = reading
        self.repair = repair
        self.found: list[Difference] = []

    async def compare_replaceable(self, begin: int, end: int) -> int | str:
        """Compare blocks as they were applied; return up to which, or why none could be."""
        why = ""
        for _ in range(_ATTEMPTS):
            async with self.database.transaction() as session:
                applied = await self._applied(session, end)
            if applied is None:
                return begin - 1
            last, block_hash = applied
            if last < begin:
                return begin - 1
            try:
                if await self.compare(begin, last, block_hash):
                    return last
            except ChainBehind as error:
                why = error.message
        return why or "the source is being moved"

    async def _applied(self, session: AsyncSession, end: int) -> tuple[int, str | None] | None:
        """Return the newest applied block up to `end`; its hash while it can be replaced."""
        here = await checkpoints.load(session, self.source.name)
        if here is None:
            return None
        last = min(end, here.number)
        kept = await checkpoints.kept_blocks(session, self.source.name)
        return last, next((block.hash for block in kept if block.number == last), None)

    async def compare(self, begin: int, end: int, block_hash: str | None) -> bool:
        """Compare blocks; with `block_hash` the last is that one, or this says False."""
        source = self.source
        events = await self.reading.events(begin, end, last_hash=block_hash)
        async with self.database.transaction() as session:
            if self.repair:
                # Nobody moves the source meanwhile.
                await session.execute(
                    text("SELECT 1 FROM causeway.checkpoints WHERE source = :source FOR UPDATE"),
                    {"source": source.name},
                )
            elif block_hash is not None:
                # Which block was applied, and its rows, as of one moment.
                await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                if await self._applied(session, end) != (end, block_hash):
                    return False
            added = await _added(session, source, events)
            for table, column in source.blocked().items():
                self.found += await _compare(
                    session,
                    source,
                    table,
                    column,
                    events,
                    added.get(table, []),
                    (begin, end),
                    self.repair,
                )
        return True


async def _added(
    session: AsyncSession, source: Source, events: Events
) -> dict[Table, list[dict[str, object]]]:
    """Return what the row handlers add for these facts; whatever else they do is undone."""
    rows = _Collected(source.owned)
    begun = await session.begin_nested()
    rows.begin(session)
    for kind, facts in events.facts:
        if kind.row_handler is not None:
            for fact in facts:
                await kind.row_handler(rows, fact)
    taken = rows.taken()
    await begun.rollback()
    return taken


async def _compare(
    session: AsyncSession,
    source: Source,
    table: Table,
    column: str,
    events: Events,
    added: Sequence[dict[str, object]],
    blocks: tuple[int, int],
    repair: bool,
) -> list[Difference]:
    whole = f'"{table.schema}"."{table.name}"'
    filled = [list(one.columns) for one in source.tables.values() if one.table is table]
    filled += [list(added[0])] if added else []
    names = list(dict.fromkeys(name for some in filled or [_names(table, column)] for name in some))
    listed = ", ".join(f'"{name}"' for name in names)
    await session.execute(
        text(
            f"CREATE TEMPORARY TABLE {_EXPECTED} ON COMMIT DROP "
            f"AS SELECT {listed} FROM {whole} WITH NO DATA"
        )
    )
    partly = [name for name in names if any(name not in some for some in filled)]
    changing = await _defaults(session, table, partly)
    told = [name for name in names if name not in changing]
    for writer, rows in events.rows:
        if writer.table is table:
            await writer.write(session, rows, into=f"pg_temp.{_EXPECTED}")
    if added:
        columns = [[row[name] for row in added] for name in added[0]]
        await copy_rows(session, table, list(added[0]), columns, into=f"pg_temp.{_EXPECTED}")
    within = {"first": blocks[0], "last": blocks[1]}
    shown = ", ".join(f'"{name}"' for name in told)
    kept = f'SELECT {shown} FROM {whole} WHERE "{column}" BETWEEN :first AND :last'
    expected = f"SELECT {shown} FROM {_EXPECTED}"
    counted = await session.execute(
        text(
            f'SELECT "{column}", sum(missing)::int, sum(extra)::int FROM ('
            f'SELECT "{column}", 1 AS missing, 0 AS extra FROM ({expected} EXCEPT ALL {kept}) m '
            f'UNION ALL SELECT "{column}", 0, 1 FROM ({kept} EXCEPT ALL {expected}) e'
            f') d GROUP BY "{column}" ORDER BY "{column}"'
        ),
        within,
    )
    found = [Difference(f"{table.schema}.{table.name}", *row) for row in counted]
    if repair and found:
        bad = {"blocks": [one.block for one in found]}
        await session.execute(text(f'DELETE FROM {whole} WHERE "{column}" = ANY(:blocks)'), bad)
        await session.execute(
            text(
                f"INSERT INTO {whole} ({listed}) SELECT {listed} FROM {_EXPECTED} "
                f'WHERE "{column}" = ANY(:blocks) ORDER BY "{column}"'
            ),
            bad,
        )
    await session.execute(text(f"DROP TABLE {_EXPECTED}"))
    return found


async def _defaults(session: AsyncSession, table: Table, names: Sequence[str]) -> list[str]:
    """Give columns that not everybody fills their defaults; return those that cannot be compared.

    A table can be filled by several events, each with columns of its own.
    """
    if not names:
        return []
    found = await session.execute(
        text(
            "SELECT column_name, column_default FROM information_schema.columns "
            "WHERE table_schema = :schema AND table_name = :name AND column_name = ANY(:names) "
            "AND column_default IS NOT NULL"
        ),
        {"schema": table.schema, "name": table.name, "names": list(names)},
    )
    changing: list[str] = []
    for name, default in found:
        await session.execute(
            text(
                f'ALTER TABLE pg_temp.{_EXPECTED} ALTER COLUMN "{name}" SET DEFAULT '
                + default.replace(":", "\\:")
            )
        )
        if _CHANGING.search(default):
            changing.append(name)
    return changing


def _names(table: Table, column: str) -> list[str]:
    """Return the columns to compare where no row is expected: any would do."""
    return [column, *(c.name for c in table.columns if c.name != column and c.primary_key)]
