"""Splits of a run, and the fastest stretches in it.

Times are looked up by distance, straight between samples; where the runner stood there are two
times at one distance, and a stretch begins with the later and ends with the earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.clean import Gap

Floats = NDArray[np.float64]

#: Distances that records are kept for, metres: to the marathon.
RECORD_DISTANCES_M = (400.0, 1000.0, 1609.344, 5000.0, 10000.0, 21097.5, 42195.0)


def times_at(s: Floats, t: Floats, distances: Floats, *, last: bool = False) -> Floats:
    """Return when distances were first reached, or last left, seconds.

    `s` and `t` never fall; distances outside of them have the first and the last time. For sorted
    distances numpy's search goes on from where it was, so this is linear.
    """
    side = "right" if last else "left"
    right = np.clip(np.searchsorted(s, distances, side=side), 1, len(s) - 1)
    s0, s1 = s[right - 1], s[right]
    width = np.where(s1 > s0, s1 - s0, 1.0)
    part = np.clip((distances - s0) / width, 0.0, 1.0)
    return t[right - 1] + part * (t[right] - t[right - 1])


@dataclass(frozen=True, slots=True)
class Split:
    """A stretch up to a mark: metres, seconds, seconds a kilometre."""

    distance: float
    length_m: float
    time: float
    pace: float


def splits(s: Floats, t: Floats, unit_m: float = 1000.0) -> list[Split]:
    """Return the stretches of so many metres, and what is left over if it is a metre or more.

    Their times add up to that of the whole run.
    """
    if not unit_m > 0:
        raise ValueError("a split has a length")
    length = float(s[-1] - s[0])
    count = int(length / unit_m + 1e-9)
    marks: Floats = unit_m * np.arange(1, count + 1, dtype=np.float64)
    if length - unit_m * count >= 1.0 or not count:
        marks = np.append(marks, length)
    times = times_at(s - s[0], t - t[0], marks)
    # Whoever stands at the end stands in the last stretch.
    times[-1] = t[-1] - t[0]
    lengths = np.diff(np.concatenate(([0.0], marks)))
    spent = np.diff(np.concatenate(([0.0], times)))
    return [
        Split(float(mark), float(metres), float(time), float(time / metres * 1000.0))
        for mark, metres, time in zip(marks, lengths, spent, strict=True)
        if metres > 0
    ]


@dataclass(frozen=True, slots=True)
class Effort:
    """The fastest stretch of a length: seconds, and where it begins in metres and seconds."""

    distance: float
    time: float
    start_m: float
    start_s: float
    #: Whether it spans more than 30 s in which the device recorded no distance.
    spans_gap: bool = False


def best_effort(s: Floats, t: Floats, metres: float, gaps: Sequence[Gap] = ()) -> Effort | None:
    """Return the fastest stretch of so many metres in a run; None if the run is shorter.

    Pauses count. The time of a stretch is straight between those that begin or end at a sample, so
    the fastest is one of those.
    """
    if not metres > 0 or s[-1] - s[0] < metres - 1e-6:
        return None
    ends = s - metres
    starts = np.concatenate((s[s <= ends[-1] + 1e-6], ends[ends >= s[0] - 1e-6]))
    starts = np.clip(np.sort(starts, kind="stable"), s[0], s[-1] - metres)
    begins = times_at(s, t, starts, last=True)
    spent = times_at(s, t, starts + metres) - begins
    best = int(np.argmin(spent))
    start_s, time = float(begins[best]), float(spent[best])
    spans = any(
        not gap.counts and gap.start_s < start_s + time and gap.end_s > start_s for gap in gaps
    )
    return Effort(metres, time, float(starts[best] - s[0]), start_s, spans)


def best_efforts(
    s: Floats,
    t: Floats,
    gaps: Sequence[Gap] = (),
    distances_m: Sequence[float] = RECORD_DISTANCES_M,
) -> list[Effort]:
    """Return the fastest stretch of each distance that the run is long enough for."""
    found = (best_effort(s, t, metres, gaps) for metres in distances_m)
    return [one for one in found if one is not None]
