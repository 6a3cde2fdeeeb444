"""Segments while they are run: when one begins, how one stands against a best time, when it ends.

Each segment near the runner has a filter of its own (see `progress`). A start is said once it is
sure: 30 m along the segment, with the time at which the line was crossed. Who leaves the segment
for longer than a few seconds has no effort, and may begin again. What counts in the end is the
effort found in the whole track (see `segments`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.fixes import Fix, Gate, sigma_m
from causeway.apps.wisp.domain.following import LEAST_STEP_S, LOST_S
from causeway.apps.wisp.domain.odometer import Odometer
from causeway.apps.wisp.domain.progress import Progress
from causeway.apps.wisp.domain.route import Route
from causeway.apps.wisp.domain.segments import CORRIDOR_M, END_M

Kind = Literal["segment_start", "segment_gap", "segment_end"]

#: So far along the segment a start is sure, metres.
SURE_M = 30.0
#: Who has gone back so far (or twice the error of a fix) has turned, metres.
TURNED_M = 15.0
#: Away from the segment for so long an effort is over, seconds.
AWAY_S = 5.0


@dataclass(frozen=True, slots=True)
class SegmentEvent:
    """What there is to say of an effort: seconds on the segment, and behind the best time."""

    kind: Kind
    #: When, in seconds since the start of the race; of a start and an end, of crossing the line.
    t: float
    s: float
    time: float
    #: Positive behind the best; None without one.
    gap_seconds: float | None


class LiveSegment:
    """One segment, for one runner; told every fix of the run, in order."""

    def __init__(self, route: Route, best: Curve | None = None) -> None:
        self._route = route
        self._best = best
        self._gate = Gate()
        self._odometer = Odometer()
        self._progress: Progress | None = None
        self._seen_at = self._near_at = 0.0
        #: When the start was crossed, if it was; and whether that has been said.
        self._started: float | None = None
        self._is_sure = False

    def add(self, fix: Fix) -> SegmentEvent | None:
        """Take in a fix; return what there is to say."""
        if fix.lat is None or fix.lng is None:
            return None
        x, y = self._route.plane.xy(fix.lat, fix.lng)
        if not self._gate.lets(fix.t, x, y, fix.accuracy_m):
            return None
        self._odometer.add(fix.t, x, y)
        sigma = sigma_m(fix.accuracy_m)
        progress = self._progress
        if progress is None:
            self._wait(fix.t, x, y, sigma)
            return None
        dt = fix.t - self._seen_at
        if dt < LEAST_STEP_S:
            return None
        before_s, before_m, before_t = progress.s, progress.mean_m, self._seen_at
        # Longer than that without a fix, nobody knows where he was.
        moving, within = self._odometer.moving_mps, max(CORRIDOR_M, sigma)
        if dt > LOST_S or not progress.step(dt, x, y, sigma, moving, within):
            if fix.t - self._near_at > AWAY_S:
                self._forget()
            return None
        self._seen_at = fix.t
        if progress.s - progress.mean_m > max(TURNED_M, 2 * sigma):
            self._forget()
            return None
        if self._is_near(x, y, progress.mean_m, within):
            self._near_at = fix.t
        elif fix.t - self._near_at > AWAY_S:
            self._forget()
            return None
        if self._started is None and progress.mean_m >= 0:
            part = -before_m / (progress.mean_m - before_m) if before_m < 0 else 0.0
            self._started = before_t + part * dt
        return self._say(fix.t, progress, before_t, before_s)

    def _say(
        self, t: float, progress: Progress, before_t: float, before_s: float
    ) -> SegmentEvent | None:
        if self._started is None or progress.s < SURE_M:
            return None
        length = self._route.length_m
        if progress.s >= length:
            part = (length - before_s) / (progress.s - before_s) if progress.s > before_s else 1.0
            ended = before_t + part * (t - before_t)
            event = self._event("segment_end", ended, length, ended - self._started)
            self._forget()
            return event
        if not self._is_sure:
            self._is_sure = True
            return self._event("segment_start", self._started, 0.0, 0.0)
        return self._event("segment_gap", t, progress.s, t - self._started)

    def _event(self, kind: Kind, t: float, s: float, time: float) -> SegmentEvent:
        gap = None if self._best is None else time - self._best.time_at(s)
        return SegmentEvent(kind, t, s, time, gap)

    def _wait(self, t: float, x: float, y: float, sigma: float) -> None:
        """Begin to follow when the runner comes to the start."""
        if not self._is_near(x, y, 0.0, max(END_M, sigma)):
            return
        progress = Progress(self._route)
        if progress.restart(x, y, sigma, first_m=-END_M - 10, last_m=END_M + 10):
            self._progress = progress
            self._seen_at = self._near_at = t
            if progress.mean_m > 0:
                # Already over the line: it was crossed a moment ago, at the speed of late.
                speed = max(self._odometer.moving_mps, 1.0)
                self._started = t - progress.mean_m / speed

    def _is_near(self, x: float, y: float, s: float, within_m: float) -> bool:
        place = self._route.xy[self._route.cell(s)]
        return math.hypot(x - place[0], y - place[1]) <= within_m

    def _forget(self) -> None:
        self._progress = None
        self._started = None
        self._is_sure = False
