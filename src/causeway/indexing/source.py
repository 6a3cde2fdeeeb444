"""What an app wants to know from a chain, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ConfigurationError
from causeway.chains.evm.abi import Abi
from causeway.chains.protocol import Block, Log, LogFilter


@dataclass(frozen=True, slots=True)
class Fact:
    """One decoded event with its place: chain, block, transaction, log index."""

    chain_id: int
    #: The event's name in the contract (`BatchMinted`).
    event: str
    #: Its arguments by name: integers, bytes, text, booleans, checksummed addresses, tuples.
    args: Mapping[str, Any]
    log: Log
    #: Its block. Below finality `parent_hash` may be empty: nobody needs it there.
    block: Block


@dataclass(frozen=True, slots=True)
class Undone:
    """What a reorg took back: blocks `first` to `last`, and how many row changes."""

    source: str
    first: int
    last: int
    rows: int


#: Turns a fact into rows, in the transaction that moves the checkpoint. Only the database is
#: talked to. What it writes to tables with undo triggers is undone by the kernel when its block is.
Handler = Callable[[AsyncSession, Fact], Awaitable[None]]

#: Called in the transaction of an undo, after the rows are as they were: to note what undone rows
#: have caused already, never to undo rows.
OnUndone = Callable[[AsyncSession, Undone], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Contracts and events of one chain, and a handler for each event."""

    #: Its checkpoint's name; one for each app and contract set, for ever.
    name: str
    #: The name of the configured chain.
    chain: str
    abi: Abi
    #: Contracts; none: the events of any contract.
    addresses: tuple[str, ...]
    #: The first block that can hold a fact.
    start_block: int
    #: Event name (or signature, where overloaded) to handler; other events are not asked for.
    handlers: Mapping[str, Handler]
    #: Tables its handlers write, which have undo triggers (`causeway.indexing.undo.attach_undo`).
    derived: tuple[Table, ...] = ()
    on_undone: OnUndone | None = None
    #: What else the app wants to find on its source.
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.name or not self.handlers or self.start_block < 0:
            raise ConfigurationError(
                f"source {self.name!r} needs a name, a handler and a start block of 0 or more"
            )

    def handlers_by_topic(self) -> dict[str, Handler]:
        """Return the handlers by the first topic of their event's logs."""
        return {self.abi.event(name).topic0: handler for name, handler in self.handlers.items()}

    def filter(self) -> LogFilter:
        """Return which logs to ask the chain for."""
        addresses = tuple(address.lower() for address in self.addresses)
        return LogFilter(addresses, tuple(sorted(self.handlers_by_topic())))


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
