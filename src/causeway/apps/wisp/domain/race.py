"""A race against a ghost: the gap at every fix, splits and events once each, and the finish.

A race is a value that changes only by what it is told, in order of time, and reads no clock: told
the same again it says the same again, which is how a server that was killed goes on and how the
final result is made from the whole track. Times are seconds since the start of the race; the
gap and the splits are on the clock that was chosen, `elapsed` or `moving`, for both runners.
"""

from __future__ import annotations

import math
from collections import deque

from causeway.apps.wisp.domain.fixes import Fix, Gate, sigma_m
from causeway.apps.wisp.domain.following import LOST_S, OFF_ROUTE_S, Follower
from causeway.apps.wisp.domain.geodesy import Plane
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.odometer import MovingPlane, Odometer, Stillness
from causeway.apps.wisp.domain.standing import Event, EventKind, Mode, Rules, Split, Standing, State

#: A lead is one when it is more than this in time and in distance.
LEAD_S, LEAD_M = 3.0, 5.0
#: Off the route for so long, a race that may change its mode does, seconds.
MODE_CHANGE_S = 60.0
#: Who stops this near to the finish has finished, by the filter; or by a fix at the finish, within
#: the last part of the length.
FINISH_M, FINISH_SHARE = 5.0, 0.05
#: The pace of late is that of so many seconds; below so many metres there is none.
PACE_S, PACE_M = 60.0, 20.0
#: A result that skipped a larger share of the length than this is not won.
SHORTCUT_SHARE = 0.02


