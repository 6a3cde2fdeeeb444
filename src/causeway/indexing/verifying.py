"""Comparing the rows of a source with the chain, row by row, and mending what differs.

Rows that belong to one block each can be compared: those of declared tables and of `by_block`
tables. They are made once more from logs that are proved complete, written beside the real ones,
and the database says which are missing and which are too many. Rows of state (`derived`) depend on
everything before and are not compared; nor are whole blocks, which an app keeps in its own form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import InvalidInput, NotFound
from causeway.chains.evm.chain import EvmChain
from causeway.indexing import checkpoint as checkpoints
from causeway.indexing.events import EventReading, Events
from causeway.indexing.rows import Rows
from causeway.indexing.source import Source
from causeway.store.copy import copy_rows
from causeway.store.engine import Database

#: Blocks compared at once.
_AT_ONCE = 500
_EXPECTED = "causeway_expected"

#: Told how far it is: the block that was reached.
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A block whose rows in a table are not those that the chain gives."""

    table: str
    block: int
    missing: int
    extra: int


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
    chain: EvmChain,
    source: Source,
    first: int,
    last: int,
    *,
    told: Told = lambda _: None,
    repair: bool = False,
) -> list[Difference]:
    """Return the blocks from `first` to `last` whose stored rows are not the chain's.

    With `repair` they are made so, a stretch of final blocks in one transaction; readers wait.
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
    found: list[Difference] = []
    reading = EventReading(chain, source, _AT_ONCE)
    async with database.transaction() as session:
        await reading.prepare(session)
    for begin in range(first, last + 1, _AT_ONCE):
        end = min(begin + _AT_ONCE - 1, last)
        events = await reading.events(begin, end)
        async with database.transaction() as session:
            if repair:
                # Nobody moves the source meanwhile.
                await session.execute(
                    text("SELECT 1 FROM causeway.checkpoints WHERE source = :source FOR UPDATE"),
                    {"source": source.name},
                )
            added = await _added(session, source, events)
            for table, column in source.blocked().items():
                found += await _compare(
                    session, table, column, events, added.get(table, []), (begin, end), repair
                )
        told(end)
    return found


async def _added(
    session: AsyncSession, source: Source, events: Events
) -> dict[Table, list[dict[str, object]]]:
    """Return what the row handlers add for these facts; whatever else they do is undone."""
    rows = _Collected(source.owned)
    begun = await session.begin_nested()
    rows.begin(session)
    for kind, fact in events.facts:
        if kind.row_handler is not None:
            await kind.row_handler(rows, fact)
    taken = rows.taken()
    await begun.rollback()
    return taken


async def _compare(
    session: AsyncSession,
    table: Table,
    column: str,
    events: Events,
    added: Sequence[dict[str, object]],
    blocks: tuple[int, int],
    repair: bool,
) -> list[Difference]:
    whole = f'"{table.schema}"."{table.name}"'
    writers = [(writer, rows) for writer, rows in events.rows if writer.table is table]
    names = writers[0][0].names if writers else list(added[0]) if added else _names(table, column)
    listed = ", ".join(f'"{name}"' for name in names)
    await session.execute(
        text(
            f"CREATE TEMPORARY TABLE {_EXPECTED} ON COMMIT DROP "
            f"AS SELECT {listed} FROM {whole} WITH NO DATA"
        )
    )
    for writer, rows in writers:
        await writer.write(session, rows, into=f"pg_temp.{_EXPECTED}")
    if added:
        columns = [[row[name] for row in added] for name in names]
        await copy_rows(session, table, names, columns, into=f"pg_temp.{_EXPECTED}")
    within = {"first": blocks[0], "last": blocks[1]}
    kept = f'SELECT {listed} FROM {whole} WHERE "{column}" BETWEEN :first AND :last'
    expected = f"SELECT {listed} FROM {_EXPECTED}"
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
                f"INSERT INTO {whole} ({listed}) {expected} "
                f'WHERE "{column}" = ANY(:blocks) ORDER BY "{column}"'
            ),
            bad,
        )
    await session.execute(text(f"DROP TABLE {_EXPECTED}"))
    return found


def _names(table: Table, column: str) -> list[str]:
    """Return the columns to compare where no row is expected: any would do."""
    return [column, *(c.name for c in table.columns if c.name != column and c.primary_key)]
