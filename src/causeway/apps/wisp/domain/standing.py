"""How a race is run, and what is said of it while it goes on.

Times are seconds, on the race's clock where it says so; gaps are positive behind the ghost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["route", "distance"]
Clock = Literal["elapsed", "moving"]
State = Literal["racing", "off_route", "paused", "lost_signal", "finished", "abandoned"]
EventKind = Literal[
    "overtook", "overtaken", "off_route", "rejoined", "mode_changed", "gps_lost", "gps_back"
]

KILOMETRE_M = 1000.0
MILE_M = 1609.344


@dataclass(frozen=True, slots=True)
class Rules:
    """How a race is run."""

    #: None: the ghost's way if the runner starts on it, else by distance.
    mode: Mode | None = None
    clock: Clock = "elapsed"
    split_m: float = KILOMETRE_M
    auto_pause: bool = False
    #: Whether a race on the ghost's way may go on by distance when the runner leaves it.
    may_change_mode: bool = False
    #: What the device's metres are multiplied with (a treadmill's final distance over its own).
    calibration: float = 1.0


@dataclass(slots=True)
class Standing:
    """How the race stands at one moment. Gaps are positive behind the ghost."""

    t: float
    #: Seconds on the race's clock.
    clock_s: float
    s: float
    gap_seconds: float
    gap_metres: float
    confidence: float
    state: State
    #: Where the ghost is, metres.
    ghost_s: float
    #: Seconds a kilometre, over the last minute; None before anything is known.
    pace: float | None
    projected_finish: float | None
    projected_difference: float | None


@dataclass(frozen=True, slots=True)
class Split:
    """One stretch up to a mark: the runner's and the ghost's seconds for it."""

    distance: float
    user_time: float
    ghost_time: float
    difference: float
    cumulative_difference: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once; `number` counts those of its kind, from 1."""

    kind: EventKind
    t: float
    s: float
    number: int
