"""What is common to reading events and reading whole blocks: a stretch of checked blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ChainBehind
from causeway.chains.protocol import Block

C = TypeVar("C")

#: Below genesis: what the genesis block names as its parent.
BEFORE_GENESIS = Block(-1, "0x" + "0" * 64, "0x" + "0" * 64, datetime.fromtimestamp(0, UTC))


class ChainMoved(ChainBehind):
    """The chain was reorganised, or another provider answered, while it was being read."""


@dataclass(frozen=True, slots=True)
class Stretch(Generic[C]):
    """Consecutive blocks that were read, and what they hold."""

    last: Block
    #: The headers of all of them, above finality; the last one only, below.
    blocks: tuple[Block, ...]
    content: C
    #: How many facts (or whole blocks) that is, by name.
    counts: dict[str, int]
    #: Whether the blocks may still be replaced.
    replaceable: bool


class Reading(Protocol[C]):
    """How one kind of source is read and applied."""

    async def prepare(self, session: AsyncSession) -> None:
        """Read from the database what has to be known before the chain is read."""
        ...

    async def final(self, after: Block, up_to: int) -> Stretch[C]:
        """Read blocks above `after` up to `up_to` or fewer, all of them final."""
        ...

    async def tip(self, after: Block, head: Block) -> Stretch[C]:
        """Read blocks above `after` up to the head or fewer; they may still be replaced.

        Raises `ChainMoved` when they do not follow from it.
        """
        ...

    async def apply(self, session: AsyncSession, stretch: Stretch[C]) -> None:
        """Write what the stretch holds, in the transaction that moves the checkpoint."""
        ...

    async def undo(self, session: AsyncSession, above: int) -> int:
        """Delete what blocks above this one added to tables without triggers; return the rows."""
        ...

    def read_ahead(self, ranges: int) -> None:
        """Read so many ranges at once from now on; 1: none ahead."""
        ...

    async def rest(self, *, forget: bool = False) -> None:
        """Stop reading ahead; with `forget` nothing that was remembered is believed any more."""
        ...


def follows(after: Block, blocks: Sequence[Block]) -> None:
    """Raise `ChainMoved` unless the blocks follow one another and the first this one."""
    parent = after.hash
    for block in blocks:
        # Below the start of a source nothing is known but the number.
        if parent and block.parent_hash != parent:
            raise ChainMoved(f"block {block.number} does not follow block {parent}")
        parent = block.hash
