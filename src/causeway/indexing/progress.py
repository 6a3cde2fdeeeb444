"""How far each source is, for people: from the checkpoints, whoever moves them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.indexing.models import Checkpoint, Effect


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. Block numbers; `moved_at` is when its checkpoint moved last."""

    source: str
    chain_id: int
    start_block: int
    applied: int
    #: The newest block that cannot be replaced, and the chain's newest, as last seen.
    final: int
    head: int
    moved_at: datetime
    #: Why it does not go on; None while all is well.
    problem: str | None
    #: Effects that wait for their finality.
    waiting: int

    @property
    def behind(self) -> int:
        """How many blocks are not applied."""
        return max(0, self.head - self.applied)


async def statuses(session: AsyncSession) -> list[SourceStatus]:
    """Return all sources by name."""
    counted = await session.execute(
        select(Effect.source, func.count()).where(Effect.state == "waiting").group_by(Effect.source)
    )
    waiting = {source: number for source, number in counted}
    found = await session.scalars(select(Checkpoint).order_by(Checkpoint.source))
    return [
        SourceStatus(
            one.source,
            one.chain_id,
            one.start_block,
            one.number,
            one.final_number,
            one.head_number,
            one.updated_at,
            one.problem,
            waiting.get(one.source, 0),
        )
        for one in found
    ]


def time_left_s(before: SourceStatus, now: SourceStatus, seconds: float) -> float | None:
    """Return the seconds until a source is at the head, by what it did lately; None if never."""
    rate = (now.applied - before.applied) / seconds
    if not now.behind:
        return 0.0
    return now.behind / rate if rate > 0 else None
