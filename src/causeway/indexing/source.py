"""What an app wants to know from a chain, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ConfigurationError
from causeway.chains.logs import ContractAbi, WireLog
from causeway.chains.protocol import Block, Log, LogFilter

if TYPE_CHECKING:
    from causeway.chains.evm.blocks import FullBlock
    from causeway.indexing.outbox import Outbox
    from causeway.indexing.rows import Rows


class Fact(msgspec.Struct, gc=False, eq=False):
    """One decoded event with its place: chain, block, transaction, log index.

    Made a million times in a backfill: a struct that the collector need not look at.
    """

    chain_id: int
    #: The event's name in the contract (`BatchMinted`).
    event: str
    #: Its arguments by name: integers, bytes, text, booleans, checksummed addresses, tuples.
    args: Mapping[str, Any]
    #: The log as it came; `log` has it in our form.
    raw: Log | WireLog
    #: Its block. Below finality `parent_hash` may be empty: nobody needs it there.
    block: Block

    @property
    def log(self) -> Log:
        """The log itself; made on the first look, since most handlers never look."""
        if not isinstance(self.raw, Log):
            self.raw = self.raw.log()
        return self.raw

    @property
    def log_index(self) -> int:
        """The place of the log in its block."""
        log = self.raw
        return log.log_index if isinstance(log, Log) else int(log.log_index, 16)

    @property
    def transaction_hash(self) -> str:
        """The transaction it happened in, lower-case hex with 0x."""
        return self.raw.transaction_hash

    @property
    def address(self) -> str:
        """The contract that told of it, lower-case hex with 0x."""
        return self.raw.address

    def __repr__(self) -> str:
        return f"Fact({self.event} at block {self.block.number}, log {self.log_index})"


@dataclass(frozen=True, slots=True)
class Undone:
    """What a reorg took back: blocks `first` to `last`, and how many row changes."""

    source: str
    first: int
    last: int
    rows: int
    #: The newest applied block that stays.
    fork: Block
    #: The newest applied block before.
    old_head: Block


#: Turns a fact into rows, in the transaction that moves the checkpoint. Only the database is
#: talked to. What it writes to tables with undo triggers is undone by the kernel when its block is.
Handler = Callable[[AsyncSession, Fact], Awaitable[None]]

#: The fast kind: what it adds to `rows` is written with the other rows of its stretch of blocks,
#: by COPY. Rows it has put can be read again through `rows` only.
RowHandler = Callable[["Rows", Fact], Awaitable[None]]

#: Called in the transaction of an undo, after the rows are as they were: to note what undone rows
#: have caused already, never to undo rows (of a `BlockSource`: to delete the rows of the blocks).
OnUndone = Callable[[AsyncSession, Undone], Awaitable[None]]

#: Turns consecutive whole blocks into rows, in the transaction that moves the checkpoint.
BlockHandler = Callable[[AsyncSession, Sequence["FullBlock"]], Awaitable[None]]


#: What a column of an event table can hold besides an argument of the event.
Place = Literal[
    "@chain_id",
    "@block_number",
    "@block_hash",
    "@block_time",
    "@transaction_hash",
    "@transaction_index",
    "@log_index",
    "@address",
]


@dataclass(frozen=True)
class EventTable:
    """A table with one row for each fact of an event: declared, no Python per row.

        EventTable(transfers, {"block_number": "@block_number", "log_index": "@log_index",
                               "sender": "from", "receiver": "to", "amount": "value"})

    `columns` names for each column an argument of the event or a `Place`. The column's type
    decides the form: addresses, hashes and `bytesN` are bytes in a `LargeBinary` column and text
    (lower-case hex) in a `Text` one; integers fit `Integer`, `BigInteger` and `Numeric`;
    `@block_time` is a `DateTime(timezone=True)` or Unix seconds in an integer column. One column
    must be `@block_number`: a reorg deletes by it, so have it lead an index.
    """

    table: Table
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in self.table.c]
        if unknown:
            raise ConfigurationError(f"table {self.table} has no column {', '.join(unknown)}")
        if "@block_number" not in self.columns.values():
            raise ConfigurationError(f"table {self.table} needs a column for @block_number")

    @property
    def block_column(self) -> str:
        """The column that holds the block's number."""
        return next(c for c, place in self.columns.items() if place == "@block_number")


