"""Lines as text: the polylines of Google's algorithm, by the library, with clear refusals."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import polyline
from numpy.typing import NDArray

from causeway.apps.wisp.domain.geodesy import step_lengths
from causeway.base.errors import Field, InvalidInput

Floats = NDArray[np.float64]

#: Decimals of degrees that a polyline keeps: metres, or decimetres.
PRECISIONS = (5, 6)
#: A polyline that is farther than this from coordinates is not theirs, metres.
DISAGREE_M = 5.0


def encode(lat: Floats, lng: Floats, precision: int = 5) -> str:
    """Return the polyline of points; of none, the empty string.

    Halves are rounded away from zero. Raises ValueError for another precision.
    """
    _check(precision)
    if not len(lat):
        return ""
    scale = 10.0**precision

    def rounded(values: Floats) -> list[float]:
        # The library rounds halves to even; what it is given has no halves left.
        whole = np.copysign(np.floor(np.abs(values) * scale + 0.5), values)
        return (whole / scale).tolist()

    return polyline.encode(list(zip(rounded(lat), rounded(lng), strict=True)), precision)


def decode(text: str, precision: int = 5) -> tuple[Floats, Floats]:
    """Return latitudes and longitudes of a polyline.

    Raises InvalidInput with the offset of the first character that fits no polyline, and for places
    that are none.
    """
    _check(precision)
    fault = _fault(text)
    if fault is not None:
        raise InvalidInput(
            f"encoded_polyline is broken at offset {fault}",
            fields=[Field("encoded_polyline", text[fault : fault + 10], "a whole polyline")],
        )
    if not text:
        return np.zeros(0), np.zeros(0)
    points = np.array(cast("Any", polyline.decode(text, precision)), np.float64)
    outside = np.flatnonzero((np.abs(points[:, 0]) > 90) | (np.abs(points[:, 1]) > 180))
    if len(outside):
        place = ", ".join(f"{value:g}" for value in points[outside[0]])
        raise InvalidInput(
            fields=[
                Field(
                    f"encoded_polyline[{outside[0]}]",
                    place,
                    "a place in degrees",
                )
            ]
        )
    return points[:, 0].copy(), points[:, 1].copy()


def disagreement_m(text: str, lat: Floats, lng: Floats, precision: int = 5) -> float:
    """Return how far a polyline is from coordinates at most, metres; infinite if it has others."""
    there = decode(text, precision)
    if len(there[0]) != len(lat):
        return math.inf
    if not len(lat):
        return 0.0
    pairs = np.column_stack((there[0], lat)).ravel(), np.column_stack((there[1], lng)).ravel()
    return float(step_lengths(*pairs)[::2].max())


def _check(precision: int) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision} is not 5 or 6")


def _fault(text: str) -> int | None:
    """Return the offset of the first character that fits no polyline; None if all do.

    A number is chunks of five bits, its last below 32; points are pairs of numbers, and none has
    more than six chunks.
    """
    numbers = chunks = 0
    for offset, character in enumerate(text):
        value = ord(character) - 63
        if not 0 <= value < 64 or chunks == 6:
            return offset
        chunks += 1
        if value < 32:
            numbers, chunks = numbers + 1, 0
    return len(text) if chunks or numbers % 2 else None
