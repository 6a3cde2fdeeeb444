"""Which times are known: zero and unknown never look alike.

Not known is what the index has not reached, what was before it began or was let go, minutes that
are still to be computed, and the time of blocks that are missing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.rollup import indexed_through


@dataclass(frozen=True)
class Coverage:
    """What is known of a range of time. Unix seconds."""

    #: Time of the newest block; None before the first.
    through: int | None
    #: The first minute or hour there are figures of.
    begins: int | None
    #: Minutes to be computed, in order.
    marked: Sequence[int] = ()
    #: Times without their blocks: after the first, before the second.
    holes: Sequence[tuple[int, int]] = ()

    def whole(self, at: int, width: int) -> bool:
        """Say whether all of `at` up to `at + width` is known."""
        if self.through is None or self.begins is None:
            return False
        if at < self.begins or self.through < at + width:
            return False
        place = bisect_left(self.marked, at)
        if place < len(self.marked) and self.marked[place] < at + width:
            return False
        return not any(first < at + width and at < last for first, last in self.holes)


async def covered(session: AsyncSession, start: int, end: int, *, minutes: bool) -> Coverage:
    """Return what is known between two times, of minutes or else of hours."""
    table = "metrics_minute" if minutes else "metrics_hour"
    begins = await session.scalar(text(f"SELECT min(bucket_ts) FROM mobs.{table}"))
    marked = await session.scalars(
        text(
            "SELECT bucket_ts FROM mobs.dirty_minutes WHERE bucket_ts >= :start "
            "AND bucket_ts < :end ORDER BY bucket_ts"
        ),
        {"start": start, "end": end},
    )
    holes = await session.execute(
        text(
            "SELECT coalesce((SELECT timestamp FROM mobs.blocks WHERE number < h.first_block "
            "ORDER BY number DESC LIMIT 1), 0), coalesce((SELECT timestamp FROM mobs.blocks "
            "WHERE number > h.last_block ORDER BY number LIMIT 1), :end) FROM mobs.block_holes AS h"
        ),
        {"end": 2**62},
    )
    return Coverage(
        await indexed_through(session),
        None if begins is None else int(begins),
        list(marked),
        [(int(first), int(last)) for first, last in holes],
    )
