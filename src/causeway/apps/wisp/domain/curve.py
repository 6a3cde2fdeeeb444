"""When a ghost was where: time over distance, and its inverse.

A curve is a length `S` and a non-decreasing function tau(s), the time at which the ghost *first*
reached s, straight between its samples. Its inverse sigma(t) is where the ghost is at a time:
constant while it stood, `S` after its end. Lookups of single values go through `bisect` on lists,
which is ten times faster than numpy for one number; a race makes a handful at every fix.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from shapely import LineString

from causeway.base.errors import Field, InvalidInput

Floats = NDArray[np.float64]

#: What a goal's splits may differ from its duration, in seconds.
GOAL_TOLERANCE_S = 1.0


@dataclass(frozen=True)
class Curve:
    """Samples of distance (metres) and time (seconds), both from 0 and never falling."""

    s: Floats
    t: Floats
    _s: list[float] = field(init=False, repr=False, compare=False)
    _t: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.s) != len(self.t) or len(self.s) < 2:
            raise ValueError("a curve has two or more samples of distance and as many of time")
        if np.any(np.diff(self.s) < 0) or np.any(np.diff(self.t) < 0):
            raise ValueError("neither distance nor time of a curve ever falls")
        if not self.s[-1] > self.s[0] == 0:
            raise ValueError("a curve begins at 0 m and has a length")
        object.__setattr__(self, "_s", self.s.tolist())
        object.__setattr__(self, "_t", self.t.tolist())

    @cached_property
    def length_m(self) -> float:
        """The length S in metres."""
        return self._s[-1]

    @cached_property
    def duration_s(self) -> float:
        """When S is first reached, in seconds."""
        return self.time_at(self._s[-1])

    def time_at(self, s: float) -> float:
        """Return tau(s), seconds; before 0 the first time, after S the time of S."""
        distances = self._s
        right = bisect_left(distances, s)
        if right == 0:
            return self._t[0]
        if right == len(distances):
            return self.time_at(distances[-1])
        s1 = distances[right]
        if s == s1:
            return self._t[right]
        s0, t0 = distances[right - 1], self._t[right - 1]
        return t0 + (self._t[right] - t0) * (s - s0) / (s1 - s0)

    def distance_at(self, t: float) -> float:
        """Return sigma(t), metres."""
        times = self._t
        right = bisect_right(times, t)
        if right == 0:
            return self._s[0]
        if right == len(times):
            return self._s[-1]
        t0, t1 = times[right - 1], times[right]
        s0 = self._s[right - 1]
        return s0 + (self._s[right] - s0) * (t - t0) / (t1 - t0)

    def part(self, start_m: float, end_m: float) -> Curve:
        """Return the stretch between two distances as a curve of its own, from 0 m and 0 s.

        Raises InvalidInput when there is no such stretch.
        """
        if not 0 <= start_m < end_m <= self.length_m + 1e-6:
            raise InvalidInput(
                fields=[
                    Field(
                        "start_m, end_m",
                        f"{start_m}, {end_m}",
                        f"0 <= start_m < end_m <= {self.length_m:.1f}",
                    )
                ]
            )
        end_m = min(end_m, self.length_m)
        inside = (self.s > start_m) & (self.s < end_m)
        # A stand at the start mark belongs to the stretch before it: the clock starts on leaving.
        left = bisect_right(self._s, start_m)
        begin = self._t[left - 1] if self._s[left - 1] == start_m else self.time_at(start_m)
        s = np.concatenate(([start_m], self.s[inside], [end_m])) - start_m
        t = np.concatenate(([begin], self.t[inside], [self.time_at(end_m)])) - begin
        return Curve(s, t)

    def reduced(self, most: int = 1000) -> Curve:
        """Return a curve of at most so many samples that stays as near to this one as it can."""
        scale = self.length_m / max(self.duration_s, 1.0)
        line = LineString(np.column_stack((self.s, self.t * scale)))
        tolerance_m = 0.1
        kept = np.column_stack((self.s, self.t * scale))
        while len(kept) > most:
            kept = np.asarray(line.simplify(tolerance_m, preserve_topology=False).coords)
            tolerance_m *= 1.5
        return Curve(kept[:, 0].copy(), kept[:, 1] / scale)

    @classmethod
    def recorded(cls, s: Floats, t: Floats) -> Curve:
        """Return the curve of recorded progress: s may jitter, times may start anywhere."""
        rising = np.maximum.accumulate(s - s[0])
        return cls(rising, t - t[0])

    @classmethod
    def even(cls, length_m: float, duration_s: float) -> Curve:
        """Return the curve of a constant pace.

        Raises InvalidInput for a length or a time that is not positive.
        """
        for name, value in (("target_distance", length_m), ("target_duration", duration_s)):
            if not value > 0:
                raise InvalidInput(fields=[Field(name, str(value), "a number above 0")])
        return cls(np.array([0.0, length_m]), np.array([0.0, duration_s]))

    @classmethod
    def goal(
        cls,
        length_m: float,
        duration_s: float,
        splits: Sequence[tuple[float, float]] = (),
        *,
        normalise: bool = False,
    ) -> Curve:
        """Return the curve of a goal with splits (mark in metres, pace in s/km up to it).

        With `normalise` the paces are scaled to the duration. Raises InvalidInput for marks that
        do not rise or do not end at the length, and for paces that add up to another duration.
        """
        even = cls.even(length_m, duration_s)
        if not splits:
            return even
        marks = np.array([0.0, *(mark for mark, _ in splits)])
        paces = np.array([pace for _, pace in splits])
        wrong: list[Field] = []
        for i in range(len(splits)):
            if not marks[i + 1] > marks[i]:
                allowed = f"above the mark before it ({marks[i]:g})"
                wrong.append(Field(f"custom_splits[{i}].distance", f"{marks[i + 1]:g}", allowed))
            if not paces[i] > 0:
                allowed = "a pace above 0"
                wrong.append(Field(f"custom_splits[{i}].target_pace", f"{paces[i]:g}", allowed))
        if not wrong and abs(marks[-1] - length_m) > 0.01:
            allowed = f"target_distance, {length_m:g}"
            last = len(splits) - 1
            wrong.append(Field(f"custom_splits[{last}].distance", f"{marks[-1]:g}", allowed))
        if wrong:
            raise InvalidInput(fields=wrong)
        times = np.concatenate(([0.0], np.cumsum(np.diff(marks) * paces / 1000.0)))
        total = float(times[-1])
        if normalise:
            times *= duration_s / total
        elif abs(total - duration_s) > GOAL_TOLERANCE_S:
            least, most = duration_s - GOAL_TOLERANCE_S, duration_s + GOAL_TOLERANCE_S
            raise InvalidInput(
                f"custom_splits add up to {total:g} s, target_duration is {duration_s:g} s",
                fields=[Field("custom_splits", f"{total:g}", f"{least:g}..{most:g}")],
                hint="Correct the paces, or ask for normalise to scale them.",
            )
        marks[-1] = length_m
        return cls(marks, times)
