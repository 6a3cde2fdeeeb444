"""How far along the ghost's route a runner is: a Bayes filter in one dimension.

By the nearest point one is lost wherever the route meets itself: on laps, out and back, in a
figure of eight. The filter remembers instead. Its belief is a histogram over cells of the route
near where the runner was, once for a runner who runs and once for one who stands (so that a stop
costs one change of mind, not a fight against the speed of late at each fix). A fix moves the
runner's cells on by that speed with a spread, and a little by anything up to 12 m/s; then each
cell is weighed by how well it fits the fix: a Gaussian with a floor for outliers. After Thrun,
Burgard and Fox, *Probabilistic Robotics* (2005), chapter 8, on a line instead of a plane.

What a fix costs does not depend on the length of the route: the belief covers `WINDOW` cells. The
constants were chosen on synthetic runs (tests/wisp_tracks.py), with noise that is white, that
lasts 10 s and that lasts 30 s, at an even pace, at a changing one, and with pauses.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.fixes import FASTEST_MPS
from causeway.apps.wisp.domain.route import LEAD_M, STEP_M, Route

Floats = NDArray[np.float64]

#: No speed of late is believed above or below these, in m/s.
FASTEST_PACE_MPS, SLOWEST_PACE_MPS = 8.0, 0.8
#: The speed that is expected of somebody of whom nothing is known.
USUAL_MPS = 2.5
#: How much the speed may differ from that of late, and how fast that learns (share a fix).
SPREAD_MPS = 1.0
LEARNING = 0.02
#: The chance within a second to stop and to start again; of a fix, to move at any speed.
STOPPING, STARTING, ANY_SPEED = 0.02, 0.1, 0.01
#: A fix weighs at least this much anywhere, relative to the best place for it.
FLOOR = 1e-4
#: Fixes err alike for some seconds, so each is weighed as this share of an independent one.
INDEPENDENCE = 0.5
#: Smoothed fixes that move at this share of the speed of late speak neither for running nor for
#: standing; each m/s more or less weighs a nat a second, up to three.
MIDDLE_SHARE, MOST_SEEN_MPS = 0.5, 3.0
#: Cells of belief kept on each side of the most likely one; 300 m together.
SIDE = 75
WINDOW = 2 * SIDE
#: Cells within which the mean around the most likely one is taken, and so is the confidence.
AROUND = round(15.0 / STEP_M)
#: Cells that the spread of a standing runner's motion may go back.
_BACK = 3
#: Kernels are kept for speeds and spreads in these parts of a cell.
_PARTS = 32


@lru_cache(4096)
def _kernel(shift: int, spread: int, top: int) -> Floats:
    """Return the chance to move by -_BACK..top cells; shift and spread in parts of a cell."""
    edges = np.arange(-_BACK, top + 2) - 0.5
    scale = math.sqrt(2) * max(spread / _PARTS, 0.15)
    below = np.array([math.erf((edge - shift / _PARTS) / scale) for edge in edges])
    chance = np.diff(below)
    chance *= (1 - ANY_SPEED) / chance.sum()
    chance[_BACK:] += ANY_SPEED / (top + 1)
    return chance


@lru_cache(4096)
def _changes(tenths: int) -> Floats:
    """Return the chances to go on and to stop, within so many tenths of a second."""
    stopping = 1 - (1 - STOPPING) ** (tenths / 10)
    starting = 1 - (1 - STARTING) ** (tenths / 10)
    return np.array([[1 - stopping, starting], [stopping, 1 - starting]])


class Progress:
    """The belief where on a route a runner is, and what is published of it.

    `s` never falls and may pass the route's length by a few metres; `mean_m` is where the runner
    seems to be now. Both are metres along the route. `confidence` is the chance to be within 15 m.
    """

    __slots__ = (
        "_at",
        "_belief",
        "_low",
        "_route",
        "confidence",
        "mean_m",
        "s",
        "speed_mps",
        "standing",
    )

    def __init__(self, route: Route) -> None:
        self._route = route
        #: Two rows, running and standing; the first column is the grid's cell `_low`.
        self._belief = np.full((2, 1), 0.5)
        self._low = round(LEAD_M / STEP_M)
        self._at = np.ones(3)
        self.s = 0.0
        self.mean_m = 0.0
        self.confidence = 0.0
        self.speed_mps = USUAL_MPS
        #: The chance that the runner stands.
        self.standing = 0.5

    def restart(
        self,
        x: float,
        y: float,
        sigma_m: float,
        *,
        first_m: float,
        last_m: float,
        expected_m: float | None = None,
        spread_m: float = 0.0,
        within_m: float = math.inf,
    ) -> bool:
        """Look for the runner anew between two places of the route.

        `expected_m` and `spread_m` say where he is likelier to be. Returns False, and changes
        nothing, when no place there is within `within_m` of the fix.
        """
        cells = len(self._route.terms)
        low = min(max(math.ceil((first_m + LEAD_M) / STEP_M), 0), cells - 1)
        high = min(max(math.floor((last_m + LEAD_M) / STEP_M) + 1, low + 1), cells)
        log_fit = self._log_fit(low, high, x, y, sigma_m)
        best = float(log_fit.max())
        if best < -within_m * within_m / (2 * sigma_m * sigma_m):
            return False
        # No floor: the fix is all there is, and one end of the stretch may be the best there is.
        fit = np.exp(INDEPENDENCE * (log_fit - best))
        if expected_m is not None:
            off = (np.arange(low, high) * STEP_M - LEAD_M - expected_m) / spread_m
            fit *= np.exp(-0.5 * off * off) + 0.02
        self._low = low
        self._belief = np.vstack((fit * 0.5, fit * 0.5))
        self._publish()
        return True

    def step(
        self,
        dt: float,
        x: float,
        y: float,
        sigma_m: float,
        moving_mps: float,
        within_m: float = math.inf,
    ) -> bool:
        """Take in a fix `dt` seconds after the one before, at x, y of the route's plane.

        `moving_mps` is how fast the smoothed fixes move, whatever their direction.

        Returns False, and changes nothing, when no believed place is within `within_m` of it.
        """
        # Where the belief can be after dt: its own cells, a few before, those that can be reached.
        top = math.ceil(FASTEST_MPS * dt / STEP_M)
        width = self._belief.shape[1]
        low, high = self._low - _BACK, self._low + width + top
        cut = -low if low < 0 else 0
        cells = len(self._route.terms)
        over = high - cells if high > cells else 0
        fit = self._log_fit(low + cut, high - over, x, y, sigma_m)
        if float(fit.max()) < -within_m * within_m / (2 * sigma_m * sigma_m):
            return False
        changed = _changes(round(dt * 10)) @ self._belief
        moves = _kernel(
            round(self.speed_mps * dt / STEP_M * _PARTS),
            round(SPREAD_MPS * dt / STEP_M * _PARTS),
            top,
        )
        belief = np.zeros((2, high - low))
        belief[0] = np.convolve(changed[0], moves)
        belief[1, _BACK : _BACK + width] = changed[1]
        if cut or over:
            belief = belief[:, cut : high - low - over]
        # Ten fixes of one second know no more than one.
        part = min(dt, 1.0)
        fit *= INDEPENDENCE * part
        np.exp(fit, fit)
        fit += FLOOR
        belief *= fit
        # A turning point looks like a stop to the filter: what is seen to move does not stand.
        seen = moving_mps - MIDDLE_SHARE * self.speed_mps
        belief[0] *= math.exp(part * max(-MOST_SEEN_MPS, min(seen, MOST_SEEN_MPS)))
        self._belief = belief
        self._low = low + cut
        expected = self.mean_m + self.speed_mps * dt * (1 - self.standing)
        self._publish()
        surprise_mps = (1 - self.standing) * (self.mean_m - expected) / max(dt, 1.0)
        speed = self.speed_mps + LEARNING * surprise_mps
        self.speed_mps = min(max(speed, SLOWEST_PACE_MPS), FASTEST_PACE_MPS)
        return True

    def _log_fit(self, low: int, high: int, x: float, y: float, sigma_m: float) -> Floats:
        """Return -d^2 / 2 sigma^2 of the cells, where d is their distance to the fix."""
        scale = -0.5 / (sigma_m * sigma_m)
        at = self._at
        at[0], at[1], at[2] = x * scale, y * scale, scale
        found = self._route.terms[low:high] @ at
        found += scale * (x * x + y * y)
        return found

    def _publish(self) -> None:
        """Normalise the belief, read the place off it and cut it to its window."""
        belief = self._belief
        total = belief[0] + belief[1]
        weight = float(np.add.reduce(total))
        if not weight > 0:
            # Every cell was a corner that the window cut off: all that is left are equal chances.
            belief[:] = 1.0
            total[:] = 2.0
            weight = 2.0 * len(total)
        mode = int(total.argmax())
        left = mode - AROUND if mode > AROUND else 0
        near = total[left : mode + AROUND + 1]
        mass = float(np.add.reduce(near))
        self.mean_m = (
            self._low + left + float(near @ _INDEX[: len(near)]) / mass
        ) * STEP_M - LEAD_M
        self.confidence = mass / weight
        belief *= 1 / weight
        self.standing = float(np.add.reduce(belief[1]))
        if mode > SIDE:
            belief = belief[:, mode - SIDE :]
            self._low += mode - SIDE
        if belief.shape[1] > WINDOW:
            belief = belief[:, :WINDOW]
        self._belief = belief
        if self.mean_m > self.s:
            self.s = self.mean_m


_INDEX = np.arange(2 * AROUND + 2, dtype=np.float64)
