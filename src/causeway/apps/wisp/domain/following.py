"""From fixes to progress on the ghost's route: what is believed of the way a runner takes.

A runner who is farther from where he can be than 35 m (or three times the accuracy) is looked for
ahead, but only as far as he can have got: 1.1 times what he really covered since he left, and 50 m.
After 20 s he is off the route. What he has skipped on return is `shortcut_m`, and so is what he
gains on what he covered without being far from the route, as over a hairpin.
"""

from __future__ import annotations

import math
from collections import deque
from operator import itemgetter

from causeway.apps.wisp.domain.fixes import FASTEST_MPS
from causeway.apps.wisp.domain.odometer import Odometer
from causeway.apps.wisp.domain.progress import Progress
from causeway.apps.wisp.domain.route import Route

#: Farther than this, or three times the accuracy, is off the route; for so long, seconds.
OFF_ROUTE_M, OFF_ROUTE_S = 35.0, 20.0
#: Farther than this (or three times the error) from where the runner is believed to be a fix does
#: not fit; after so many seconds of such fixes he is looked for anew.
MISFIT_M, MISFIT_S = 20.0, 5.0
#: A runner may start within this distance of the line, or three times the accuracy, metres.
START_M = 50.0
#: Fixes that come sooner after another bring nothing new, for they err alike.
LEAST_STEP_S = 0.5
#: Without a fix for longer than this the signal is lost, seconds.
LOST_S = 10.0
#: On return one may have advanced so much of what was covered, plus so many metres.
REJOIN_SHARE, REJOIN_M = 1.1, 50.0
#: A fix is at the finish within this distance, or its error.
FINISH_FIX_M = 20.0
#: Less than this is not skipped but badly seen, metres.
SKIPPED_M = 20.0
#: What progress gains on what was covered is looked at over so long, every so often, seconds.
LEADS_KEPT_S, LEADS_EVERY_S = 60.0, 5.0
#: After so many metres it is known which way somebody runs.
AGAINST_M = 30.0
#: How far back a runner is still found to have walked, metres.
WALKED_BACK_M = 1000.0


