"""From what a provider answered to what counts: pure, so that evidence can be recomputed.

The same functions score a challenge and explain it later: they see nothing but the goal and the
answer that is kept as evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from causeway.apps.motify.goals import Goal, Measure, Provider, Quantity, microseconds
from causeway.apps.motify.shares import Ratio
from causeway.base.errors import InvalidInput


@dataclass(frozen=True)
class Count:
    """What was found, by UTC date; coding time in microseconds."""

    days: dict[date, int]
    #: Of the window, where that is not the sum of the days.
    total: int | None = None


def count(goal: Goal, answered: Any) -> Count:
    """Return what an answer holds for a goal; `InvalidInput` when it has another shape."""
    try:
        if goal.provider is Provider.GITHUB:
            return _github(goal, answered)
        if goal.provider is Provider.WAKATIME:
            return _wakatime(goal, answered)
        return _farcaster(goal, answered)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"this is no answer of {goal.provider}: {error!r}") from None


def ratio(goal: Goal, found: Count, carried: Mapping[date, int]) -> Ratio:
    """Return how much of the goal was reached.

    `carried` are days of earlier readings that the provider does not tell of any more; of a day
    that both know the later one counts.
    """
    days = dict(carried) | found.days
    return goal.ratio(days, found.total)


def backdated(goal: Goal, found: Mapping[date, int], seen: Mapping[date, int]) -> tuple[date, ...]:
    """Return the days that are higher now than when they were first seen whole.

    `seen` are days as the first reading after their end had them. Work that appears for a day
    that was over is not refused, but whoever reads the evidence is told.
    """
    return tuple(day for day in goal.days if day in seen and found.get(day, 0) > seen[day])


def _github(goal: Goal, answered: Any) -> Count:
    """Parts of a year each: `{"query": …, "answer": viewer}`."""
    days: dict[date, int] = {}
    commits = pulls = 0
    wanted = set(goal.days)
    for part in answered:
        collection = part["answer"]["contributionsCollection"]
        commits += int(collection["totalCommitContributions"])
        pulls += int(collection["totalPullRequestContributions"])
        for week in collection["contributionCalendar"]["weeks"]:
            for day in week["contributionDays"]:
                when = date.fromisoformat(day["date"])
                if when in wanted:
                    days[when] = int(day["contributionCount"])
    if goal.measure is Measure.DAYS:
        return Count(days)
    return Count(days, commits if goal.quantity is Quantity.COMMITS else pulls)


def _wakatime(goal: Goal, answered: Any) -> Count:
    """The summaries, reduced to what is counted (`reduced`)."""
    wanted = set(goal.days)
    days: dict[date, int] = {}
    for day in answered["data"]:
        when = date.fromisoformat(day["range"]["date"])
        if when in wanted:
            days[when] = microseconds(day["grand_total"]["total_seconds"])
    return Count(days)


def reduced(summaries: Any) -> dict[str, Any]:
    """Return WakaTime's answer without the names of projects, files and editors."""
    total: Any = summaries.get("cumulative_total") or {}
    return {
        "data": [
            {
                "range": {"date": day["range"]["date"]},
                "grand_total": {"total_seconds": day["grand_total"]["total_seconds"]},
            }
            for day in summaries["data"]
        ],
        "cumulative_total": {"seconds": total.get("seconds")},
    }


def _farcaster(goal: Goal, answered: Any) -> Count:
    """Casts: `[{"hash", "at"}]`; each hash once, and only inside the window."""
    casts = {str(cast["hash"]): datetime.fromisoformat(cast["at"]) for cast in answered}
    inside = [at for at in casts.values() if goal.window.begin_at <= at < goal.window.end_at]
    days = Counter(at.astimezone(UTC).date() for at in inside)
    found = {day: days.get(day, 0) for day in goal.days}
    return Count(found, len(inside) if goal.measure is Measure.TOTAL else None)
