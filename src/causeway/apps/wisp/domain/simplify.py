"""Fewer points for the same line: Douglas and Peucker's algorithm (shapely), in metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from shapely import LineString

from causeway.apps.wisp.domain.geodesy import Plane

Floats = NDArray[np.float64]

#: Levels of delivery, metres: a map of a street, of a town, of a country.
LEVELS_M = (2.0, 10.0, 50.0)
#: The plane is exact to this share, which the tolerance leaves room for.
_MARGIN = 0.995


def simplified(lat: Floats, lng: Floats, tolerance_m: float) -> NDArray[np.intp]:
    """Return which points to keep so that no point is farther than so many metres from the line.

    The first and the last point are always kept. Raises ValueError for a negative tolerance.
    """
    if tolerance_m < 0:
        raise ValueError("a tolerance is not negative")
    if len(lat) <= 2:
        return np.arange(len(lat))
    xy = Plane.around(lat, lng).project(lat, lng)
    # The third coordinate is the index: simplification is in the plane, and keeps it along.
    line = LineString(np.column_stack((xy, np.arange(len(xy)))))
    kept = line.simplify(tolerance_m * _MARGIN, preserve_topology=False)
    found = np.array([point[2] for point in kept.coords])
    return np.unique(np.concatenate(([0], np.rint(found), [len(xy) - 1]))).astype(np.intp)


def thinned(lat: Floats, lng: Floats, most: int) -> NDArray[np.intp]:
    """Return at most so many points to keep, at the smallest tolerance found for it."""
    if most < 2:
        raise ValueError("a line has two points")
    tolerance_m = 0.5
    kept = np.arange(len(lat))
    while len(kept) > most:
        kept = simplified(lat, lng, tolerance_m)
        tolerance_m *= 1.4
    return kept
