"""Finding where the chain that is left the chain that was applied."""

from __future__ import annotations

from collections.abc import Sequence

from causeway.base.clock import Clock
from causeway.base.errors import ChainBehind, PermanentError
from causeway.chains.protocol import Block, Chain
from causeway.indexing.reading import BEFORE_GENESIS

_AT_ONCE = 64


class ReorgTooDeep(PermanentError):
    """The chain replaced blocks that were taken for final; they cannot be undone."""

    def __init__(self, source: str, depth: int) -> None:
        super().__init__(
            f"source {source!r}: the chain replaced at least {depth} applied blocks, "
            "more than are kept for undoing; nothing is applied until a person decides",
            hint="check that the providers serve the right chain; if they do, drop the app's "
            "derived rows and its checkpoint and read the chain again",
            depth=depth,
        )
        #: How many applied blocks are gone, at least.
        self.depth = depth


async def find_fork(chain: Chain, source: str, start_block: int, kept: Sequence[Block]) -> Block:
    """Return the newest kept block that the chain still has; `kept` is newest first.

    When the chain has none of them but they reach down to the block before the start, everything
    ever applied can be undone: then that block is returned as the chain has it now. Raises
    `ReorgTooDeep` when there is no such block.
    """
    for at in range(0, len(kept), _AT_ONCE):
        part = kept[at : at + _AT_ONCE]
        asked = [block for block in part if block.number >= 0]
        found = {b.number: b.hash for b in await chain.look(*(b.number for b in asked)) if b}
        for block in part:
            if block.number < 0 or found.get(block.number) == block.hash:
                return block
    oldest, newest = kept[-1].number, kept[0].number
    if oldest != start_block - 1:
        raise ReorgTooDeep(source, newest - oldest + 1)
    (before,) = await chain.look(oldest) if oldest >= 0 else (BEFORE_GENESIS,)
    if before is None:
        raise ChainBehind(f"the chain does not reach block {oldest}, before the start of {source}")
    return before


class Shrinking:
    """Tells a chain that became shorter from a provider that lags: by waiting a little."""

    def __init__(self, clock: Clock, patience_s: float, patience_polls: int) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._patience_polls = patience_polls
        self._since: float | None = None
        self._polls = 0

    def seen(self) -> bool:
        """Note that the head was below the checkpoint; return whether to believe it now."""
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        self._polls += 1
        return self._polls >= self._patience_polls and now - self._since >= self._patience_s

    def over(self) -> None:
        """Note that the chain has the checkpoint's block."""
        self._since = None
        self._polls = 0
