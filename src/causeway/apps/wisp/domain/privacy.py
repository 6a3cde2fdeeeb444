"""What others may see of a track: not where its owner lives.

A zone is a circle around a place; what is in it is cut from everything others are shown. The circle
is moved by up to a third of its radius, always the same way for the same zone, because the circle
through many ends of tracks has the house in its middle; the moved circle still covers the house.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.geodesy import Plane, destination
from causeway.base.errors import Field, InvalidInput

Floats = NDArray[np.float64]

SMALLEST_M, LARGEST_M = 200.0, 1600.0
#: The middle moves by up to so much of the radius.
MOVED_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Zone:
    """A circle in degrees and metres, as it is cut; `Zone.around` moves it first."""

    lat: float
    lng: float
    radius_m: float

    @classmethod
    def around(cls, lat: float, lng: float, radius_m: float, secret: bytes) -> Zone:
        """Return the moved circle of a place; the same for the same place and secret.

        Raises InvalidInput for a radius outside 200..1600 m or a place that is none.
        """
        wrong = [
            Field(name, f"{value:g}", f"{least:g}..{most:g}")
            for name, value, least, most in (
                ("radius_m", radius_m, SMALLEST_M, LARGEST_M),
                ("lat", lat, -90.0, 90.0),
                ("lng", lng, -180.0, 180.0),
            )
            if not least <= value <= most
        ]
        if wrong:
            raise InvalidInput(fields=wrong)
        told = f"{lat:.7f},{lng:.7f},{radius_m:g}".encode()
        drawn = hmac.new(secret, told, hashlib.sha256).digest()
        bearing = int.from_bytes(drawn[:4], "big") / 2**32 * 360.0
        # The square root makes every place of the disc as likely.
        part = math.sqrt(int.from_bytes(drawn[4:8], "big") / 2**32)
        place = destination(lat, lng, bearing, part * MOVED_SHARE * radius_m)
        return cls(*place, radius_m)

    def covers(self, lat: Floats, lng: Floats) -> NDArray[np.bool_]:
        """Tell which points lie in it; a point that is unknown does not."""
        plane = Plane.at(self.lat, self.lng)
        xy = plane.project(lat, lng)
        with np.errstate(invalid="ignore"):
            return np.hypot(xy[:, 0], xy[:, 1]) <= self.radius_m


def hidden(lat: Floats, lng: Floats, zones: Sequence[Zone]) -> NDArray[np.bool_]:
    """Tell which points of a track others may not see.

    A step from one visible point to the next that crosses a zone is cut too: its second point is
    hidden, or a line would be drawn through the zone.
    """
    found = np.zeros(len(lat), bool)
    for zone in zones:
        found |= zone.covers(lat, lng)
    for zone in zones:
        xy = Plane.at(zone.lat, zone.lng).project(lat, lng)
        way = np.diff(xy, axis=0)
        squared = np.maximum(np.einsum("ij,ij->i", way, way), 1e-12)
        part = np.clip(-np.einsum("ij,ij->i", xy[:-1], way) / squared, 0.0, 1.0)
        near = xy[:-1] + part[:, None] * way
        with np.errstate(invalid="ignore"):
            crosses = np.hypot(near[:, 0], near[:, 1]) <= zone.radius_m
        found[1:] |= crosses
    return found


def visible_parts(lat: Floats, lng: Floats, zones: Sequence[Zone]) -> list[NDArray[np.intp]]:
    """Return the stretches of a track that others may see, each as its points' indices."""
    seen = ~hidden(lat, lng, zones) & np.isfinite(lat)
    indices = np.flatnonzero(seen)
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return [part for part in parts if len(part) >= 2]
