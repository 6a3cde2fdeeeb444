"""Reading the events of contracts, and writing what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ChainBehind
from causeway.chains.errors import UndecodableLog
from causeway.chains.logs import EventKind, LogChain, LogRange, WireLog
from causeway.chains.protocol import Block
from causeway.indexing import undo
from causeway.indexing.ahead import ReadAhead
from causeway.indexing.factories import Family
from causeway.indexing.reading import ChainMoved, Stretch, follows
from causeway.indexing.rows import Rows
from causeway.indexing.source import Fact, Handler, RowHandler, Source
from causeway.indexing.span import Span
from causeway.indexing.tables import Encoded, TableWriter

_log = structlog.get_logger(__name__)

#: With a header for each block more would not go into one JSON-RPC batch of a hundred calls: it
#: would be asked in two requests, one after the other, where two ranges are asked at once.
_WITH_HEADERS = 99
#: The first range asked for; answers make it larger.
_FIRST_SPAN = 99


class Kind:
    """One wanted event: how it is decoded and what becomes of it."""

    def __init__(self, chain: LogChain, source: Source, name: str) -> None:
        self.abi: EventKind = source.abi.event(name)
        self.decoder = chain.decoder(self.abi)
        self.topics = sum(one.indexed for one in self.abi.inputs)
        self.handler: Handler | None = source.handlers.get(name)
        self.row_handler: RowHandler | None = source.row_handlers.get(name)
        table = source.tables.get(name)
        self.writer = None if table is None else TableWriter(table, self.decoder)


@dataclass(slots=True)
class Events:
    """The events of a stretch: facts for handlers, in chain order, and columns for tables."""

    #: In chain order; those of one event that follow one another are together.
    facts: list[tuple[Kind, list[Fact]]] = field(default_factory=list["tuple[Kind, list[Fact]]"])
    #: For each table the rows to write.
    rows: list[tuple[TableWriter, Encoded]] = field(
        default_factory=list[tuple[TableWriter, Encoded]]
    )
    #: Contracts that factories made.
    children: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    #: How many facts that is, by name.
    counts: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Read:
    """A range that was read and, where that needs nothing else, what its logs mean."""

    found: LogRange
    #: Worked out while earlier ranges are being written; None: not yet.
    events: Events | None = None


class EventReading:
    """Implements `causeway.indexing.reading.Reading` for a `Source`."""

    def __init__(
        self, chain: LogChain, source: Source, max_range: int, *, every_header: bool = True
    ) -> None:
        self._chain = chain
        self._source = source
        self._every_header = every_header
        kinds = [Kind(chain, source, name) for name in source.events()]
        self._kinds = {kind.abi.topic0: kind for kind in kinds if not kind.abi.anonymous}
        #: Anonymous events, by how many topics their logs have.
        self._anonymous = {kind.topics: kind for kind in kinds if kind.abi.anonymous}
        self._wanted = source.filter()
        self._addresses = frozenset(self._wanted.addresses)
        self._family = None if source.factory is None else Family(chain, source)
        self._derived = frozenset(source.derived)
        self._rows = Rows(source.owned)
        self._ahead = ReadAhead[Read](
            self._range,
            lambda read: sum(map(len, read.found.logs.values())),
            Span(min(max_range, _WITH_HEADERS) if every_header else max_range, _FIRST_SPAN),
            1,
        )

    def read_ahead(self, ranges: int) -> None:
        """Read so many ranges at once; one at a time where earlier blocks say what to ask for."""
        self._ahead.at_once = 1 if self._family is not None else ranges

    async def rest(self, *, forget: bool = False) -> None:
        """Stop reading ahead; with `forget` nothing that was remembered is believed any more."""
        await self._ahead.drop()
        if forget:
            self._rows.forget()
            if self._family is not None:
                self._family.forget()

    async def prepare(self, session: AsyncSession) -> None:
        """Read which contracts factories have made."""
        if self._family is not None:
            await self._family.load(session)

    async def final(self, after: Block, up_to: int) -> Stretch[Events]:
        """Read blocks above `after` up to `up_to` or fewer, all of them final."""
        read = await self._ahead.next(after.number + 1, up_to)
        found, events = read.found, read.events
        last = found.headers[max(found.headers)]
        if self._every_header:
            follows(after, list(found.headers.values()))
        if events is None:
            events = self._events(found, await self._blocks(found))
        return Stretch(last, (last,), events, events.counts, replaceable=False)

    async def tip(self, after: Block, head: Block) -> Stretch[Events]:
        """Read blocks above `after` up to the head or fewer; they may still be replaced.

        Raises `ChainMoved` when they do not follow from it.
        """
        events: Events | None = None
        if head.number == after.number + 1:
            follows(after, [head])
            await self._ahead.drop()
            found = await self._one(head)
        else:
            read = await self._ahead.next(after.number + 1, head.number)
            found, events = read.found, read.events
            if not found.proved:  # read ahead as final, and the finality was taken back
                await self._ahead.drop()
                found = await self._whole(after.number + 1, max(found.headers))
                events = None
        headers = list(found.headers.values())
        follows(after, headers)
        if headers[-1].number == head.number and headers[-1].hash != head.hash:
            await self._ahead.drop()
        if events is None:
            events = self._events(found, found.headers)
        return Stretch(headers[-1], tuple(headers), events, events.counts, replaceable=True)

    async def events(self, first: int, last: int, *, last_hash: str | None = None) -> Events:
        """Return what happened in these blocks, proved complete; to compare, not to apply.

        Raises `ChainBehind` when no endpoint has block `last` under `last_hash`.
        """
        if self._family is not None:
            found = await self._family.read(
                self._chain, self._wanted, first, last, last_hash=last_hash
            )
        else:
            found = await self._chain.read_range([self._wanted], first, last, last_hash=last_hash)
        return self._events(found, found.headers)

    async def apply(self, session: AsyncSession, stretch: Stretch[Events]) -> None:
        """Write what the stretch holds, in the transaction that moves the checkpoint."""
        events = stretch.content
        name = self._source.name
        rows = self._rows
        rows.begin(session)
        noting = stretch.replaceable and bool(self._derived)
        noted: int | None = None
        if self._family is not None:
            await self._family.keep(session, events.children)
        for kind, facts in events.facts:
            handler, row_handler = kind.handler, kind.row_handler
            for fact in facts:
                if noting and fact.block.number != noted:
                    if rows.touches(self._derived):
                        await rows.flush()
                    noted = fact.block.number
                    await undo.note_changes(session, name, noted)
                if row_handler is not None:
                    await row_handler(rows, fact)
                elif handler is not None:
                    if rows.touches(self._derived):
                        await rows.flush()
                    await handler(session, fact)
        await rows.flush()
        if noted is not None:
            await undo.note_changes(session, name, None)
        for writer, written in events.rows:
            await writer.write(session, written)
        rows.end()

    async def undo(self, session: AsyncSession, above: int) -> int:
        """Delete what blocks above this one added to tables without triggers; return the rows."""
        self._rows.forget()
        if self._family is not None:
            await self._family.undo(session, above)
        return await delete_above(session, self._source.blocked(), above)

    async def _range(self, first: int, last: int) -> Read:
        wanted = [self._wanted]
        if self._family is not None:
            # What its logs mean depends on the contracts that earlier ranges made.
            return Read(await self._family.read(self._chain, self._wanted, first, last))
        found = await self._chain.read_range(wanted, first, last, every_header=self._every_header)
        if not found.proved:
            return Read(found)
        await asyncio.sleep(0)  # who writes the range before has a turn
        return Read(found, self._events(found, found.headers))

    async def _whole(self, first: int, last: int) -> LogRange:
        return await self._chain.read_range([self._wanted], first, last)

    async def _one(self, block: Block) -> LogRange:
        if self._family is not None:
            return await self._family.read(self._chain, self._wanted, block.number, block.number)
        return await self._chain.read_block([self._wanted], block)

    async def _blocks(self, found: LogRange) -> Mapping[int, Block]:
        """Return the blocks of these logs, asking only for those whose time is not known."""
        missing = [number for number in found.logs if number not in found.headers]
        if not missing:
            return found.headers
        headers = dict(found.headers)
        unknown: list[int] = []
        for number in missing:
            log = found.logs[number][0]
            if log.block_timestamp is None:
                unknown.append(number)
            else:
                headers[number] = log.block()
        for number, block in zip(unknown, await self._chain.look(*unknown), strict=True):
            if block is None:
                raise ChainBehind(f"block {number} has logs but is not there")
            if block.hash != found.logs[number][0].block_hash:
                raise ChainMoved(f"a log of block {number} is of another block")
            headers[number] = block
        return headers

    def _events(self, found: LogRange, headers: Mapping[int, Block]) -> Events:
        """Decode the logs: facts for handlers, encoded rows for tables."""
        events = Events()
        counts = events.counts
        grouped: dict[Kind, tuple[list[WireLog], list[Block]]] = {}
        kinds, anonymous, addresses = self._kinds, self._anonymous, self._addresses
        if self._family is not None:
            events.children = self._family.children(found.logs)
            addresses = self._family.wanted_addresses()
        for number, wires in found.logs.items():
            block = headers[number]
            #: Logs of one event that follow one another, for handlers.
            runs: list[tuple[Kind, list[WireLog]]] = []
            last: Kind | None = None
            run: list[WireLog] = []
            for wire in wires:
                topics = wire.topics
                kind = kinds.get(topics[0]) if topics else None
                if kind is None and anonymous:
                    kind = anonymous.get(len(topics))
                if kind is None or (addresses and wire.address not in addresses):
                    continue  # a provider that ignores the filter, or another filter's log
                if kind.writer is not None:
                    group = grouped.get(kind)
                    if group is None:
                        group = grouped[kind] = ([], [])
                    group[0].append(wire)
                    group[1].append(block)
                    continue
                if kind is not last:
                    last, run = kind, []
                    runs.append((kind, run))
                run.append(wire)
            # Block by block, while its logs are in the processor's cache.
            for kind, run in runs:
                facts = self._facts(kind, run, block)
                events.facts.append((kind, facts))
                counts[kind.abi.name] = counts.get(kind.abi.name, 0) + len(facts)
        for kind, (wires, of_blocks) in grouped.items():
            if kind.writer is not None:
                rows, count = kind.writer.rows(
                    self._chain.chain_id, wires, of_blocks, strict=bool(addresses)
                )
                events.rows.append((kind.writer, rows))
                counts[kind.abi.name] = counts.get(kind.abi.name, 0) + count
        return events

    def _facts(self, kind: Kind, wires: list[WireLog], block: Block) -> list[Fact]:
        """Return the facts in logs of one event and one block."""
        decoded = kind.decoder.arguments_of(wires)
        if decoded is None:
            found = [self._fact(kind, wire, block) for wire in wires]
            return [fact for fact in found if fact is not None]
        chain_id, name = self._chain.chain_id, kind.abi.name
        return [
            Fact(chain_id, name, args, wire, block)
            for args, wire in zip(decoded, wires, strict=True)
        ]

    def _fact(self, kind: Kind, wire: WireLog, block: Block) -> Fact | None:
        try:
            args = kind.decoder.arguments(wire.topics, wire.data)
        except UndecodableLog as error:
            if self._addresses:
                raise  # our own contracts do not lie: the ABI is wrong, and no fact is skipped
            _log.debug("a log of another shape is skipped", error=str(error), address=wire.address)
            return None
        return Fact(self._chain.chain_id, kind.abi.name, args, wire, block)


async def delete_above(session: AsyncSession, tables: Mapping[Table, str], above: int) -> int:
    """Delete the rows of blocks above this one; `tables` names each one's column of the number."""
    rows = 0
    for table, column in tables.items():
        done = await session.execute(
            text(f'DELETE FROM "{table.schema}"."{table.name}" WHERE "{column}" > :above'),
            {"above": above},
        )
        rows += int(getattr(done, "rowcount", 0))
    return rows
