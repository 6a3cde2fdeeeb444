"""Distances on the WGS84 ellipsoid and a local plane in metres, for arrays and for single points.

Lengths are geodesics of GeographicLib (Karney, 2013) through pyproj. The plane is the tangent
plane of one place, with the ellipsoid's two radii there: within a kilometre of a point its
distances are right to a few millimetres, so it serves what compares neighbours, never lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod

Floats = NDArray[np.float64]

#: WGS84: half the equator's diameter in metres, and the square of the eccentricity.
EQUATOR_RADIUS_M = 6_378_137.0
ECCENTRICITY_SQUARED = 6.694379990141316e-3

_WGS84 = Geod(ellps="WGS84")


def degrees_m(latitude: float) -> tuple[float, float]:
    """Return the metres of one degree of latitude and of one of longitude, at a latitude."""
    sine = math.sin(math.radians(latitude))
    w = 1 - ECCENTRICITY_SQUARED * sine * sine
    north = EQUATOR_RADIUS_M * (1 - ECCENTRICITY_SQUARED) / (w * math.sqrt(w))
    east = EQUATOR_RADIUS_M / math.sqrt(w) * math.cos(math.radians(latitude))
    return math.radians(north), math.radians(east)


def wrap_degrees(degrees: float) -> float:
    """Return a difference of longitudes, or a longitude, between -180 and 180."""
    return (degrees + 180.0) % 360.0 - 180.0


def step_lengths(lat: Floats, lng: Floats) -> Floats:
    """Return the geodesic metres from each point to the next (one fewer than points)."""
    if len(lat) < 2:
        return np.zeros(0)
    found = _WGS84.inv(lng[:-1], lat[:-1], lng[1:], lat[1:])
    return np.asarray(found[2], np.float64)


def cumulative_lengths(lat: Floats, lng: Floats) -> Floats:
    """Return the geodesic metres from the first point to each, along the line."""
    return np.concatenate(([0.0], np.cumsum(step_lengths(lat, lng))))[: len(lat)]


def distance_m(lat1: float, lng1: float, lat2: float, lng2: float) -> float:
    """Return the geodesic metres between two points."""
    return float(cast(float, _WGS84.inv(lng1, lat1, lng2, lat2)[2]))


def destination(lat: float, lng: float, bearing: float, metres: float) -> tuple[float, float]:
    """Return where one is (latitude, longitude) after so many metres at a bearing from north."""
    east, north, _ = cast("tuple[float, float, float]", _WGS84.fwd(lng, lat, bearing, metres))
    return float(north), float(east)


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane that touches the Earth at one place: x metres to the east, y to the north."""

    lat: float
    lng: float
    north_m: float
    east_m: float

    @classmethod
    def at(cls, lat: float, lng: float) -> Plane:
        """Return the plane of a place in degrees."""
        return cls(lat, lng, *degrees_m(lat))

    @classmethod
    def around(cls, lat: Floats, lng: Floats) -> Plane:
        """Return the plane in the middle of the points, also across the antimeridian."""
        box = bounds(lat, lng)
        width = (box.east - box.west) % 360.0
        return cls.at((box.north + box.south) / 2, wrap_degrees(box.west + width / 2))

    def xy(self, lat: float, lng: float) -> tuple[float, float]:
        """Return a point in metres."""
        dlng = lng - self.lng
        if dlng > 180.0 or dlng < -180.0:
            dlng = wrap_degrees(dlng)
        return dlng * self.east_m, (lat - self.lat) * self.north_m

    def project(self, lat: Floats, lng: Floats) -> Floats:
        """Return points in metres, one row (x, y) each."""
        dlng = (lng - self.lng + 180.0) % 360.0 - 180.0
        return np.column_stack((dlng * self.east_m, (lat - self.lat) * self.north_m))

    def unproject(self, xy: Floats) -> tuple[Floats, Floats]:
        """Return latitudes and longitudes of points in metres."""
        lng = (xy[:, 0] / self.east_m + self.lng + 180.0) % 360.0 - 180.0
        return xy[:, 1] / self.north_m + self.lat, lng


@dataclass(frozen=True, slots=True)
class Bounds:
    """The smallest box around points, in degrees; `west > east` across the antimeridian."""

    north: float
    south: float
    east: float
    west: float


def bounds(lat: Floats, lng: Floats) -> Bounds:
    """Return the smallest box around at least one point.

    Of the boxes of longitude the one that leaves out the widest gap is the smallest, wherever the
    antimeridian is. Raises ValueError without points.
    """
    if not len(lat):
        raise ValueError("no points have no bounds")
    around = np.unique(lng)
    gaps = np.diff(np.append(around, around[0] + 360.0))
    widest = int(np.argmax(gaps))
    west = float(around[(widest + 1) % len(around)])
    return Bounds(float(lat.max()), float(lat.min()), float(around[widest]), west)