class Race:
    """One runner against one ghost."""

    def __init__(self, ghost: Ghost, rules: Rules | None = None) -> None:
        self.ghost = ghost
        self.rules = rules or Rules()
        if self.rules.mode == "route" and ghost.route is None:
            raise ValueError("a ghost without a way is raced by distance")
        self.length_m = ghost.length_m
        #: None until the first fix has told whether the runner starts on the ghost's way.
        self.mode: Mode | None = "distance" if ghost.route is None else self.rules.mode
        self.state: State = "racing"
        self.splits: list[Split] = []
        self.events: list[Event] = []
        #: Seconds on the race's clock when the length was reached.
        self.finish_s: float | None = None
        self.standing: Standing | None = None
        #: For the average: seconds on the clock, and the gap integrated over them.
        self.gap_time_s = self.gap_area = 0.0
        self.max_gap, self.min_gap = -math.inf, math.inf
        self.odometer = Odometer()

        self._curve = ghost.elapsed if self.rules.clock == "elapsed" else ghost.moving
        self._follower = None if ghost.route is None else Follower(ghost.route, self.odometer)
        self._plane: Plane | MovingPlane | None = None if ghost.route is None else ghost.route.plane
        self._gate = Gate()
        self._still = Stillness()
        #: When a fix was last believed.
        self._fixed_at = 0.0
        self._is_lost = self._is_off = False
        #: The last moment: time, seconds on the clock, progress; and when progress last grew.
        self._t = self._clock_s = self._s = self._grown_s = 0.0
        #: Progress when distance began to count, and what had been covered then.
        self._base_s = self._base_covered = 0.0
        self._paused_at: float | None = None
        self._paused_covered = self._paused_s = 0.0
        self._recent: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._crossed_s = 0.0
        self._next_mark = self._mark_after(0.0)
        self._leader = 0
        self._frozen: tuple[float, float] | None = None
        self._knows_direction = self.rules.mode is not None
        self._counts: dict[EventKind, int] = {}

    # What a race is told.

    def add(self, fix: Fix) -> Standing:
        """Take in one fix and return how the race stands; a fix of the past changes nothing."""
        t = fix.t
        if self.standing is not None and (t <= self._t or self.is_over):
            return self.standing
        used = False
        if fix.lat is not None and fix.lng is not None:
            used = self._locate(fix, fix.lat, fix.lng)
        elif fix.distance_m is not None:
            self._count(t, fix.distance_m)
        self._notice_silence(t)
        if used:
            if self._is_lost:
                self._is_lost = False
                self._happen("gps_back", t)
            self._fixed_at = t
        return self._go_on(t)

    def tick(self, t: float) -> Standing:
        """Return how the race stands without news: the gap grows, the signal may be lost.

        Nothing of the race changes but that a lost signal is noticed, so that a race that is told
        the same fixes again needs no ticks.
        """
        before = self.standing
        if before is not None and (t <= self._t or self.is_over):
            return before
        self._notice_silence(t)
        state: State = self.state
        if self._is_lost and state == "racing":
            state = "lost_signal"
        return self._look(t, self._clock(t), self._s, state)

    def pause(self, t: float) -> None:
        """The runner pauses: progress stands, and so does the moving clock."""
        if self._paused_at is None and not self.is_over:
            self._paused_at = t
            self._paused_covered = self.odometer.covered_m
            if self._follower is not None:
                self._follower.leave()

    def resume(self, t: float) -> None:
        """The runner goes on; what was covered meanwhile brings no progress by distance."""
        if self._paused_at is None or self.is_over:
            return
        self._paused_s += max(0.0, t - self._paused_at)
        self._paused_at = None
        self._base_covered += self.odometer.covered_m - self._paused_covered
        if self._follower is not None and self.rules.clock == "moving":
            self._follower.forget_covered()

    def finish(self, t: float) -> None:
        """The runner says it is done: finished if at the finish, else abandoned.

        Who came there by another way has finished too, and has skipped what he skipped.
        """
        if self.is_over:
            return
        by_route = self.mode == "route" and self._paused_at is None
        has_skipped = by_route and self._follower is not None and self._follower.skip_to_end()
        if self.is_at_finish or has_skipped:
            self._finish_here(t)
        else:
            self.abandon(t)

    def abandon(self, t: float) -> None:
        """The runner gives up."""
        if not self.is_over:
            t = max(t, self._t)
            self.state = "abandoned"
            self._note(t, self._clock(t), self._s)

    # What is known of it.

    @property
    def is_over(self) -> bool:
        """Whether nothing that follows changes the race."""
        return self.state in ("finished", "abandoned")

    @property
    def s(self) -> float:
        """Progress, metres: never falls."""
        return self._s

    @property
    def shortcut_m(self) -> float:
        """Metres of the ghost's way that were skipped."""
        return self._follower.shortcut_m if self._follower is not None else 0.0

    @property
    def is_off_course(self) -> bool:
        """Whether too much was skipped to win, or the race ended away from the ghost's way."""
        if self.is_over and self.mode == "route" and self._is_off:
            return True
        return self.shortcut_m > SHORTCUT_SHARE * self.length_m

    @property
    def is_at_finish(self) -> bool:
        """Whether a runner who stops now has finished."""
        left, follower = self.length_m - self._s, self._follower
        if self.mode != "route" or follower is None or left <= FINISH_M:
            return left <= FINISH_M
        # A loop ends where it starts: a fix says something only when the filter is nearly there.
        return left <= FINISH_SHARE * self.length_m and follower.is_at_end

    def ghost_place(self) -> tuple[float, float] | None:
        """Return latitude and longitude of the ghost; None when it has no way."""
        if self.ghost.route is None or self.standing is None:
            return None
        return self.ghost.route.place(self.standing.ghost_s)

    # Where the runner is.

    def _locate(self, fix: Fix, lat: float, lng: float) -> bool:
        """Take in the place of a fix; False when it says nothing."""
        if self._plane is None:
            self._plane = MovingPlane(lat, lng)
        t, accuracy_m = fix.t, fix.accuracy_m
        x, y = self._plane.xy(lat, lng)
        if not self._gate.lets(t, x, y, accuracy_m):
            return False
        follower, odometer = self._follower, self.odometer
        if self.mode is None and follower is not None:
            if follower.is_near_start(x, y, accuracy_m):
                self.mode = "route"
            else:
                # Somewhere else, perhaps far away, where the ghost's plane means nothing.
                self.mode = "distance"
                self._plane = MovingPlane(lat, lng)
                self._gate = Gate()
                x, y = self._plane.xy(lat, lng)
                self._gate.lets(t, x, y, accuracy_m)
        if self._gate.relocated:
            odometer.relocate(t, x, y)
            if follower is not None:
                follower.leave()
        odometer.add(t, x, y, fix.distance_m)
        self._still.add(t, *odometer.place, odometer.covered_m)
        if self.mode == "route" and follower is not None and self._paused_at is None:
            has_counter = fix.distance_m is not None
            follower.add(t, x, y, sigma_m(accuracy_m), has_counter=has_counter)
            self._reconsider_mode(t, follower)
        return True

    def _count(self, t: float, device_m: float) -> None:
        """Take in the device's distance without a place."""
        self.odometer.add_distance(t, device_m)
        self._still.add(t, *self.odometer.place, self.odometer.covered_m)
        if self.mode is None:
            self.mode = "distance"
        elif self._follower is not None and self._paused_at is None:
            self._follower.count()

    def _reconsider_mode(self, t: float, follower: Follower) -> None:
        """Go over to distance when the runner goes the other way, or has left for good."""
        if not self._knows_direction:
            against = follower.runs_against()
            self._knows_direction = against is not None
            if against:
                self._go_by_distance(t, 0.0, 0.0)
        elif self.rules.may_change_mode and follower.off_since is not None:
            if t - follower.off_since >= MODE_CHANGE_S:
                self._go_by_distance(t, self._s, follower.left_covered_m)

    def _go_by_distance(self, t: float, s: float, covered_m: float) -> None:
        self.mode = "distance"
        if self._follower is not None:
            self._follower.off_since = None
        self._base_s, self._base_covered = s, covered_m
        self._happen("mode_changed", t)

    def _progress(self) -> float:
        """Return how far the runner has got, metres."""
        if self._paused_at is not None:
            return self._s
        if self.mode == "route" and self._follower is not None:
            return max(self._s, self._follower.s)
        covered = (self.odometer.covered_m - self._base_covered) * self.rules.calibration
        return max(self._s, self._base_s + covered)

    # What follows from it.

    def _go_on(self, t: float) -> Standing:
        """Go on to a time with what was taken in before it."""
        clock_s, s = self._clock(t), self._progress()
        while s >= self._next_mark:
            self._cross(self._next_mark, clock_s, s)
            if self.finish_s is not None:
                return self._end(t, self.finish_s)
        standing = self._note(t, clock_s, s)
        if s > self._s:
            self._grown_s = clock_s
        self._t, self._clock_s, self._s = t, clock_s, s
        if self._still.since is not None and self.is_at_finish:
            return self._finish_here(t)
        return standing

    def _clock(self, t: float) -> float:
        """Return the seconds on the race's clock at a time."""
        if self.rules.clock == "elapsed":
            return t
        paused = self._paused_s + self._still.paused_s if self.rules.auto_pause else self._paused_s
        if self._paused_at is not None:
            paused += max(0.0, t - self._paused_at)
        elif self.rules.auto_pause and self._still.since is not None:
            paused += t - self._still.since
        return max(0.0, t - paused)

    def _mark_after(self, mark: float) -> float:
        """Return the next mark; what is left of the length below a metre is no split."""
        following = mark + self.rules.split_m
        return following if following < self.length_m - 1.0 else self.length_m

    def _cross(self, mark: float, clock_s: float, s: float) -> None:
        """Note when a mark was crossed between the last moment and now."""
        part = (mark - self._s) / (s - self._s) if s > self._s else 1.0
        crossed = self._clock_s + part * (clock_s - self._clock_s)
        crossed = max(crossed, self._crossed_s)
        curve = self._curve
        before = self.splits[-1].distance if self.splits else 0.0
        reached = curve.time_at(mark)
        ghost_time = reached - curve.time_at(before)
        user_time = crossed - self._crossed_s
        self.splits.append(
            Split(mark, user_time, ghost_time, user_time - ghost_time, crossed - reached)
        )
        self._crossed_s = crossed
        if mark >= self.length_m:
            self.finish_s = crossed
        else:
            self._next_mark = self._mark_after(mark)

    def _finish_here(self, t: float) -> Standing:
        """The runner stopped a few metres short: the rest is added at the speed of late."""
        clock_s = self._clock(t)
        before, at = self._recent[0]
        speed = (self._s - at) / max(self._grown_s - before, 1.0)
        rest = (self.length_m - self._s) / speed if speed > 0.5 else math.inf
        self._clock_s = min(self._grown_s, clock_s)
        end = min(self._clock_s + rest, clock_s)
        while self.finish_s is None:
            self._cross(self._next_mark, end, self.length_m)
        return self._end(t, self.finish_s)

    def _end(self, t: float, finish_s: float) -> Standing:
        """Close the race at its finish."""
        self.state = "finished"
        standing = self._note(t, finish_s, self.length_m)
        self._t, self._clock_s, self._s = t, finish_s, self.length_m
        return standing

    def _note(self, t: float, clock_s: float, s: float) -> Standing:
        """Remember how the race stands, for the average, the pace and who leads."""
        state = self._state(t)
        recent = self._recent
        recent.append((clock_s, s))
        while len(recent) > 2 and clock_s - recent[1][0] >= PACE_S:
            recent.popleft()
        if state != "off_route":
            self._frozen = None
        standing = self._look(t, clock_s, s, state)
        gap_seconds, gap_metres = standing.gap_seconds, standing.gap_metres
        if state == "off_route":
            self._frozen = (gap_seconds, gap_metres)
        elif self._follower is None or self._follower.off_since is None:
            self._notice_leader(t, gap_seconds, gap_metres)
        before, self.standing = self.standing, standing
        if before is not None and clock_s > before.clock_s:
            dt = clock_s - before.clock_s
            self.gap_time_s += dt
            self.gap_area += dt * (gap_seconds + before.gap_seconds) / 2
        if gap_seconds > self.max_gap:
            self.max_gap = gap_seconds
        if gap_seconds < self.min_gap:
            self.min_gap = gap_seconds
        return standing

    def _look(self, t: float, clock_s: float, s: float, state: State) -> Standing:
        """Return how the race stands with a runner who is at `s`."""
        curve = self._curve
        at = min(s, self.length_m)
        ghost_s = curve.distance_at(clock_s)
        gap_seconds, gap_metres = clock_s - curve.time_at(at), ghost_s - at
        if self._frozen is not None:
            gap_seconds, gap_metres = self._frozen
        pace = finish = difference = None
        from_s, from_m = self._recent[0]
        late_s, late_m = clock_s - from_s, s - from_m
        if late_m > PACE_M:
            pace = late_s / late_m * 1000.0
            finish = self._project(clock_s, s, late_s, from_m)
        if self.finish_s is not None:
            finish = self.finish_s
        if finish is not None:
            difference = finish - curve.duration_s
        confidence = 1.0
        if self.mode == "route" and self._follower is not None:
            confidence = self._follower.confidence
        return Standing(
            t=t,
            clock_s=clock_s,
            s=s,
            gap_seconds=gap_seconds,
            gap_metres=gap_metres,
            confidence=confidence,
            state=state,
            ghost_s=ghost_s,
            pace=pace,
            projected_finish=finish,
            projected_difference=difference,
        )

    def _project(self, clock_s: float, s: float, late_s: float, late_from: float) -> float:
        """Return when the runner would finish: what is left, at a blend of two paces.

        The pace of the last minute and the average of the race, which weighs as much as the share
        of the race that is done; metres are flat ones where the ghost's way has known hills.
        """
        flat = self.ghost.flat_m
        done = flat(s)
        part = s / self.length_m
        late = late_s / (done - flat(late_from))
        pace = (1 - part) * late + part * clock_s / done
        return clock_s + (flat(self.length_m) - done) * pace

    def _state(self, t: float) -> State:
        if self.is_over:
            return self.state
        follower = self._follower
        is_off = self.mode == "route" and follower is not None and follower.is_off_route(t)
        if is_off != self._is_off:
            self._is_off = is_off
            if is_off and follower is not None and follower.off_since is not None:
                self._happen("off_route", follower.off_since + OFF_ROUTE_S)
            elif self.mode == "route":
                self._happen("rejoined", t)
        if self._paused_at is not None:
            self.state = "paused"
        elif self.rules.auto_pause and self._still.since is not None:
            self.state = "paused"
        elif self._is_lost:
            self.state = "lost_signal"
        else:
            self.state = "off_route" if is_off else "racing"
        return self.state

    def _notice_silence(self, t: float) -> None:
        """A signal that comes at all is lost after ten seconds without it."""
        comes = self.mode == "route" or self._fixed_at > 0
        if comes and not self._is_lost and t - self._fixed_at > LOST_S:
            self._is_lost = True
            self._happen("gps_lost", self._fixed_at + LOST_S)

    def _notice_leader(self, t: float, gap_seconds: float, gap_metres: float) -> None:
        """Tell when the lead changes hands; a runner must really be in front or behind."""
        if gap_seconds < -LEAD_S and gap_metres < -LEAD_M:
            leader = 1
        elif gap_seconds > LEAD_S and gap_metres > LEAD_M:
            leader = -1
        else:
            return
        if leader != self._leader:
            if self._leader:
                self._happen("overtook" if leader > 0 else "overtaken", t)
            self._leader = leader

    def _happen(self, kind: EventKind, t: float) -> None:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        self.events.append(Event(kind, t, self._s, number))
