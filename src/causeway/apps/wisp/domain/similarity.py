"""Which runs go the same way: candidates by cells of the Earth, then the distance of two lines.

The distance is the discrete Fréchet distance (Eiter and Mannila, 1994): the shortest leash on which
two can walk both lines, neither ever going back. Candidates share H3 cells of resolution 9, some
170 m across.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import h3.api.basic_int as h3
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from causeway.apps.wisp.domain.geodesy import Plane

Floats = NDArray[np.float64]
Relation = Literal["same", "reverse", "other"]

STEP_M = 20.0
#: Two runs go the same way within so many metres and so much of the length.
SAME_M, SAME_SHARE = 40.0, 0.01
#: Ends this near to each other make a loop, metres.
LOOP_M = 60.0
#: A place is shared within this distance and this difference of direction (cosine of 45 degrees).
SHARED_M, SHARED_COSINE = 25.0, 0.7071
RESOLUTION = 9
#: Cells of which so much is common (Jaccard) make a candidate.
CANDIDATE_SHARE = 0.3
#: From so many places a loop is tried to have been started.
_ROTATIONS = 4


@dataclass(frozen=True)
class Line:
    """A way resampled to places about 20 m apart, in degrees; its length in metres."""

    lat: Floats
    lng: Floats
    length_m: float
    is_loop: bool

    @classmethod
    def of(cls, lat: Floats, lng: Floats) -> Line:
        """Return the line of a track with at least one known place."""
        known = np.isfinite(lat)
        lat, lng = lat[known], lng[known]
        plane = Plane.around(lat, lng)
        xy = plane.project(lat, lng)
        if len(xy) < 2:
            return cls(lat, lng, 0.0, False)
        s = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))))
        length = float(s[-1])
        at = np.linspace(0.0, length, max(2, round(length / STEP_M) + 1))
        points = np.column_stack([np.interp(at, s, xy[:, i]) for i in (0, 1)])
        is_loop = float(np.hypot(*(points[-1] - points[0]))) <= LOOP_M < length / 4
        return cls(*plane.unproject(points), length, is_loop)


def frechet_m(a: Floats, b: Floats) -> float:
    """Return the discrete Fréchet distance of two lines of places (x, y in metres).

    The table of the leash is filled along its diagonals, whose cells do not depend on each other.
    """
    n, m = len(a), len(b)
    # Indexed by row; what is outside of the table is out of reach.
    before, last = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    before[0] = -np.inf
    for diagonal in range(n + m - 1):
        low, high = max(0, diagonal - m + 1), min(n, diagonal + 1)
        rows = np.arange(low, high)
        apart = np.hypot(*(a[low:high] - b[diagonal - rows]).T)
        # Entry i + 1 is row i: from the row above, from the left, from both.
        leash = np.minimum(np.minimum(last[low:high], last[low + 1 : high + 1]), before[low:high])
        now = np.full(n + 1, np.inf)
        now[low + 1 : high + 1] = np.maximum(leash, apart)
        before, last = last, now
    return float(last[n])


def relation(a: Line, b: Line) -> Relation:
    """Tell whether two lines go the same way, the same way the other way round, or another."""
    allowed = SAME_M + SAME_SHARE * max(a.length_m, b.length_m)
    if abs(a.length_m - b.length_m) > 2 * allowed + 0.1 * max(a.length_m, b.length_m):
        return "other"
    plane = Plane.around(a.lat, a.lng)
    there, other = plane.project(a.lat, a.lng), plane.project(b.lat, b.lng)
    if _is_same(there, other, a.is_loop and b.is_loop, allowed):
        return "same"
    if _is_same(there, other[::-1], a.is_loop and b.is_loop, allowed):
        return "reverse"
    return "other"


def _is_same(a: Floats, b: Floats, are_loops: bool, allowed: float) -> bool:
    for turned in _rotated(b, a[0]) if are_loops else [b]:
        ends = np.hypot(*(turned[[0, -1]] - a[[0, -1]]).T)
        if ends.max() <= allowed and frechet_m(a, turned) <= allowed:
            return True
    return False


def _rotated(loop: Floats, start: Floats) -> Iterable[Floats]:
    """Yield a loop as if it had been started at each of its places nearest to another start."""
    apart = np.hypot(*(loop - start).T)
    # Local minima: on laps the start is passed more than once.
    around = sliding_window_view(np.concatenate((apart[-1:], apart, apart[:1])), 3)
    minima = np.flatnonzero(apart <= around.min(axis=1))
    for i in minima[np.argsort(apart[minima])][:_ROTATIONS]:
        yield np.vstack((loop[i:], loop[: i + 1]))


def shared_share(a: Line, b: Line) -> float:
    """Return the share of a's length that b also goes, within 25 m and in the same direction."""
    if len(a.lat) < 2 or len(b.lat) < 2:
        return 0.0
    plane = Plane.around(a.lat, a.lng)
    there, other = plane.project(a.lat, a.lng), plane.project(b.lat, b.lng)
    way_a, way_b = _directions(there), _directions(other)
    shared = np.zeros(len(there), bool)
    # In parts, so that two long runs do not make a matrix of gigabytes.
    for part in np.array_split(np.arange(len(there)), max(1, len(there) // 256)):
        off = there[part][:, None, :] - other[None, :, :]
        along = np.einsum("ijk,jk->ij", off, way_b)
        aside = off[..., 0] * way_b[None, :, 1] - off[..., 1] * way_b[None, :, 0]
        near = (np.abs(aside) <= SHARED_M) & (np.abs(along) <= STEP_M)
        shared[part] = np.any(near & (way_a[part] @ way_b.T >= SHARED_COSINE), axis=1)
    return float(np.mean(shared))


def _directions(xy: Floats) -> Floats:
    way = np.gradient(xy, axis=0)
    return way / np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-9)[:, None]


def cells(line: Line) -> frozenset[int]:
    """Return the H3 cells that a line goes through."""
    return frozenset(
        _cell(lat, lng, RESOLUTION)
        for lat, lng in zip(line.lat.tolist(), line.lng.tolist(), strict=True)
    )


_cell = cast("Callable[[float, float, int], int]", cast("Any", h3).latlng_to_cell)
Name = TypeVar("Name")


class CellIndex(Generic[Name]):
    """Runs by the cells they go through; finding candidates looks only at those cells."""

    def __init__(self) -> None:
        self._of_cell: dict[int, set[Name]] = {}
        self._of_run: dict[Name, frozenset[int]] = {}

    def add(self, name: Name, found: frozenset[int]) -> None:
        """Take a run in, or take it in anew."""
        self.remove(name)
        self._of_run[name] = found
        for cell in found:
            self._of_cell.setdefault(cell, set()).add(name)

    def remove(self, name: Name) -> None:
        """Forget a run; one that is not here is forgotten already."""
        for cell in self._of_run.pop(name, frozenset()):
            names = self._of_cell[cell]
            names.discard(name)
            if not names:
                del self._of_cell[cell]

    def candidates(
        self, found: frozenset[int], least_share: float = CANDIDATE_SHARE
    ) -> list[tuple[Name, float]]:
        """Return runs that share enough cells, with the Jaccard index, the most alike first."""
        common = Counter(name for cell in found for name in self._of_cell.get(cell, ()))
        shares = (
            (name, count / (len(found) + len(self._of_run[name]) - count))
            for name, count in common.items()
        )
        return sorted((one for one in shares if one[1] >= least_share), key=lambda one: -one[1])
