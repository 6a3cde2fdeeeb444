"""A ghost: when it was where, on both clocks, and, if it has one, on which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causeway.apps.wisp.domain.clean import Run
from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.elevation import Kind, profile
from causeway.apps.wisp.domain.grade import flat_metres
from causeway.apps.wisp.domain.route import Route
from causeway.base.errors import InvalidInput


@dataclass(frozen=True)
class Ghost:
    """What is raced against. Never changes: another record is another version."""

    #: Time with pauses counted, and without them, over the same distance.
    elapsed: Curve
    moving: Curve
    route: Route | None = None
    #: Over the same distance the flat metres that cost as much (see grade.py), if they are known.
    effort: Curve | None = None

    def __post_init__(self) -> None:
        if abs(self.elapsed.length_m - self.moving.length_m) > 0.01:
            raise ValueError("both clocks of a ghost measure the same distance")
        if self.route is not None and abs(self.route.length_m - self.elapsed.length_m) > 0.5:
            raise ValueError("a ghost's route is as long as its curve")

    @property
    def length_m(self) -> float:
        """The length S in metres."""
        return self.elapsed.length_m

    def flat_m(self, s: float) -> float:
        """Return the flat metres that cost as much as the first `s` metres."""
        return s if self.effort is None else self.effort.time_at(s)

    @classmethod
    def of_run(cls, run: Run, start_m: float = 0.0, end_m: float | None = None) -> Ghost:
        """Return the ghost of a run, or of a stretch of it.

        Its length is the run's distance, as it is shown everywhere else. Raises InvalidInput when
        there is no such stretch.
        """
        end_m = run.distance_m if end_m is None else end_m
        if run.distance_m <= 0:
            raise InvalidInput("a run without a distance cannot be raced against")
        elapsed = Curve.recorded(run.s, run.t).part(start_m, end_m)
        moving = Curve.recorded(run.s, run.moving_s).part(start_m, end_m)
        kind: Kind = "barometric" if run.track.is_barometric else "gps"
        flat = flat_metres(profile(run.s, run.track.elevation_m, kind))
        return cls(
            elapsed,
            moving,
            _route(run, start_m, start_m + elapsed.length_m),
            flat.part(start_m, min(end_m, flat.length_m)) if flat is not None else None,
        )

    @classmethod
    def goal(
        cls,
        length_m: float,
        duration_s: float,
        splits: Sequence[tuple[float, float]] = (),
        *,
        normalise: bool = False,
    ) -> Ghost:
        """Return the ghost of a goal: it does not pause and has no way of its own."""
        curve = Curve.goal(length_m, duration_s, splits, normalise=normalise)
        return cls(curve, curve)


def _route(run: Run, start_m: float, end_m: float) -> Route | None:
    """Return the way of a stretch of a run; None when too little of it has places."""
    placed = np.isfinite(run.track.lat)
    if np.count_nonzero(placed) < 2:
        return None
    s = run.s[placed]
    if s[-1] - s[0] < 0.9 * run.distance_m:
        return None
    inside = np.concatenate(([start_m], s[(s > start_m) & (s < end_m)], [end_m]))
    lat = np.interp(inside, s, run.track.lat[placed])
    # Longitudes jump at the antimeridian: between samples they go the short way.
    lng = np.interp(inside, s, np.unwrap(run.track.lng[placed], period=360.0))
    return Route.of(lat, (lng + 180.0) % 360.0 - 180.0, inside - start_m)
