"""Ways of known shape, and runners on them whose progress is known, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.fixes import Fix
from causeway.apps.wisp.domain.geodesy import Plane
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.route import Route
from causeway.apps.wisp.domain.track import Track

Floats = NDArray[np.float64]

PLACE = Plane.at(45.0, 7.0)


@dataclass(frozen=True)
class Way:
    """A line in metres, measured along."""

    xy: Floats
    s: Floats

    @classmethod
    def of(cls, xy: Floats) -> Way:
        lengths = np.hypot(*np.diff(xy, axis=0).T)
        return cls(xy, np.concatenate(([0.0], np.cumsum(lengths))))

    @property
    def length_m(self) -> float:
        return float(self.s[-1])

    def at(self, s: Floats) -> Floats:
        """Places at distances; before and behind the ends straight on."""
        xy = np.column_stack([np.interp(s, self.s, self.xy[:, i]) for i in (0, 1)])
        first = (self.xy[1] - self.xy[0]) / (self.s[1] - self.s[0])
        last = (self.xy[-1] - self.xy[-2]) / (self.s[-1] - self.s[-2])
        before, after = np.minimum(s, 0.0), np.maximum(s - self.length_m, 0.0)
        return xy + before[:, None] * first + after[:, None] * last


def straight(length_m: float) -> Way:
    return Way.of(np.array([[0.0, 0.0], [length_m, 0.0]]))


def out_and_back(length_m: float) -> Way:
    return Way.of(np.array([[0.0, 0.0], [length_m / 2, 0.0], [0.0, 0.0]]))


def figure_eight(length_m: float) -> Way:
    radius = length_m / 4 / np.pi
    around = np.linspace(0, 2 * np.pi, 200)
    right = np.column_stack((radius - radius * np.cos(around), radius * np.sin(around)))
    left = np.column_stack((radius * np.cos(around) - radius, radius * np.sin(around)))
    return Way.of(np.vstack((right, left[1:])))


def laps(count: int) -> Way:
    """A track of 400 m, its start on the home straight."""
    straight_m, radius = 84.39, 36.5
    bend = np.linspace(0, np.pi, 60)
    lap = np.vstack(
        (
            [[0.0, 0.0], [straight_m, 0.0]],
            np.column_stack((straight_m + radius * np.sin(bend), radius - radius * np.cos(bend)))[
                1:
            ],
            [[0.0, 2 * radius]],
            np.column_stack((-radius * np.sin(bend), radius + radius * np.cos(bend)))[1:],
        )
    )
    return Way.of(np.vstack([lap, *[lap[1:]] * (count - 1)]))


def winding(length_m: float) -> Way:
    x = np.linspace(0, length_m * 0.8, 400)
    return Way.of(np.column_stack((x, 40 * np.sin(x / 60))))


def noise(count: int, sigma_m: float, lasting_s: float, rng: np.random.Generator) -> Floats:
    """Errors in x and y, sigma in each, that resemble themselves for some seconds."""
    kept = np.exp(-1.0 / lasting_s) if lasting_s > 0 else 0.0
    drawn = rng.normal(size=(count, 2))
    errors = np.empty((count, 2))
    errors[0] = drawn[0]
    for i in range(1, count):
        errors[i] = kept * errors[i - 1] + np.sqrt(1 - kept**2) * drawn[i]
    return errors * sigma_m


@dataclass(frozen=True)
class Run:
    """A runner on a way: where he really was each second, and what his device sent."""

    t: Floats
    s: Floats
    fixes: list[Fix]


def run(
    way: Way,
    speed_mps: float = 3.3,
    *,
    sigma_m: float = 0.0,
    lasting_s: float = 5.0,
    seed: int = 1,
    start_m: float = 0.0,
    end_m: float | None = None,
    pauses: Sequence[tuple[float, float]] = (),
    changing: float = 0.0,
    has_counter: bool = False,
    every_s: float = 1.0,
) -> Run:
    """Run from one place of a way to another, one fix a second or every so many.

    `pauses` are when and how long he stood; `changing` is the share by which the speed swings.
    """
    end_m = way.length_m if end_m is None else end_m
    slowest = speed_mps * (1 - changing)
    t = np.arange(0.0, (end_m - start_m) / slowest + sum(p[1] for p in pauses) + 2, every_s)
    speed = speed_mps * (1 + changing * np.sin(2 * np.pi * t / 90))
    for at, lasting in pauses:
        speed[(t >= at) & (t < at + lasting)] = 0.0
    s = start_m + np.concatenate(([0.0], np.cumsum(speed[:-1] * every_s)))
    kept = s < end_m + speed_mps
    t, s = t[kept], s[kept]
    seen = way.at(s) + noise(len(t), sigma_m, lasting_s / every_s, np.random.default_rng(seed))
    lat, lng = PLACE.unproject(seen)
    accuracy_m = max(sigma_m, 3.0)
    counted = s - s[0] if has_counter else [None] * len(t)
    fixes = [
        Fix(float(at), float(a), float(b), accuracy_m, None if m is None else float(m))
        for at, a, b, m in zip(t, lat, lng, counted, strict=True)
    ]
    return Run(t, s, fixes)


def track_of(way: Way, speed_mps: float, *, sigma_m: float, seed: int = 1) -> Track:
    """What a device records of an even run of a whole way, with noise that lasts 10 s."""
    s = np.append(np.arange(0.0, way.length_m, speed_mps), way.length_m)
    seen = way.at(s) + noise(len(s), sigma_m, 10.0, np.random.default_rng(seed))
    lat, lng = PLACE.unproject(seen)
    return Track.of(s / speed_mps, {"lat": lat, "lng": lng})


def route_of(way: Way) -> Route:
    """The route of a way, exactly as long."""
    s = np.append(np.arange(0.0, way.length_m, 3.0), way.length_m)
    lat, lng = PLACE.unproject(way.at(s))
    return Route.of(lat, lng, s)


def ghost_of(way: Way, speed_mps: float = 3.0) -> Ghost:
    """A ghost at an even pace on a way."""
    curve = Curve.even(way.length_m, way.length_m / speed_mps)
    return Ghost(curve, curve, route_of(way))