class Follower:
    """Where on the route a runner is, fix by fix; what he covered is the odometer's.

    Times are seconds since the start of the race, places metres in the route's plane.
    """

    __slots__ = (
        "_covered_at",
        "_first",
        "_leads",
        "_left",
        "_misfit_since",
        "_reckoned_m",
        "_seen_at",
        "_sigma",
        "_xy",
        "begun",
        "odometer",
        "off_since",
        "progress",
        "route",
        "shortcut_m",
    )

    def __init__(self, route: Route, odometer: Odometer) -> None:
        self.route = route
        self.odometer = odometer
        self.progress = Progress(route)
        self._first: tuple[float, float] | None = None
        self._xy, self._sigma = (math.inf, math.inf), 0.0
        #: When the filter last took a fix in, and what was covered then.
        self._seen_at = self._covered_at = 0.0
        #: What the device counted since, without a fix.
        self._reckoned_m = 0.0
        #: Times and by how much progress led what was covered, over the last minute.
        self._leads: deque[tuple[float, float]] = deque()
        #: Progress and metres covered when the runner left where he was believed to be.
        self._left: tuple[float, float] | None = None
        #: Since when fixes have not been where the runner is believed to be.
        self._misfit_since: float | None = None
        self.begun = False
        #: When the runner went too far from the route; None while on it.
        self.off_since: float | None = None
        self.shortcut_m = 0.0

    @property
    def s(self) -> float:
        """Progress, metres; dead reckoning may be taken back, so the race keeps the largest."""
        return self.progress.s + self._reckoned_m

    @property
    def confidence(self) -> float:
        """The chance to be within 15 m of where the filter says; 0 away from the route."""
        return self.progress.confidence if self._left is None and self.begun else 0.0

    @property
    def left_covered_m(self) -> float:
        """What had been covered when the runner was last on the route, metres."""
        return self._covered_at if self._left is None else self._left[1]

    @property
    def is_at_end(self) -> bool:
        """Whether the last fix is at the end of the route, as far as it can tell."""
        end = self.route.xy[self.route.cell(self.route.length_m)]
        apart = math.hypot(self._xy[0] - end[0], self._xy[1] - end[1])
        return apart <= max(FINISH_FIX_M, self._sigma)

    def skip_to_end(self) -> bool:
        """Take a runner who is at the end of the route by another way as having skipped the rest.

        False when he is not, or when the route ends where it starts: there he may just be back.
        """
        start, end = (self.route.cell(s) for s in (0.0, self.route.length_m))
        apart = math.hypot(*(self.route.xy[end] - self.route.xy[start]))
        if self._left is None or not self.is_at_end or apart <= 2 * START_M:
            return False
        left_s, left_covered = self._left
        skipped = (self.route.length_m - left_s) * self.route.evenness
        self.shortcut_m += max(0.0, skipped - (self.odometer.covered_m - left_covered))
        self._left = self.off_since = None
        return True

    def is_off_route(self, t: float) -> bool:
        """Tell whether the runner has been too far from the route for long enough."""
        return self.off_since is not None and t - self.off_since >= OFF_ROUTE_S

    def is_near_start(self, x: float, y: float, accuracy_m: float | None) -> bool:
        """Tell whether a race can begin here."""
        start = self.route.xy[self.route.cell(0.0)]
        return math.hypot(x - start[0], y - start[1]) <= max(START_M, 3 * (accuracy_m or 0.0))

    def runs_against(self) -> bool | None:
        """Tell whether the runner goes the other way; None while that cannot be known."""
        if self._first is None or self.odometer.covered_m < AGAINST_M:
            return None
        x, y = self.odometer.place
        grid, cell = self.route.xy, self.route.cell
        ahead = grid[cell(min(60.0, self.route.length_m))] - grid[cell(0.0)]
        moved = (x - self._first[0]) * ahead[0] + (y - self._first[1]) * ahead[1]
        return float(moved) < -AGAINST_M / 2 * math.hypot(ahead[0], ahead[1])

    def leave(self) -> None:
        """The runner is no longer where he was believed to be, or pauses."""
        if self._left is None and self.begun:
            self._left = (self.progress.s, self.odometer.covered_m)

    def forget_covered(self) -> None:
        """What was covered since leaving does not count: it was done while the clock stood."""
        if self._left is not None:
            self._left = (self._left[0], self.odometer.covered_m)

    def count(self) -> None:
        """Reckon on by what the device counted, without a fix."""
        if self._left is None and self.begun:
            self._reckoned_m = self.odometer.covered_m - self._covered_at

    def add(self, t: float, x: float, y: float, sigma: float, *, has_counter: bool) -> None:
        """Take in a fix that the odometer has taken in, and which may err by sigma."""
        self._xy, self._sigma = (x, y), sigma
        if self._first is None:
            self._first = (x, y)
        if not self.begun:
            self._begin(t, x, y, sigma)
            return
        within = max(OFF_ROUTE_M, 3 * sigma)
        if self._left is None:
            dt = t - self._seen_at
            if dt < LEAST_STEP_S:
                return
            if dt <= LOST_S:
                found = self.progress.step(dt, x, y, sigma, self.odometer.moving_mps, within)
            else:
                found = self._find_after_silence(dt, x, y, sigma, within, has_counter)
                self._leads.clear()
            if found and self._fits(t, x, y, sigma):
                self._saw(t, sigma)
                return
            self.leave()
        if self._left is not None:
            self._return(t, x, y, sigma, within, *self._left)

    def _fits(self, t: float, x: float, y: float, sigma: float) -> bool:
        """Tell whether fixes have been near to where the runner is believed to be, of late."""
        route = self.route
        place = route.xy[route.cell(self.progress.mean_m)]
        if math.hypot(x - place[0], y - place[1]) <= max(MISFIT_M, 3 * sigma):
            self._misfit_since = None
            return True
        if self._misfit_since is None:
            self._misfit_since = t
        return t - self._misfit_since < MISFIT_S

    def _saw(self, t: float, sigma: float) -> None:
        """Note that the runner was found, and what he gained on what he covered."""
        self._seen_at = t
        self._reckoned_m = 0.0
        covered = self._covered_at = self.odometer.covered_m
        leads = self._leads
        if leads and t - leads[-1][0] < LEADS_EVERY_S:
            return
        lead = self.progress.s * self.route.evenness - REJOIN_SHARE * covered
        while leads and t - leads[0][0] > LEADS_KEPT_S:
            leads.popleft()
        leads.append((t, lead))
        gained = lead - min(leads, key=itemgetter(1))[1]
        # Fixes that err far make progress jump, and fall behind again.
        if gained > REJOIN_M + 3 * sigma:
            self.shortcut_m += gained
            leads.clear()

    def _begin(self, t: float, x: float, y: float, sigma: float) -> None:
        """Look for the runner around the start; until he is there, nothing is published."""
        reach = max(START_M, 3 * sigma)
        if self.progress.restart(
            x, y, sigma, first_m=-reach - 10, last_m=reach + 10, within_m=reach
        ):
            self.begun = True
            self.off_since = None
            self._saw(t, sigma)
        elif self.off_since is None:
            self.off_since = t

    def _find_after_silence(
        self, dt: float, x: float, y: float, sigma: float, within: float, has_counter: bool
    ) -> bool:
        """Look for the runner ahead after fixes had stopped; his device may have counted on."""
        progress = self.progress
        if has_counter:
            expected = self.odometer.covered_m - self._covered_at
            spread = 10.0 + 0.05 * expected
        else:
            expected = progress.speed_mps * dt * (1 - 0.5 * progress.standing)
            spread = 10.0 + 0.4 * expected
        return progress.restart(
            x,
            y,
            sigma,
            first_m=progress.mean_m - 10,
            last_m=progress.mean_m + FASTEST_MPS * dt,
            expected_m=progress.mean_m + expected,
            spread_m=spread,
            within_m=within,
        )

    def _return(
        self,
        t: float,
        x: float,
        y: float,
        sigma: float,
        within: float,
        left_s: float,
        left_covered: float,
    ) -> None:
        """Look for the runner between where he left and where he can have got."""
        evenness = self.route.evenness
        covered = self.odometer.covered_m - left_covered
        if self.progress.restart(
            x,
            y,
            sigma,
            first_m=left_s - 10,
            last_m=left_s + (REJOIN_SHARE * covered + REJOIN_M) / evenness,
            expected_m=left_s + covered / evenness,
            spread_m=10.0 + 0.3 * covered,
            within_m=within,
        ):
            self._left = None
            self._misfit_since = None
            self.off_since = None
            self._leads.clear()
            self._saw(t, sigma)
            skipped = (self.progress.s - left_s) * evenness - covered
            if skipped > SKIPPED_M:
                self.shortcut_m += skipped
        elif self.route.distance_m(x, y, left_s - WALKED_BACK_M, left_s) <= within:
            # Walked back: on the route, behind what is published.
            self.off_since = None
        elif self.off_since is None:
            self.off_since = t
