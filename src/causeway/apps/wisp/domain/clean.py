"""From what a device recorded to what a person ran: impossible samples out, distance, moving time.

Which distance counts: the device's own where it has one and satellites agree within 10 %, because
fixes that err sum up to more than was run (a Polar watch says 4,508 m of a run whose raw fixes are
4,749 m long); else the geodesic length of the cleaned fixes, without what they wander while the
runner stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.fixes import FASTEST_MPS
from causeway.apps.wisp.domain.geodesy import Plane, step_lengths
from causeway.apps.wisp.domain.track import Track
from causeway.base.errors import InvalidInput

Floats = NDArray[np.float64]

#: Fixes of a file less exact than this are dropped, metres.
USELESS_M = 100.0
#: What is faster than this is no ride either, m/s.
FASTEST_RIDE_MPS = 45.0
#: Longer than this without a sample is a gap, seconds.
GAP_S = 30.0
#: A straight line across a gap counts up to so many times the run's usual speed.
USUAL_SHARE = 1.25
#: Two distances that differ by more than this share of the longer one disagree.
DISAGREE_SHARE = 0.1
#: Slower than this over so long is standing: m/s, seconds.
STILL_MPS, STILL_S = 0.5, 8.0


@dataclass(frozen=True)
class Gap:
    """A stretch without samples, seconds from the start; whether its length counts as distance."""

    start_s: float
    end_s: float
    metres: float
    counts: bool


@dataclass(frozen=True)
class Run:
    """A cleaned run: its samples, how far it was at each, and what was odd.

    `s` never falls and begins at 0; `moving_s` is the time at each sample without pauses.
    """

    track: Track
    s: Floats
    moving_s: Floats
    gaps: tuple[Gap, ...]
    #: `distances_differ`, `gap_without_distance`, `no_places`.
    flags: tuple[str, ...]
    dropped: int
    #: Both distances, metres; None where there is none.
    gps_m: float | None
    device_m: float | None

    @property
    def t(self) -> Floats:
        """Seconds since the first sample, pauses counted."""
        return self.track.t

    @property
    def distance_m(self) -> float:
        """The length of the run, metres."""
        return float(self.s[-1])

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first sample to the last."""
        return float(self.track.t[-1])

    @property
    def moving_time_s(self) -> float:
        """Seconds without pauses."""
        return float(self.moving_s[-1])


def clean(track: Track) -> Run:
    """Return the cleaned run of a track.

    Raises InvalidInput when it has neither places nor a distance of the device.
    """
    kept, dropped = _possible(_sorted(track))
    placed = np.isfinite(kept.lat)
    has_device = int(np.isfinite(kept.distance_m).sum()) >= 2
    if not has_device and int(placed.sum()) < 2:
        raise InvalidInput("the run has neither places nor a distance")
    if has_device:
        kept = kept.at(placed | np.isfinite(kept.distance_m))
    else:
        kept = kept.at(placed)
    first = float(kept.t[0])
    kept = replace(
        kept,
        t=kept.t - first,
        pauses=tuple((a - first, b - first) for a, b in kept.pauses),
    )
    device = _device_distance(kept) if has_device else None
    pauses = kept.pauses or still_stretches(kept, device)
    gps, gaps = _gps_distance(kept, pauses)
    s, flags = _chosen(gps, device)
    if any(not gap.counts for gap in gaps):
        flags.append("gap_without_distance")
    moving_s = kept.t - _paused_before(kept.t, pauses)
    return Run(
        track=replace(kept, pauses=tuple(pauses)),
        s=s,
        moving_s=moving_s,
        gaps=tuple(gaps),
        flags=tuple(flags),
        dropped=dropped,
        gps_m=None if gps is None else float(gps[-1]),
        device_m=None if device is None else float(device[-1]),
    )


def _sorted(track: Track) -> Track:
    """Return the samples in order of time, one for each time."""
    order = np.argsort(track.t, kind="stable")
    t = track.t[order]
    first = np.concatenate(([True], np.diff(t) > 0))
    return track.at(order[first])


def _possible(track: Track) -> tuple[Track, int]:
    """Return the samples that can be true, and how many were dropped.

    Dropped: fixes less exact than 100 m, and fixes that nobody reaches from the one before nor
    leaves to the one after.
    """
    exact = ~(track.accuracy_m > USELESS_M)
    fastest = FASTEST_RIDE_MPS if track.sport == "other" else FASTEST_MPS
    bad = np.zeros(len(track), bool)
    placed = np.flatnonzero(np.isfinite(track.lat) & exact)
    if len(placed) >= 2:
        plane = Plane.around(track.lat[placed], track.lng[placed])
        xy, t = plane.project(track.lat[placed], track.lng[placed]), track.t[placed]
        speed = np.hypot(*np.diff(xy, axis=0).T) / np.diff(t)
        if np.any(speed > fastest):
            bad[placed[_unreachable(xy, t, fastest)]] = True
    kept = exact & ~bad
    return track.at(kept), int(np.count_nonzero(~kept))


