"""What a challenge asks for, and how far somebody came: section 9 of the specification.

Nothing on chain validates these texts: a goal that is not in the table below is *unscorable* and
never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from causeway.apps.motify.shares import Ratio, capped

#: Written into every frozen rule: raise it when the same data would give another ratio.
ENGINE_VERSION: Final = 1

#: Longest window that is measured; a longer one would be millions of days of somebody's making.
MOST_DAYS: Final = 3 * 366


class Provider(StrEnum):
    """Where a goal is measured."""

    GITHUB = "github"
    WAKATIME = "wakatime"
    FARCASTER = "farcaster"


class Measure(StrEnum):
    """What is counted."""

    #: Days on which enough was done, of all days.
    DAYS = "days"
    #: All that was done in the window, of the goal.
    TOTAL = "total"


class Quantity(StrEnum):
    """Of what."""

    CONTRIBUTIONS = "contributions"
    COMMITS = "commits"
    PULL_REQUESTS = "pull_requests"
    CASTS = "casts"
    CODING_SECONDS = "coding_seconds"


_KINDS: Final[Mapping[tuple[str, str], tuple[Provider, Measure, Quantity]]] = {
    **{
        ("github", name): (Provider.GITHUB, Measure.DAYS, Quantity.CONTRIBUTIONS)
        for name in ("CONTRIBUTION_PER_DAY", "COMMIT_PER_DAY", "PUSH_PER_DAY")
    },
    ("github", "COMMITS"): (Provider.GITHUB, Measure.TOTAL, Quantity.COMMITS),
    ("github", "PULL_REQUESTS"): (Provider.GITHUB, Measure.TOTAL, Quantity.PULL_REQUESTS),
    **{
        ("farcaster", name): (Provider.FARCASTER, Measure.DAYS, Quantity.CASTS)
        for name in ("CAST_PER_DAY", "POST_PER_DAY")
    },
    ("farcaster", "CASTS"): (Provider.FARCASTER, Measure.TOTAL, Quantity.CASTS),
    **{
        ("wakatime", name): (Provider.WAKATIME, Measure.TOTAL, Quantity.CODING_SECONDS)
        for name in ("CODING_TIME", "CODING_HOURS")
    },
}


@dataclass(frozen=True)
class Window:
    """The time of a challenge, half open: `start` ≤ t < `end`, Unix seconds of the chain."""

    start: int
    end: int

    @property
    def is_measurable(self) -> bool:
        """Whether its days can be told and counted."""
        return 0 <= self.start < self.end <= 253_402_300_800 and len(self) <= MOST_DAYS

    def __len__(self) -> int:
        return (self.end - 1) // 86_400 - self.start // 86_400 + 1

    @property
    def begin_at(self) -> datetime:
        """The first moment that counts."""
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def end_at(self) -> datetime:
        """The first moment that does not count any more."""
        return datetime.fromtimestamp(self.end, UTC)

    @property
    def days(self) -> tuple[date, ...]:
        """The UTC dates it touches; an end at midnight adds none."""
        first = self.begin_at.date()
        return tuple(first + timedelta(days=n) for n in range(len(self)))


@dataclass(frozen=True)
class Goal:
    """A goal that can be measured."""

    provider: Provider
    measure: Measure
    quantity: Quantity
    #: Per day or in all: contributions, commits, pull requests, casts or seconds; above zero.
    amount: int
    window: Window

    @property
    def days(self) -> tuple[date, ...]:
        """The days of the challenge, which are the denominator of a goal per day."""
        return self.window.days

    def ratio(self, values: Mapping[date, int], total: int | None = None) -> Ratio:
        """Return how much was reached.

        `values` are what was counted on each day, in the goal's quantity (seconds in microseconds);
        `total` is what was counted in the window, where that is not the sum of the days.
        """
        if self.measure is Measure.DAYS:
            good = sum(values.get(day, 0) >= self.amount for day in self.days)
            return Ratio(good, len(self.days))
        found = sum(values.get(day, 0) for day in self.days) if total is None else total
        return capped(found, self.amount * self.unit)

    @property
    def unit(self) -> int:
        """By how much values are finer than the goal's amount."""
        return 1_000_000 if self.quantity is Quantity.CODING_SECONDS else 1

    def day_target(self) -> int | None:
        """Return what each day must reach, in the values' unit; None where only the sum counts."""
        return self.amount if self.measure is Measure.DAYS else None


def microseconds(seconds: float) -> int:
    """Return a time that came as a decimal number of seconds, exactly as it was written."""
    return int(Decimal(repr(seconds)) * 1_000_000)


def api_type_of(text: str) -> str:
    """Return an API type as it is looked up: trimmed, in lower case."""
    return text.strip().lower()


def goal_type_of(text: str) -> str:
    """Return a goal type as it is looked up: upper case, words joined by `_`."""
    return re.sub(r"[-\s]", "_", text.strip().upper())


def goal_of(api_type: str, goal_type: str, goal_amount: int, window: Window) -> Goal | None:
    """Return the goal of a challenge; None when it is unscorable."""
    found = _KINDS.get((api_type_of(api_type), goal_type_of(goal_type)))
    if found is None or not window.is_measurable:
        return None
    provider, measure, quantity = found
    amount = goal_amount or 1
    if quantity is Quantity.CODING_SECONDS:
        amount *= 3600
    return Goal(provider, measure, quantity, amount, window)


def provider_of(api_type: str) -> Provider | None:
    """Return who measures challenges of an API type."""
    try:
        return Provider(api_type_of(api_type))
    except ValueError:
        return None
