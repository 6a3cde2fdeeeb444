"""What a phone needs to race a ghost by itself: its curve, its way and its pace, small enough."""

from __future__ import annotations

from dataclasses import dataclass

from causeway.apps.wisp.domain import lines
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.simplify import thinned
from causeway.apps.wisp.domain.standing import KILOMETRE_M

#: At most so many samples of the curve, and points of the way.
MOST_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class PacedSplit:
    """A stretch up to a mark: how long the ghost takes for it, and to get there."""

    distance: float
    target_time: float
    target_pace: float
    cumulative_time: float


@dataclass(frozen=True)
class RaceData:
    """A ghost for racing offline. Metres, seconds, seconds a kilometre."""

    target_distance: float
    target_duration: float
    target_pace: float
    pacing_strategy: tuple[PacedSplit, ...]
    #: The way of the ghost; None when it has none.
    encoded_polyline: str | None
    #: Distance and time, at most a thousand samples.
    curve: tuple[tuple[float, float], ...]


def race_data(ghost: Ghost, split_m: float = KILOMETRE_M) -> RaceData:
    """Return what a phone needs of a ghost, on the clock with pauses."""
    curve = ghost.elapsed
    marks: list[float] = []
    mark = split_m
    while mark < ghost.length_m - 1.0:
        marks.append(mark)
        mark += split_m
    marks.append(ghost.length_m)
    pacing: list[PacedSplit] = []
    before_m = before_s = 0.0
    for mark in marks:
        reached = curve.time_at(mark)
        time = reached - before_s
        pacing.append(PacedSplit(mark, time, time / (mark - before_m) * 1000.0, reached))
        before_m, before_s = mark, reached
    small = curve.reduced(MOST_SAMPLES)
    polyline = None
    if ghost.route is not None:
        first, last = ghost.route.cell(0.0), ghost.route.cell(ghost.length_m)
        lat, lng = ghost.route.plane.unproject(ghost.route.xy[first : last + 1])
        kept = thinned(lat, lng, MOST_SAMPLES)
        polyline = lines.encode(lat[kept], lng[kept])
    return RaceData(
        target_distance=ghost.length_m,
        target_duration=curve.duration_s,
        target_pace=curve.duration_s / ghost.length_m * 1000.0,
        pacing_strategy=tuple(pacing),
        encoded_polyline=polyline,
        curve=tuple(
            (round(s, 2), round(t, 3))
            for s, t in zip(small.s.tolist(), small.t.tolist(), strict=True)
        ),
    )
