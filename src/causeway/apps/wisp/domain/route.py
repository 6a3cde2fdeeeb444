"""The ghost's way as a grid of places, one every two metres, that fixes are compared with.

The grid goes on for a while before the start and behind the finish, because runners start before
the line and run over it: straight on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.geodesy import Plane, cumulative_lengths

Floats = NDArray[np.float64]

STEP_M = 2.0
#: How far the grid goes on before the start and behind the finish.
LEAD_M = 80.0
#: Jitter is what goes within so many metres.
EVEN_M = 30.0


@dataclass(frozen=True)
class Route:
    """A way of `length_m` metres; cell i of the grid lies at `i * STEP_M - LEAD_M` along it."""

    length_m: float
    plane: Plane
    #: x, y of each cell, in metres.
    xy: Floats
    #: (-2x, -2y, x^2 + y^2) of each cell: times (u, v, 1) it is the squared distance to (u, v) less
    #: u^2 + v^2, in one product.
    terms: Floats
    #: What is left of the length when the jitter of its fixes is smoothed away, 0..1: who runs this
    #: way covers no more than that.
    evenness: float

    @classmethod
    def of(cls, lat: Floats, lng: Floats, s: Floats | None = None) -> Route:
        """Return the route of a line of at least two different points.

        `s` are the metres of each point along the line, never falling; without them the geodesic
        lengths. Raises ValueError when the line has no length.
        """
        along = cumulative_lengths(lat, lng) if s is None else s
        moved = np.concatenate(([True], np.diff(along) > 1e-9))
        along, lat, lng = along[moved], lat[moved], lng[moved]
        if len(along) < 2:
            raise ValueError("a route needs two different points")
        plane = Plane.around(lat, lng)
        points = plane.project(lat, lng)
        length_m = float(along[-1])
        grid = np.arange(-LEAD_M, length_m + LEAD_M + STEP_M, STEP_M)
        inside = np.clip(grid, 0.0, length_m)
        xy = np.column_stack([np.interp(inside, along, points[:, i]) for i in (0, 1)])
        before, after = grid < 0, grid > length_m
        first = _direction(points, along, 0.0, min(30.0, length_m))
        last = _direction(points, along, max(0.0, length_m - 30.0), length_m)
        xy[before] = points[0] + grid[before, None] * first
        xy[after] = points[-1] + (grid[after] - length_m)[:, None] * last
        terms = np.column_stack((-2 * xy, np.einsum("ij,ij->i", xy, xy)))
        return cls(length_m, plane, xy, terms, _evenness(xy))

    def cell(self, s: float) -> int:
        """Return the grid's cell at `s` metres along, or the nearest there is."""
        return min(max(round((s + LEAD_M) / STEP_M), 0), len(self.xy) - 1)

    def distance_m(self, x: float, y: float, first_m: float, last_m: float) -> float:
        """Return how far a point of the plane is from the stretch between two places, metres."""
        cells = self.terms[self.cell(max(first_m, 0.0)) : self.cell(last_m) + 1]
        squared = float((cells @ np.array([x, y, 1.0])).min()) + x * x + y * y
        return math.sqrt(max(squared, 0.0))

    def place(self, s: float) -> tuple[float, float]:
        """Return latitude and longitude of the place `s` metres along."""
        at = (s + LEAD_M) / STEP_M
        i = min(max(int(at), 0), len(self.xy) - 2)
        part = at - i
        x = self.xy[i, 0] + part * (self.xy[i + 1, 0] - self.xy[i, 0])
        y = self.xy[i, 1] + part * (self.xy[i + 1, 1] - self.xy[i, 1])
        lat, lng = self.plane.unproject(np.array([[x, y]]))
        return float(lat[0]), float(lng[0])


def _evenness(xy: Floats) -> float:
    """Return the length of a line of cells smoothed over `EVEN_M` metres, as a share of its own."""
    width = round(EVEN_M / STEP_M)
    if len(xy) <= 2 * width:
        return 1.0
    sums = np.cumsum(np.vstack((np.zeros((1, 2)), xy)), axis=0)
    smooth = (sums[width:] - sums[:-width]) / width
    # The smoothed line is shorter at its ends, too: it is compared with what it was made from.
    left = width // 2
    own = xy[left : left + len(smooth)]
    lengths = [float(np.hypot(*np.diff(line, axis=0).T).sum()) for line in (smooth, own)]
    return min(1.0, lengths[0] / max(lengths[1], 1e-9))


def _direction(points: Floats, along: Floats, start: float, end: float) -> Floats:
    """Return the unit vector of the way between two distances."""
    ends = np.column_stack([np.interp([start, end], along, points[:, i]) for i in (0, 1)])
    way = ends[1] - ends[0]
    length = float(np.hypot(*way))
    return way / length if length > 1e-9 else np.array([1.0, 0.0])
