"""Reading ahead: the next ranges are fetched while the present one is applied, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from causeway.chains.errors import RangeTooLarge
from causeway.indexing.span import Span

R = TypeVar("R")


@dataclass(slots=True)
class _Asked(Generic[R]):
    first: int
    last: int
    task: asyncio.Task[R]


class ReadAhead(Generic[R]):
    """Ranges of blocks being read: handed out in order, never more than a few at once.

    `read` returns what blocks `first` to `last` hold; `size` says how many results that was, so
    that the span can be held to what memory allows.
    """

    def __init__(
        self,
        read: Callable[[int, int], Awaitable[R]],
        size: Callable[[R], int],
        span: Span,
        at_once: int,
    ) -> None:
        self._read = read
        self._size = size
        self._asked: deque[_Asked[R]] = deque()
        self.span = span
        #: Ranges read at once; 1: none ahead.
        self.at_once = at_once

    async def next(self, first: int, up_to: int) -> R:
        """Return what the range that begins at `first` holds; it ends at `up_to` at the latest.

        Raises what reading raises; then nothing is read ahead any more.
        """
        while True:
            if self._asked and (self._asked[0].first != first or self._asked[0].last > up_to):
                await self.drop()
            self._fill(first, up_to)
            asked = self._asked.popleft()
            blocks = asked.last - asked.first + 1
            try:
                found = await asked.task
            except RangeTooLarge:
                await self.drop()
                if blocks == 1:
                    raise
                self.span.refused(blocks)
                continue
            except asyncio.CancelledError:
                asked.task.cancel()
                await self.drop()
                raise
            except Exception:
                # A provider may well answer too large a question by failing.
                await self.drop()
                self.span.failed(blocks)
                raise
            self.span.answered(blocks, self._size(found))
            return found

    def _fill(self, first: int, up_to: int) -> None:
        begin = self._asked[-1].last + 1 if self._asked else first
        while begin <= up_to and len(self._asked) < self.at_once:
            last = min(begin + self.span.blocks - 1, up_to)
            task = asyncio.ensure_future(self._read(begin, last))
            self._asked.append(_Asked(begin, last, task))
            begin = last + 1

    async def drop(self) -> None:
        """Forget what is being read."""
        tasks = [asked.task for asked in self._asked]
        self._asked.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
