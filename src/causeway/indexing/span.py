"""How many blocks to ask for at once: less after a refusal, more after answers."""

from __future__ import annotations

#: After this many answers at the largest size known to work, the refused size is tried again:
#: what is too much depends on how full the blocks are.
_RETRY_REFUSED_AFTER = 64

#: Results asked for at once, about: some megabytes of JSON, so that memory stays flat.
_RESULTS = 10_000


class Span:
    """A number of blocks that adapts to what the provider takes, trusting no text of its.

    A refusal halves it, whatever was said; answers double it until a refused size is in the way,
    then it closes in on that by halves.
    """

    def __init__(self, maximum: int, start: int | None = None) -> None:
        if maximum < 1:
            raise ValueError("the range is at least one block")
        self._maximum = maximum
        self.blocks = min(maximum, start or maximum)
        self._refused: int | None = None
        self._answers = 0

    def refused(self, blocks: int) -> None:
        """The provider refused so many blocks at once."""
        self._refused = blocks
        self._answers = 0
        self.blocks = max(1, min(self.blocks, blocks) // 2)

    def failed(self, blocks: int) -> None:
        """The provider failed, perhaps because of the size; ask for less without a lesson."""
        self._answers = 0
        self.blocks = max(1, min(self.blocks, blocks) // 2)

    def answered(self, blocks: int, results: int = 0) -> None:
        """The provider answered for so many blocks, with so many results."""
        fitting = max(1, blocks * _RESULTS // results) if results else self._maximum
        if results > _RESULTS and fitting < self.blocks:
            self.blocks = fitting
            return
        if blocks < self.blocks:
            return  # less was asked for than allowed: nothing learned
        self._answers += 1
        if self._refused is not None and self._answers >= _RETRY_REFUSED_AFTER:
            self._refused = None
            self._answers = 0
        if self._refused is None or self._refused <= self.blocks:
            larger = self.blocks * 2
        else:
            larger = (self.blocks + self._refused) // 2
        self.blocks = min(self._maximum, max(self.blocks, min(larger, fitting)))
