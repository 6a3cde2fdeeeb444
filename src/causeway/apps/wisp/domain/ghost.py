"""A ghost: when it was where, on both clocks, and, if it has one, on which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.route import Route


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
