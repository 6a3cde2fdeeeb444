"""What hills cost a runner: pace on the flat that would have been as hard.

Minetti and others, *Energy cost of walking and running at extreme uphill and downhill slopes*
(J. Appl. Physiol. 93, 2002): the cost of running in J/(kg m) over the gradient, measured between
-0.45 and +0.45.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.elevation import Profile

Floats = NDArray[np.float64]

#: J/(kg m) on the flat.
FLAT_COST = 3.6
STEEPEST = 0.45
_COST = np.array([155.4, -30.4, -43.3, 46.3, 19.5, FLAT_COST])
#: Gradients are those of stretches so long, metres: altitudes are not exact over less.
STRETCH_M = 50.0


def cost(gradient: Floats) -> Floats:
    """Return the cost of running at gradients (metres up per metre along), J/(kg m)."""
    return np.polyval(_COST, np.clip(gradient, -STEEPEST, STEEPEST)).astype(np.float64)


def factor(gradient: Floats) -> Floats:
    """Return how many flat metres are as hard as one metre at gradients."""
    return cost(gradient) / FLAT_COST


def flat_metres(found: Profile) -> Curve | None:
    """Return how many flat metres were as hard, over distance; None if the altitudes are unknown.

    A stretch whose altitude is not known is taken as flat.
    """
    length = float(found.s[-1])
    if not found.is_known or length <= 0:
        return None
    ends = np.append(np.arange(0.0, length, STRETCH_M), length)
    if len(ends) > 2 and ends[-1] - ends[-2] < STRETCH_M / 2:
        ends = np.delete(ends, -2)
    known = np.isfinite(found.altitude_m)
    altitude = np.interp(ends, found.s[known], found.altitude_m[known])
    widths = np.diff(ends)
    hard = widths * factor(np.diff(altitude) / widths)
    return Curve(ends, np.concatenate(([0.0], np.cumsum(hard))))


def adjusted_pace(time_s: float, start_m: float, end_m: float, flat: Curve) -> float | None:
    """Return the pace on the flat (s/km) that is as hard as a stretch run in a time."""
    metres = flat.time_at(end_m) - flat.time_at(start_m)
    return time_s / metres * 1000.0 if metres > 0 else None
