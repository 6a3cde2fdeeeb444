"""Stretches of road that many people's runs are compared on.

An effort begins where a run passes within 25 m of the segment's start and ends where it passes its
end; in between it covers 95 % of the segment, in order, within 30 m. A run may have several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.geodesy import Plane, cumulative_lengths
from causeway.base.errors import Field, InvalidInput

Floats = NDArray[np.float64]

SHORTEST_M, LONGEST_M = 100.0, 20_000.0
END_M, CORRIDOR_M = 25.0, 30.0
COVERED_SHARE = 0.95
#: Places of a segment that are looked at are this far apart, metres.
STEP_M = 10.0
#: An effort is at most so much longer than the segment: who strolls around does not race.
LONGER_SHARE, LONGER_M = 1.3, 100.0


@dataclass(frozen=True)
class Segment:
    """A line in a plane, resampled."""

    plane: Plane
    xy: Floats
    length_m: float

    @classmethod
    def of(cls, lat: Floats, lng: Floats) -> Segment:
        """Return the segment of a line.

        Raises InvalidInput when it is shorter than 100 m or longer than 20 km.
        """
        s = cumulative_lengths(lat, lng)
        length = float(s[-1]) if len(s) else 0.0
        if not SHORTEST_M <= length <= LONGEST_M:
            allowed = f"{SHORTEST_M:g}..{LONGEST_M:g} m long"
            raise InvalidInput(fields=[Field("polyline", f"{length:.0f} m", allowed)])
        plane = Plane.around(lat, lng)
        points = plane.project(lat, lng)
        at = np.linspace(0.0, length, round(length / STEP_M) + 1)
        xy = np.column_stack([np.interp(at, s, points[:, i]) for i in (0, 1)])
        return cls(plane, xy, length)


@dataclass(frozen=True, slots=True)
class SegmentEffort:
    """When a run was on a segment: seconds into the run, and how long."""

    start_s: float
    end_s: float
    time: float
    covered_share: float


@dataclass(frozen=True, slots=True)
class _Pass:
    """A run's nearest approach to a place: between which samples, when, and how far along."""

    index: int
    t: float
    s: float


def efforts(segment: Segment, lat: Floats, lng: Floats, t: Floats) -> list[SegmentEffort]:
    """Return the efforts of a run on a segment, in order; places may be unknown (NaN)."""
    known = np.isfinite(lat)
    if np.count_nonzero(known) < 2:
        return []
    xy, t = segment.plane.project(lat[known], lng[known]), t[known]
    lengths = np.hypot(*np.diff(xy, axis=0).T)
    s = np.concatenate(([0.0], np.cumsum(lengths)))
    starts = _passes(xy, t, s, segment.xy[0])
    ends = _passes(xy, t, s, segment.xy[-1])
    tried: list[SegmentEffort] = []
    longest = LONGER_SHARE * segment.length_m + LONGER_M
    for begin in starts:
        for end in ends:
            if end.t <= begin.t or end.s - begin.s < COVERED_SHARE * segment.length_m - END_M:
                continue
            if end.s - begin.s > longest:
                break
            covered = _covered(segment.xy, xy[begin.index : end.index + 2])
            if covered >= COVERED_SHARE:
                tried.append(SegmentEffort(begin.t, end.t, end.t - begin.t, covered))
                break
    # Who passes the start twice before the end has one effort: the faster.
    found: list[SegmentEffort] = []
    for one in sorted(tried, key=lambda one: one.time):
        if not any(_overlap(one, other) for other in found):
            found.append(one)
    return sorted(found, key=lambda one: one.start_s)


def _overlap(one: SegmentEffort, other: SegmentEffort) -> bool:
    """Tell whether two efforts are the same; laps may share the metres around their line."""
    common = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return common > 0.1 * min(one.time, other.time)


def _passes(xy: Floats, t: Floats, s: Floats, place: Floats) -> list[_Pass]:
    """Return where a line passes within 25 m of a place: the nearest point of each pass."""
    way = np.diff(xy, axis=0)
    squared = np.maximum(np.einsum("ij,ij->i", way, way), 1e-12)
    part = np.clip(np.einsum("ij,ij->i", place - xy[:-1], way) / squared, 0.0, 1.0)
    apart = np.hypot(*(xy[:-1] + part[:, None] * way - place).T)
    near = np.flatnonzero(apart <= END_M)
    found: list[_Pass] = []
    for group in np.split(near, np.flatnonzero(np.diff(near) > 1) + 1):
        if len(group):
            i = int(group[np.argmin(apart[group])])
            at = float(part[i])
            found.append(
                _Pass(i, float(t[i] + at * (t[i + 1] - t[i])), float(s[i] + at * (s[i + 1] - s[i])))
            )
    return found


def _covered(segment: Floats, run: Floats) -> float:
    """Return the largest share of a segment's places that a run passes in their order.

    The longest common subsequence of both lines, where places are common that are within 30 m; one
    place of the run may pass several of the segment.
    """
    best = np.zeros(len(run))
    for place in segment:
        near = np.hypot(*(run - place).T) <= CORRIDOR_M
        best = np.maximum.accumulate(best + near)
    return float(best[-1]) / len(segment)


@dataclass(frozen=True, slots=True)
class Entry:
    """One effort as a leaderboard has it."""

    person: str
    time: float
    achieved_at: datetime


def leaderboard(entries: Iterable[Entry], own: str | None = None) -> list[tuple[int, Entry]]:
    """Return ranks and the best effort of each person, one's own first, then from the first on.

    Of equal times the earlier is better, and has the better rank.
    """
    best: dict[str, Entry] = {}
    for one in entries:
        held = best.get(one.person)
        if held is None or _order(one) < _order(held):
            best[one.person] = one
    ranked = list(enumerate(sorted(best.values(), key=_order), start=1))
    return sorted(ranked, key=lambda one: (one[1].person != own, one[0]))


def _order(entry: Entry) -> tuple[float, datetime, str]:
    return entry.time, entry.achieved_at, entry.person
