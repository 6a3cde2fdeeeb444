"""What the rest of the house may ask of a chain, whatever family it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

#: How settled a block must be: a tag, or a number of blocks on top of it (0 = `latest`).
Finality = Literal["latest", "safe", "finalized"] | int


@dataclass(frozen=True, slots=True)
class Block:
    """A block's place: number, hash, parent's hash (lower-case hex with 0x) and time."""

    number: int
    hash: str
    parent_hash: str
    timestamp: datetime
    #: EVM: which logs it can have (yellow paper, M3:2048); None where that is not known.
    logs_bloom: int | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Log:
    """One event log as the chain gives it, undecoded. Hex is lower case with 0x."""

    address: str
    topics: tuple[str, ...]
    data: bytes
    block_number: int
    block_hash: str
    transaction_hash: str
    transaction_index: int
    log_index: int
    #: The block's time, where the provider sends it with the log; saves asking for the header.
    block_timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs: any of these addresses, any of these first topics (event signatures)."""

    addresses: tuple[str, ...]
    topics: tuple[str, ...]


class Chain(Protocol):
    """A configured network, read through its provider pool.

    Every method raises `TransientError` (or a subclass) when no provider could answer.
    """

    @property
    def name(self) -> str:
        """The name it is configured under (`base-mainnet`)."""
        ...

    @property
    def chain_id(self) -> int:
        """The chain id it must have."""
        ...

    async def verify(self) -> None:
        """Check that the providers serve this chain; `ConfigurationError` when they do not."""
        ...

    async def head(self) -> Block:
        """Return the newest block."""
        ...

    async def block(self, at: int | str | Finality) -> Block | None:
        """Return the block with that number, hash or finality tag; None when there is none."""
        ...

    async def look(self, *places: int | str) -> list[Block | None]:
        """Return the blocks at these numbers, hashes or tags, all seen by one endpoint at once.

        None where there is no such block, or the tag is not offered.
        """
        ...

    async def blocks(self, first: int, last: int) -> list[Block]:
        """Return blocks `first` to `last`, both included; `ChainBehind` if any is missing."""
        ...

    async def logs(
        self, wanted: LogFilter, first: int, last: int, *, last_hash: str | None = None
    ) -> list[Log]:
        """Return the logs of blocks `first` to `last` in chain order, all from one endpoint.

        With `last_hash` the endpoint must have block `last` under that hash, otherwise another is
        asked; without it, it must have a block `last`. Raises `ChainBehind` when none has, and
        `RangeTooLarge` when the provider refuses the range or the size of the answer.
        """
        ...

    async def logs_of(self, wanted: LogFilter, block_hashes: Sequence[str]) -> list[Log]:
        """Return the logs of the blocks with these hashes, in that order; all from one endpoint.

        Raises `ChainBehind` when one of them is not known.
        """
        ...
