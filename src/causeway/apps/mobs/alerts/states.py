"""The state machine of one series of a rule. Pure functions; times are Unix seconds.

inactive → pending when the condition is true → firing once it has been true for `for_s` → inactive
when it is false. What is not known (None) keeps, ends or starts an episode, as the rule says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["inactive", "pending", "firing", "no_data", "error", "disabled"]
NoData = Literal["ok", "keep", "alert"]
What = Literal["firing", "repeat", "resolved"]


@dataclass(frozen=True)
class Timing:
    """How patient a rule is, seconds."""

    for_s: int = 0
    cooldown_s: int = 900
    keep_firing_s: int = 0
    no_data: NoData = "keep"


@dataclass(frozen=True)
class Series:
    """Where a series is."""

    state: State = "inactive"
    since: int = 0
    #: When the condition became true without a break; None while it is not.
    true_since: int | None = None
    #: When it was last true.
    true_at: int | None = None
    #: Whether this episode has an event on record.
    told: bool = False
    #: When the last event of this series was recorded.
    event_at: int | None = None


@dataclass(frozen=True)
class Transition:
    """What an evaluation came to: the new state, and what is to be recorded."""

    series: Series
    events: tuple[What, ...] = ()
    #: Why an episode ended.
    reason: str | None = None


def evaluate(series: Series, is_true: bool | None, now: int, timing: Timing) -> Transition:
    """Return the next state for a condition that is true, false, or not known (None)."""
    if is_true is None:
        match timing.no_data:
            case "keep":
                return Transition(series)
            case "ok":
                return _false(series, now, timing, reason="no_data")
            case "alert":
                is_true = True
    return _true(series, now, timing) if is_true else _false(series, now, timing)


def _true(series: Series, now: int, timing: Timing) -> Transition:
    since = series.true_since if series.true_since is not None else now
    here = replace(series, true_since=since, true_at=now)
    cool = here.event_at is None or now - here.event_at >= timing.cooldown_s
    if here.state == "firing":
        if not cool:
            return Transition(here)
        what: What = "repeat" if here.told else "firing"
        return Transition(replace(here, told=True, event_at=now), (what,))
    if now - since < timing.for_s:
        if here.state == "pending":
            return Transition(here)
        return Transition(replace(here, state="pending", since=now))
    here = replace(here, state="firing", since=now, told=False)
    if not cool:  # a new episode within the cooldown is recorded when that is over
        return Transition(here)
    return Transition(replace(here, told=True, event_at=now), ("firing",))


def _false(series: Series, now: int, timing: Timing, reason: str = "recovered") -> Transition:
    calm = replace(series, true_since=None)
    if series.state == "firing":
        last = series.true_at
        still = last is not None and max(0, now - last) < timing.keep_firing_s
        return Transition(calm) if still else end(calm, now, reason)
    if series.state == "inactive":
        return Transition(calm)
    return Transition(replace(calm, state="inactive", since=now))


def end(series: Series, now: int, reason: str) -> Transition:
    """Return the end of an episode, resolved if anybody was told of it."""
    over = replace(series, state="inactive", since=now, true_since=None, told=False)
    return Transition(over, ("resolved",) if series.told else (), reason)
