"""All that is derived from one run, in one go: what a stored run has beside what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain import lines
from causeway.apps.wisp.domain.clean import Run
from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.elevation import Climb, Kind, Profile, climb, profile
from causeway.apps.wisp.domain.geodesy import Bounds, bounds
from causeway.apps.wisp.domain.grade import adjusted_pace, flat_metres
from causeway.apps.wisp.domain.splits import Effort, best_efforts, splits
from causeway.apps.wisp.domain.trend import impossible

Floats = NDArray[np.float64]

KILOMETRE_M = 1000.0
#: A stated pace that differs from the run's by more than this share is wrong.
PACE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class PaceSplit:
    """A stretch up to a mark, pauses not counted: metres, seconds, s/km."""

    distance: float
    time: float
    pace: float
    #: Metres up, less metres down; None where altitudes are not known.
    elevation_change: float | None
    #: The pace on the flat that would have been as hard.
    gap_pace: float | None


@dataclass(frozen=True)
class Analysis:
    """What is derived from a run; None for what its samples do not say."""

    distance_m: float
    moving_time_s: float
    elapsed_s: float
    #: Seconds a kilometre and metres a second, pauses not counted; None without a distance.
    average_pace: float | None
    average_speed: float | None
    #: The pace on the flat that would have been as hard.
    adjusted_pace: float | None
    average_heart_rate: float | None
    max_heart_rate: float | None
    average_cadence: float | None
    climb: Climb | None
    start: tuple[float, float] | None
    end: tuple[float, float] | None
    bounds: Bounds | None
    encoded_polyline: str
    pace_splits: tuple[PaceSplit, ...]
    #: Pauses counted.
    best_efforts: tuple[Effort, ...]
    #: Those of the run, and `faster_than_records` for what was not run on foot.
    flags: tuple[str, ...]


def analyse(run: Run, unit_m: float = KILOMETRE_M) -> Analysis:
    """Return what is derived from a cleaned run, with splits of so many metres."""
    track = run.track
    kind: Kind = "barometric" if track.is_barometric else "gps"
    heights = profile(run.s, track.elevation_m, kind)
    flat = flat_metres(heights)
    placed = np.flatnonzero(np.isfinite(track.lat))
    lat, lng = track.lat[placed], track.lng[placed]
    efforts = best_efforts(run.s, run.t, run.gaps)
    flags = (*run.flags, "faster_than_records") if impossible(efforts) else run.flags
    pace = run.moving_time_s / run.distance_m * 1000.0 if run.distance_m > 0 else None
    moving = np.diff(run.moving_s, append=run.moving_s[-1:])
    has_places = len(placed) > 0
    return Analysis(
        distance_m=run.distance_m,
        moving_time_s=run.moving_time_s,
        elapsed_s=run.elapsed_s,
        average_pace=pace,
        average_speed=1000.0 / pace if pace else None,
        adjusted_pace=(
            adjusted_pace(run.moving_time_s, 0.0, run.distance_m, flat) if flat else None
        ),
        average_heart_rate=_mean(track.heart_rate, moving),
        max_heart_rate=_most(track.heart_rate),
        # Standing has no steps: it says nothing of how somebody runs.
        average_cadence=_mean(np.where(track.cadence > 0, track.cadence, np.nan), moving),
        climb=climb(heights, kind),
        start=(float(lat[0]), float(lng[0])) if has_places else None,
        end=(float(lat[-1]), float(lng[-1])) if has_places else None,
        bounds=bounds(lat, lng) if has_places else None,
        encoded_polyline=lines.encode(lat, lng),
        pace_splits=tuple(_pace_splits(run, unit_m, heights, flat)),
        best_efforts=tuple(efforts),
        flags=flags,
    )


def _pace_splits(run: Run, unit_m: float, heights: Profile, flat: Curve | None) -> list[PaceSplit]:
    """Return the splits on the moving clock, whose times add up to the moving time."""
    known = np.isfinite(heights.altitude_m)
    found: list[PaceSplit] = []
    start = 0.0
    if run.distance_m <= 0:
        return found
    for split in splits(run.s, run.moving_s, unit_m):
        change = adjusted = None
        if flat is not None:
            ends = np.interp(
                [start, split.distance], heights.s[known], heights.altitude_m[known]
            ).tolist()
            change = ends[1] - ends[0]
            adjusted = adjusted_pace(split.time, start, split.distance, flat)
        found.append(PaceSplit(split.distance, split.time, split.pace, change, adjusted))
        start = split.distance
    return found


def _mean(values: Floats, weights: Floats) -> float | None:
    """Return the mean over moving time; None without values in it."""
    known = np.isfinite(values) & (weights > 0)
    if not known.any():
        return None
    return float(np.average(values[known], weights=weights[known]))


def _most(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else None


def heart_rates(run: Run, every_s: float = 60.0) -> list[tuple[float, float]]:
    """Return the mean heart rate of each stretch of time, by the end of it in seconds."""
    rates, t = run.track.heart_rate, run.t
    known = np.isfinite(rates)
    if not known.any():
        return []
    slots = np.ceil(t[known] / every_s).astype(np.intp)
    slots = np.maximum(slots, 1)
    sums, counts = np.bincount(slots, rates[known]), np.bincount(slots)
    return [(float(i * every_s), float(sums[i] / counts[i])) for i in np.flatnonzero(counts)]


def corrected_pace(stated: float, distance_m: float, moving_time_s: float) -> float | None:
    """Return the pace (s/km) a run really has when the stated one is off by over 1 %, else None."""
    pace = moving_time_s / distance_m * 1000.0
    return pace if abs(stated - pace) > PACE_SHARE * pace else None


def average_pace(runs: Sequence[tuple[float, float]]) -> float | None:
    """Return the pace of several runs (metres, moving seconds) together, s/km.

    The sum of times over the sum of distances; the mean of paces would let short runs weigh more.
    """
    metres = sum(one for one, _ in runs)
    return sum(seconds for _, seconds in runs) / metres * 1000.0 if metres > 0 else None
