"""What a rule would have done: the same questions and the same state machine, over history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.alerts.evaluation import Moment, observe
from causeway.apps.mobs.alerts.evaluator import timing
from causeway.apps.mobs.alerts.notices import plain
from causeway.apps.mobs.alerts.states import Series, evaluate

#: History is looked at every so often, seconds.
STEP_S = 60
#: At most this many moments; longer ranges are refused.
MOST_STEPS = 7 * 1440


@dataclass
class Preview:
    """What would have happened."""

    episodes: int = 0
    minutes_firing: int = 0
    evaluations: int = 0
    transitions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "episodes": self.episodes,
            "minutes_firing": self.minutes_firing,
            "evaluations": self.evaluations,
            "transitions": self.transitions[:200],
        }


async def preview(
    session: AsyncSession,
    rule: Mapping[str, Any],
    start: int,
    end: int,
    *,
    step_s: int = STEP_S,
    forks: tuple[int, ...] = (),
) -> Preview:
    """Return what a rule would have done between two times of the chain (Unix seconds)."""
    first = await session.scalar(
        text("SELECT min(timestamp) FROM mobs.blocks WHERE timestamp >= :start"), {"start": start}
    )
    last = await session.scalar(
        text("SELECT max(timestamp) FROM mobs.blocks WHERE timestamp <= :end"), {"end": end}
    )
    found = Preview()
    if first is None or last is None:
        return found
    states: dict[str, Series] = {}
    patience = timing(rule)
    begin = max(start, first - first % step_s)
    for now in range(begin + step_s, min(end, last + step_s) + 1, step_s):
        found.evaluations += 1
        firing = False
        seen: set[str] = set()
        for one in await observe(session, rule, Moment(now, now, live=False, forks=forks)):
            seen.add(one.series)
            step = evaluate(states.get(one.series, Series()), one.is_true, now, patience)
            for what in step.events:
                found.transitions.append(
                    {
                        "at": now,
                        "kind": what,
                        "series": one.series,
                        "value": plain(one.value),
                        "reason": step.reason,
                    }
                )
                found.episodes += what == "firing"
            states[one.series] = step.series
        for name, series in states.items():
            if name not in seen:
                states[name] = evaluate(series, None, now, patience).series
            firing = firing or states[name].state == "firing"
        found.minutes_firing += firing * step_s // 60
    return found
