"""What a race came to, with exact numbers and those that are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.standing import Clock, Mode, Split

Status = Literal["won", "lost", "abandoned"]
Position = Literal["ahead", "behind", "level"]


def rounded(value: float) -> int:
    """Return the nearest integer; a half goes away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a race; gaps in whole seconds, positive behind the ghost."""

    result_status: Status
    mode: Mode
    clock: Clock
    flags: tuple[str, ...]
    #: Seconds at the finish, on the race's clock; None when abandoned.
    finish_s: float | None
    #: At the finish, or where it was abandoned.
    time_difference: int
    time_difference_ms: int
    distance_completed: float
    #: 0..1.
    completion_percentage: float
    final_position: Position
    max_lead: int
    average_gap: int
    max_gap: int
    min_gap: int
    shortcut_m: float
    split_comparisons: tuple[Split, ...]


def result_of(race: Race) -> Result:
    """Return the result of a race that is over.

    Raises ValueError while it goes on.
    """
    if not race.is_over or race.standing is None:
        raise ValueError("a race that goes on has no result")
    gap = race.standing.gap_seconds
    flags = {"off_course"} if race.is_off_course else set[str]()
    if race.rules.calibration != 1.0:
        flags.add("calibrated")
    if any(event.kind == "mode_changed" for event in race.events):
        flags.add("mode_changed")
    status: Status = "abandoned"
    if race.finish_s is not None:
        status = "won" if gap <= 0 and not race.is_off_course else "lost"
    position: Position = "level" if gap == 0 else "ahead" if gap < 0 else "behind"
    average = race.gap_area / race.gap_time_s if race.gap_time_s > 0 else gap
    done = min(race.s, race.length_m)
    return Result(
        result_status=status,
        mode=race.mode or "distance",
        clock=race.rules.clock,
        flags=tuple(sorted(flags)),
        finish_s=race.finish_s,
        time_difference=rounded(gap),
        time_difference_ms=rounded(gap * 1000),
        distance_completed=done,
        completion_percentage=done / race.length_m,
        final_position=position,
        max_lead=rounded(max(0.0, -race.min_gap)),
        average_gap=rounded(average),
        max_gap=rounded(race.max_gap),
        min_gap=rounded(race.min_gap),
        shortcut_m=race.shortcut_m,
        split_comparisons=tuple(race.splits),
    )
