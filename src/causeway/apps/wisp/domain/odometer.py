"""How far and how fast somebody goes, from noisy fixes, without knowing the way.

Summed as they come, fixes that err by 5 m make a runner's way a fifth longer than it is. So the
position is smoothed over a few seconds, and of each smoothed step only what lies along the smoothed
direction counts; below a slow walk nothing does. On synthetic runs with 5 m of noise the length is
then right to about 2 % (4 % on the bends of a track, which smoothing cuts). The device's own
distance, which may come from steps, is believed instead wherever it is sent.
"""

from __future__ import annotations

import math
from collections import deque

from causeway.apps.wisp.domain.geodesy import Plane

#: Seconds over which positions, and then directions, are smoothed.
SMOOTH_POSITION_S = 2.5
SMOOTH_DIRECTION_S = 4.0
#: Below this speed (m/s) smoothed positions move by noise alone.
CREEP_MPS = 0.7
#: Farther than this from its middle a plane is replaced, in metres.
PLANE_M = 10_000.0


class Odometer:
    """Metres covered, from fixes (x, y in metres) or from the device's own counter."""

    __slots__ = (
        "_count",
        "_device_m",
        "_sum_m",
        "_t",
        "_vx",
        "_vy",
        "_x",
        "_y",
        "covered_m",
        "moving_mps",
    )

    def __init__(self) -> None:
        self.covered_m = 0.0
        #: What was covered up to the smoothed position, which lags behind.
        self._sum_m = 0.0
        self._count = 0
        #: How fast the smoothed position moves, whatever its direction, m/s.
        self.moving_mps = 0.0
        self._t: float | None = None
        self._x = self._y = self._vx = self._vy = 0.0
        self._device_m: float | None = None

    @property
    def place(self) -> tuple[float, float]:
        """The smoothed position."""
        return self._x, self._y

    def add(self, t: float, x: float, y: float, device_m: float | None = None) -> None:
        """Take in a fix, and the device's counter if it sent it."""
        has_counted = self._read_counter(device_m)
        if self._t is None:
            self._t, self._x, self._y = t, x, y
            return
        dt = t - self._t
        if dt <= 0:
            return
        share = 1 - math.exp(-dt / SMOOTH_POSITION_S)
        dx, dy = share * (x - self._x), share * (y - self._y)
        # The first fixes weigh more, so that the velocity does not have to rise from nothing.
        self._count += 1
        share = max(1 - math.exp(-dt / SMOOTH_DIRECTION_S), 1 / self._count)
        self._vx += share * (dx / dt - self._vx)
        self._vy += share * (dy / dt - self._vy)
        self.moving_mps += share * (math.hypot(dx, dy) / dt - self.moving_mps)
        self._t, self._x, self._y = t, self._x + dx, self._y + dy
        if has_counted:
            return
        speed = math.hypot(self._vx, self._vy)
        if speed > CREEP_MPS:
            self._sum_m += max(0.0, (dx * self._vx + dy * self._vy) / speed)
            lag_m = min(self._count, SMOOTH_POSITION_S) * speed
            self.covered_m = max(self.covered_m, self._sum_m + lag_m)

    def add_distance(self, t: float, device_m: float) -> None:
        """Take in the device's counter alone: no fix, in a tunnel or on a treadmill."""
        self._read_counter(device_m)
        self._t = t if self._t is None else self._t

    def relocate(self, t: float, x: float, y: float) -> None:
        """Go on from another place, without having covered the way there."""
        self._t, self._x, self._y = t, x, y

    def _read_counter(self, device_m: float | None) -> bool:
        """Add what the device counted since it last said; False when it does not say."""
        before, self._device_m = self._device_m, device_m
        if device_m is None or before is None:
            return False
        # A counter that falls has started again.
        self.covered_m += device_m - before if device_m >= before else device_m
        self._sum_m = self.covered_m
        return True


class Stillness:
    """Whether a runner pauses: under 0.5 m/s over 8 s, and again not: over 0.9 m/s over 4 s."""

    STOP_MPS, STOP_S = 0.5, 8.0
    GO_MPS, GO_S = 0.9, 4.0

    __slots__ = ("_seen", "paused_s", "since")

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, float, float]] = deque()
        #: When the pause began, in seconds; None while running.
        self.since: float | None = None
        #: Seconds of the pauses that are over.
        self.paused_s = 0.0

    def add(self, t: float, x: float, y: float, covered_m: float) -> None:
        """Take in where a runner is (smoothed) and what was covered."""
        seen = self._seen
        seen.append((t, x, y, covered_m))
        while len(seen) > 2 and t - seen[1][0] >= self.STOP_S:
            seen.popleft()
        if self.since is None:
            if t - seen[0][0] >= self.STOP_S and self._speed(seen[0]) < self.STOP_MPS:
                self.since = seen[0][0]
            return
        start = next((one for one in reversed(seen) if t - one[0] >= self.GO_S), None)
        if start is not None and self._speed(start) > self.GO_MPS:
            self.paused_s += max(0.0, start[0] - self.since)
            self.since = None
            # What was seen before belongs to the pause: it does not start a new one.
            while seen and seen[0] is not start:
                seen.popleft()

    def _speed(self, start: tuple[float, float, float, float]) -> float:
        t, x, y, covered_m = self._seen[-1]
        # A device that counts steps knows better than fixes; on a treadmill there are no others.
        moved = max(math.hypot(x - start[1], y - start[2]), covered_m - start[3])
        return moved / (t - start[0])


class MovingPlane:
    """A plane in metres that follows a runner, with one origin: for runs of any length."""

    __slots__ = ("_east", "_north", "_plane")

    def __init__(self, lat: float, lng: float) -> None:
        self._plane = Plane.at(lat, lng)
        self._east = self._north = 0.0

    def xy(self, lat: float, lng: float) -> tuple[float, float]:
        """Return a point in metres from the origin."""
        x, y = self._plane.xy(lat, lng)
        if abs(x) > PLANE_M or abs(y) > PLANE_M:
            self._east += x
            self._north += y
            self._plane = Plane.at(lat, lng)
            x = y = 0.0
        return self._east + x, self._north + y