def _unreachable(xy: Floats, t: Floats, fastest: float) -> list[int]:
    """Return the fixes too fast both from the last kept one and to the next."""
    places, times = xy.tolist(), t.tolist()
    last: int | None = None
    found: list[int] = []

    def is_too_fast(a: int, b: int) -> bool:
        dx, dy = places[b][0] - places[a][0], places[b][1] - places[a][1]
        limit = fastest * (times[b] - times[a])
        return bool(dx * dx + dy * dy > limit * limit)

    for i in range(len(places)):
        before = last is not None and is_too_fast(last, i)
        after = i + 1 < len(places) and is_too_fast(i, i + 1)
        # The first fix of all has none before it, the last none after.
        if (before or last is None) and (after or i + 1 == len(places)) and (before or after):
            found.append(i)
        else:
            last = i
    return found


def _device_distance(track: Track) -> Floats:
    """Return the device's distance at each sample, from 0; where it fell it started again."""
    known = np.isfinite(track.distance_m)
    steps = np.diff(track.distance_m[known])
    steps = np.where(steps < 0, 0.0, steps)
    total = np.concatenate(([0.0], np.cumsum(steps)))
    return np.interp(track.t, track.t[known], total)


def still_stretches(track: Track, s: Floats | None = None) -> list[tuple[float, float]]:
    """Return when a runner stood: from and to, seconds; by places, or else by distance."""
    t = track.t
    if len(t) < 2:
        return []
    later = np.minimum(np.searchsorted(t, t + STILL_S - 1e-9), len(t) - 1)
    lasting = t[later] - t
    placed = np.isfinite(track.lat)
    moved = np.full(len(t), np.inf)
    if s is not None:
        moved = s[later] - s
    if int(placed.sum()) >= 2:
        plane = Plane.around(track.lat[placed], track.lng[placed])
        xy = plane.project(track.lat, track.lng)
        apart = np.hypot(*(xy[later] - xy).T)
        # A device that counts steps knows of a treadmill; a fix that wanders knows of nothing.
        moved = np.fmin(moved, apart) if s is None else np.fmax(moved, apart)
    still = (lasting >= STILL_S - 1e-9) & (moved < STILL_MPS * lasting)
    found: list[tuple[float, float]] = []
    for i in np.flatnonzero(still):
        start, end = float(t[i]), float(t[later[i]])
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _paused_before(t: Floats, pauses: Sequence[tuple[float, float]]) -> Floats:
    """Return the seconds of pauses before each time; pauses that overlap count once."""
    total = np.zeros(len(t))
    until = -np.inf
    for start, end in sorted(pauses):
        start = max(start, until)
        if end > start:
            total += np.clip(t - start, 0.0, end - start)
            until = end
    return total


def _gps_distance(
    track: Track, pauses: Sequence[tuple[float, float]]
) -> tuple[Floats | None, list[Gap]]:
    """Return the geodesic distance at each sample, and the gaps."""
    placed = np.isfinite(track.lat)
    if int(placed.sum()) < 2:
        return None, []
    t = track.t[placed]
    steps, dt = step_lengths(track.lat[placed], track.lng[placed]), np.diff(t)
    paused = np.diff(_paused_before(t, pauses))
    speed = steps / dt
    is_gap = (dt > GAP_S) | ((paused > 0) & (dt > STILL_S))
    running = speed[~is_gap & (speed > STILL_MPS)]
    usual = float(np.median(running)) if len(running) else FASTEST_MPS
    # What is walked while the timer stands is no run; what a fix wanders there is not even a walk.
    counted = np.where(~is_gap & (paused >= dt - 1e-9), 0.0, steps)
    gaps: list[Gap] = []
    for i in np.flatnonzero(is_gap):
        counts = bool(speed[i] <= USUAL_SHARE * usual)
        if not counts:
            counted[i] = 0.0
        gaps.append(Gap(float(t[i]), float(t[i + 1]), float(steps[i]), counts))
    total = np.concatenate(([0.0], np.cumsum(counted)))
    return np.interp(track.t, t, total), gaps


def _chosen(gps: Floats | None, device: Floats | None) -> tuple[Floats, list[str]]:
    """Return the distance that counts, and what there is to say of it."""
    if device is None or gps is None:
        chosen = gps if device is None else device
        if chosen is None:
            raise InvalidInput("the run has neither places nor a distance")
        return chosen, ["no_places"] if gps is None else []
    a, b = float(gps[-1]), float(device[-1])
    if abs(a - b) <= DISAGREE_SHARE * max(a, b):
        return device, []
    # A device that counted nothing was not counting: its distance is no second opinion.
    return gps, ["distances_differ"] if b > 0 else []
