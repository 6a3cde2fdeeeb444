"""What indexing asks of the logs of any family of chains, and of the contracts that tell them.

A family has an ABI whose events name their arguments, logs in a wire form of its own (text, which
nobody looks at but its decoder), and a chain that reads ranges of them and knows the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from causeway.chains.protocol import Block, Chain, Log, LogFilter

#: 32 bytes for each log.
Words = npt.NDArray[np.uint8]


class WireLog(Protocol):
    """A log as providers write it. Numbers are `0x` hex, places are as they are compared."""

    @property
    def address(self) -> str:
        """The contract, in the form of `ContractAbi.address`."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """What tells the event, and its indexed arguments."""
        ...

    @property
    def data(self) -> Any:
        """The other arguments, for the family's decoder."""
        ...

    @property
    def block_hash(self) -> str:
        """Its block."""
        ...

    @property
    def transaction_hash(self) -> str:
        """Its transaction."""
        ...

    @property
    def transaction_index(self) -> str:
        """The place of the transaction in the block."""
        ...

    @property
    def log_index(self) -> str:
        """The place of the log in the block; larger is later."""
        ...

    @property
    def block_timestamp(self) -> str | None:
        """The block's time, where it is told."""
        ...

    def log(self) -> Log:
        """Return it as a log."""
        ...

    def block(self) -> Block:
        """Return what is known of its block; only where the log tells the time."""
        ...


class LogRange(Protocol):
    """Consecutive blocks and the wanted logs in them, checked against one another."""

    @property
    def headers(self) -> Mapping[int, Block]:
        """All headers of the range, or those that were asked for."""
        ...

    @property
    def logs(self) -> Mapping[int, Sequence[WireLog]]:
        """By block, those that have any, in chain order."""
        ...

    @property
    def proved(self) -> bool:
        """Whether every block's header was read and compared with its logs."""
        ...


class Argument(Protocol):
    """An argument of an event."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def type(self) -> str:
        """What it is: `uint64`, `int8`, `bool`, `address`, `bytes32`; others have no width."""
        ...

    @property
    def indexed(self) -> bool:
        """Whether it stands among the topics."""
        ...

    @property
    def hashed(self) -> bool:
        """Whether only the hash of its value stands there."""
        ...


class EventKind(Protocol):
    """An event of a contract."""

    @property
    def name(self) -> str:
        """Its name in the contract."""
        ...

    @property
    def inputs(self) -> Sequence[Any]:
        """Its arguments, each an `Argument`."""
        ...

    @property
    def topic0(self) -> str:
        """The first topic of its logs as providers write it."""
        ...

    @property
    def anonymous(self) -> bool:
        """Whether its logs do not have that."""
        ...


class ContractAbi(Protocol):
    """A contract's interface, as far as its events."""

    def event(self, name: str) -> Any:
        """Return the event with that name, an `EventKind`; `InvalidInput` when it is not one."""
        ...

    def address(self, text: str) -> str:
        """Return a contract's address in the form in which logs name it."""
        ...


class Decoder(Protocol):
    """Decodes the logs of one event. Methods raise `UndecodableLog` where they do not fit."""

    @property
    def event(self) -> Any:
        """The event, an `EventKind`."""
        ...

    def decode(self, topics: Any, data: Any) -> tuple[Any, ...]:
        """Return the arguments in their order."""
        ...

    def arguments(self, topics: Any, data: Any) -> dict[str, Any]:
        """Return the arguments by name."""
        ...

    def arguments_of(self, logs: Sequence[Any]) -> list[dict[str, Any]] | None:
        """Return the arguments by name of each log; None when one of them does not fit."""
        ...

    def decode_batch(
        self, logs: Sequence[Any], *, strict: bool = True
    ) -> tuple[list[list[Any]], list[int]]:
        """Return one column for each argument, addresses as bytes, and which logs do not fit."""
        ...

    def words(self, logs: Sequence[Any]) -> list[Words] | None:
        """Return 32 bytes a log for each argument; None where that is not possible."""
        ...


class LogChain(Chain, Protocol):
    """A chain whose events can be indexed."""

    def decoder(self, event: Any) -> Decoder:
        """Return what decodes the logs of an event of this family's ABI."""
        ...

    async def read_range(
        self,
        wanted: Sequence[LogFilter],
        first: int,
        last: int,
        *,
        last_hash: str | None = None,
        every_header: bool = True,
    ) -> LogRange:
        """Return the logs of a range with its headers, all from one endpoint and checked.

        With `last_hash` the last block must be that one. Without `every_header` only the last
        block's header is read. Raises `ChainBehind` when no endpoint has the range or gave an
        answer that fits together, `RangeTooLarge` when it is refused.
        """
        ...

    async def read_block(self, wanted: Sequence[LogFilter], block: Block) -> LogRange:
        """Return the logs of one block whose header is known, asked for by its hash."""
        ...