@dataclass(frozen=True)
class Factory:
    """Contracts that other contracts make: their addresses are read from an event.

    The events of the source itself are then asked for at the addresses found so far (and at the
    factory's own, where the ABI has events of its handlers there).
    """

    #: The contracts that make others.
    addresses: tuple[str, ...]
    #: Name or signature, in the source's ABI, of the event that tells of a new one.
    event: str
    #: The argument of that event that is the new contract's address.
    argument: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Contracts and events of one chain, and what becomes of each event."""

    #: Its checkpoint's name; one for each app and contract set, for ever.
    name: str
    #: The name of the configured chain.
    chain: str
    abi: ContractAbi
    #: Contracts; none: the events of any contract, or with `factory` of the contracts it made.
    addresses: tuple[str, ...]
    #: The first block that can hold a fact.
    start_block: int
    #: Event name (or signature, where overloaded) to handler; other events are not asked for.
    handlers: Mapping[str, Handler] = field(default_factory=dict[str, Handler])
    #: Event name to handler of the fast kind.
    row_handlers: Mapping[str, RowHandler] = field(default_factory=dict[str, RowHandler])
    #: Event name to the table that its facts fill.
    tables: Mapping[str, EventTable] = field(default_factory=dict[str, EventTable])
    #: Tables that row handlers only add to, with the column that holds the block's number: a
    #: reorg deletes by it, and no undo triggers are needed.
    by_block: Mapping[Table, str] = field(default_factory=dict[Table, str])
    #: Tables its handlers write, which have undo triggers (`causeway.indexing.undo.attach_undo`).
    derived: tuple[Table, ...] = ()
    #: Of `derived`, those that nobody else writes: `Rows.get` may remember their rows.
    owned: tuple[Table, ...] = ()
    factory: Factory | None = None
    #: What becomes of the effects that handlers file (`causeway.indexing.outbox.file`).
    outbox: Outbox | None = None
    on_undone: OnUndone | None = None
    #: What else the app wants to find on its source.
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.name or not self.events() or self.start_block < 0:
            raise ConfigurationError(
                f"source {self.name!r} needs a name, a handler or a table, and a start block "
                "of 0 or more"
            )
        twice = [
            name for name in self.row_handlers if name in self.handlers or name in self.tables
        ] + [name for name in self.tables if name in self.handlers]
        if twice:
            raise ConfigurationError(
                f"source {self.name!r}: {', '.join(twice)} has more than one handler or table"
            )
        anonymous = [name for name in self.events() if self.abi.event(name).anonymous]
        if anonymous and not self.addresses:
            raise ConfigurationError(
                f"source {self.name!r}: {', '.join(anonymous)} is anonymous and can only be told "
                "by its contract; name its addresses"
            )
        for name, table in self.tables.items():
            known = {one.name for one in self.abi.event(name).inputs}
            wrong = [a for a in table.columns.values() if a[:1] != "@" and a not in known]
            if wrong:
                raise ConfigurationError(
                    f"source {self.name!r}: event {name} has no argument {', '.join(wrong)}"
                )

    def events(self) -> tuple[str, ...]:
        """Return the names of the events that are wanted."""
        return (*self.handlers, *self.row_handlers, *self.tables)

    def blocked(self) -> dict[Table, str]:
        """Return the tables that are undone by deleting, with their column of block numbers."""
        found = dict(self.by_block)
        for one in self.tables.values():
            found[one.table] = one.block_column
        return found

    def filter(self) -> LogFilter:
        """Return which logs to ask the chain for."""
        addresses = tuple(self.abi.address(address) for address in self.addresses)
        events = [self.abi.event(name) for name in self.events()]
        if any(event.anonymous for event in events):
            return LogFilter(addresses, ())  # nothing in their topics tells them apart
        return LogFilter(addresses, tuple(sorted({event.topic0 for event in events})))


@dataclass(frozen=True, kw_only=True)
class BlockSource:
    """Whole blocks of one chain: headers with transactions, receipts and, if asked for, traces."""

    #: Its checkpoint's name, for ever.
    name: str
    #: The name of the configured chain.
    chain: str
    start_block: int
    #: Called with consecutive blocks in chain order.
    apply: BlockHandler
    #: Deletes what `apply` wrote for the blocks that are gone.
    on_undone: OnUndone
    #: Begin so many blocks below the newest instead, as it is when the source is first read.
    behind_head: int | None = None
    #: Whether `FullBlock.traces` is wanted (`debug_traceBlockByHash` with the call tracer).
    traces: bool = False
    #: Blocks applied in one transaction; fewer of large ones, up to four times as many of small.
    batch: int = 10
    #: Tables with undo triggers that `apply` writes.
    derived: tuple[Table, ...] = ()
    outbox: Outbox | None = None
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.name or self.start_block < 0 or self.batch < 1:
            raise ConfigurationError(
                f"source {self.name!r} needs a name, a start block of 0 or more and a batch of "
                "1 or more"
            )


AnySource = Source | BlockSource


class CodeReader(Protocol):
    """A chain that tells the code at an address."""

    async def head(self) -> Block:
        """Return the newest block."""
        ...

    async def code(self, address: str, at: int | str = "latest") -> bytes:
        """Return the code at an address as of a block."""
        ...


async def find_deployment_block(chain: CodeReader, address: str) -> int | None:
    """Return the block in which a contract got its code, None when it has none at the head.

    About 25 questions (a binary search); the provider must have old state, and a contract that
    was destroyed and made again gives one of its beginnings.
    """
    low, high = 0, (await chain.head()).number
    if not await chain.code(address, high):
        return None
    while low < high:
        middle = (low + high) // 2
        if await chain.code(address, middle):
            high = middle
        else:
            low = middle + 1
    return low
