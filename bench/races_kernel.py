"""What one fix of a race costs, beside a plain search for the nearest point of the route.

Both in processor time of one core, on the same runs in turn: ten laps of a track (4 km) and a
winding half marathon, 5 m of noise, one fix a second. The nearest point is found twice: among all
segments of the route with numpy, and by shapely's `project`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import LineString, Point

from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.progress import Progress
from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.standing import Rules
from tests.wisp_tracks import Run, Way, ghost_of, laps, run, winding

ROUNDS = 5
Floats = NDArray[np.float64]


def nearest(points: Floats) -> Callable[[float, float], float]:
    """Return a search for the metres along a line at its point nearest to a place."""
    starts, ways = points[:-1], np.diff(points, axis=0)
    squared = np.maximum(np.einsum("ij,ij->i", ways, ways), 1e-12)
    lengths = np.sqrt(squared)
    along = np.concatenate(([0.0], np.cumsum(lengths)))

    def search(x: float, y: float) -> float:
        off = np.array([x, y]) - starts
        part = np.clip(np.einsum("ij,ij->i", off, ways) / squared, 0.0, 1.0)
        off -= part[:, None] * ways
        best = int(np.argmin(np.einsum("ij,ij->i", off, off)))
        return float(along[best] + part[best] * lengths[best])

    return search


def _us(work: Callable[[], Any], count: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / count * 1e6


def _measure(way: Way, one: Run, ghost: Ghost) -> dict[str, float]:
    """Return microseconds a fix of a whole race, of the filter alone and of both searches."""
    route = ghost.route
    if route is None:
        raise ValueError("the ghost has a way")
    count = len(one.fixes)
    places = [route.plane.xy(fix.lat or 0.0, fix.lng or 0.0) for fix in one.fixes]
    # As many points as a run of an hour and more has: one a second at the ghost's pace.
    points = way.at(np.arange(0.0, way.length_m, 3.0))
    search = nearest(points)
    line = LineString(points)

    def race() -> None:
        told = Race(ghost, Rules(mode="route"))
        for fix in one.fixes:
            told.add(fix)

    def filtered() -> None:
        progress = Progress(route)
        progress.restart(*places[0], 5.0, first_m=-60.0, last_m=60.0)
        for x, y in places:
            progress.step(1.0, x, y, 5.0, 3.3)

    def searched() -> None:
        for x, y in places:
            search(x, y)

    def projected() -> None:
        for x, y in places:
            line.project(Point(x, y))

    works = {"race": race, "filter": filtered, "nearest": searched, "shapely": projected}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            taken[name].append(_us(work, count))
    return {name: median(values) for name, values in taken.items()}


def measure() -> dict[str, Any]:
    """Return what a fix costs, in microseconds of one core."""
    figures: dict[str, Any] = {}
    for name, way in (("ten_laps", laps(10)), ("half_marathon", winding(21_097.5))):
        found = _measure(way, run(way, sigma_m=5.0), ghost_of(way))
        figures |= {
            f"{name}_fix_us": found["race"],
            f"{name}_filter_us": found["filter"],
            f"{name}_nearest_point_us": found["nearest"],
            f"{name}_shapely_us": found["shapely"],
        }
    figures["fix_us"] = max(figures["ten_laps_fix_us"], figures["half_marathon_fix_us"])
    figures["ratio_to_nearest_point"] = (
        figures["ten_laps_fix_us"] / figures["ten_laps_nearest_point_us"]
    )
    return figures
