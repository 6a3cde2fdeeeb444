"""What a runner can run: from efforts at some distances to times at others, and against ghosts.

Riegel, *Athletic records and human endurance* (American Scientist 69, 1981): time grows with
distance to the power 1.06. Daniels and Gilbert, *Oxygen power* (1979): the oxygen that a speed
needs, and the share of the most he can use that a runner can keep up for a time; their ratio is the
VDOT of an effort, the same at all distances for a runner equally trained for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.float64]

RIEGEL_EXPONENT = 1.06
LOWEST_EXPONENT, HIGHEST_EXPONENT = 1.01, 1.20
#: An exponent is fitted to so many efforts or more, if they lie within this share of its line.
FITTED_EFFORTS, FITTED_SHARE = 3, 0.03
#: The oxygen formula is for efforts of about this long, seconds.
SHORTEST_S, LONGEST_S = 210.0, 5 * 3600.0
#: How far predictions are off (one sigma): a share of the time, and more for each doubling.
SPREAD_SHARE, SPREAD_SHARE_DOUBLING = 0.02, 0.01
#: A marathon is not predicted without a warning from shorter runs than this, metres.
MARATHON_M, LONG_RUN_M = 42_195.0, 25_000.0
#: A probability is said only from so many past predictions on.
LEAST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class Performance:
    """One effort: metres and seconds."""

    distance_m: float
    time_s: float

    def __post_init__(self) -> None:
        if not (self.distance_m > 0 and self.time_s > 0):
            raise ValueError("an effort has a distance and a time")


def riegel(effort: Performance, distance_m: float, exponent: float = RIEGEL_EXPONENT) -> float:
    """Return the seconds that an effort means at another distance."""
    return effort.time_s * (distance_m / effort.distance_m) ** exponent


def fitted_exponent(efforts: Sequence[Performance]) -> float | None:
    """Return a runner's own exponent, 1.01..1.20; None if his efforts do not say.

    They must be three or more, of different distances, and lie within 3 % of one line.
    """
    if len(efforts) < FITTED_EFFORTS:
        return None
    x = np.log([one.distance_m for one in efforts])
    y = np.log([one.time_s for one in efforts])
    if float(np.ptp(x)) < math.log(2):
        return None
    slope, start = (float(one) for one in np.polyfit(x, y, 1))
    if float(np.sqrt(np.mean((y - start - slope * x) ** 2))) >= FITTED_SHARE:
        return None
    return min(max(slope, LOWEST_EXPONENT), HIGHEST_EXPONENT)


def oxygen(speed_m_min: float) -> float:
    """Return what running costs at a speed in metres a minute, ml/(kg min)."""
    return -4.60 + 0.182258 * speed_m_min + 0.000104 * speed_m_min**2


def usable_share(minutes: float) -> float:
    """Return the share of the most oxygen that can be used for so many minutes."""
    return (
        0.8 + 0.1894393 * math.exp(-0.012778 * minutes) + 0.2989558 * math.exp(-0.1932605 * minutes)
    )


def vdot(effort: Performance) -> float:
    """Return the VDOT of an effort, ml/(kg min)."""
    minutes = effort.time_s / 60.0
    return oxygen(effort.distance_m / minutes) / usable_share(minutes)


def time_of_vdot(value: float, distance_m: float) -> float:
    """Return the seconds in which a VDOT runs a distance.

    Raises ValueError for one that no pace between 1 and 12 m/s has.
    """

    def off(seconds: float) -> float:
        return vdot(Performance(distance_m, seconds)) - value

    found = cast("Any", optimize).brentq(off, distance_m / 12.0, distance_m / 1.0, xtol=1e-6)
    return float(found)


def threshold_pace(value: float) -> float:
    """Return the pace (s/km) that a VDOT keeps up for an hour."""
    needed = value * usable_share(60.0)
    a, b, c = 0.000104, 0.182258, -4.60 - needed
    speed = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    return 60_000.0 / speed


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds for a distance by both models, a range, and what they come from."""

    distance_m: float
    riegel_s: float
    vdot_s: float
    low_s: float
    high_s: float
    effort: Performance
    exponent: float
    warnings: tuple[str, ...] = ()

    @property
    def time_s(self) -> float:
        """The middle of both models."""
        return (self.riegel_s + self.vdot_s) / 2


def predict(
    efforts: Sequence[Performance], distance_m: float, *, longest_recent_m: float = math.inf
) -> Prediction | None:
    """Return what efforts mean at a distance; None without one that can be used.

    Used is the effort with the highest VDOT, among those of 3.5 minutes to 5 hours. The range is
    from the faster model less a sigma to the slower one and a sigma (2 %, and 1 % for each doubling
    of the distance either way). `longest_recent_m` is the longest run of the last eight weeks.
    """
    usable = [one for one in efforts if SHORTEST_S <= one.time_s <= LONGEST_S]
    if not usable:
        return None
    best = max(usable, key=vdot)
    exponent = fitted_exponent(usable) or RIEGEL_EXPONENT
    by_riegel, by_vdot = riegel(best, distance_m, exponent), time_of_vdot(vdot(best), distance_m)
    doublings = abs(math.log2(distance_m / best.distance_m))
    spread = SPREAD_SHARE + SPREAD_SHARE_DOUBLING * doublings
    warnings: list[str] = []
    if distance_m >= MARATHON_M and longest_recent_m < LONG_RUN_M:
        warnings.append(
            f"no run of {LONG_RUN_M / 1000:g} km or more in the last 8 weeks: "
            "expect to be slower than this"
        )
    return Prediction(
        distance_m,
        by_riegel,
        by_vdot,
        min(by_riegel, by_vdot) * (1 - spread),
        max(by_riegel, by_vdot) * (1 + spread),
        best,
        exponent,
        tuple(warnings),
    )


def success_probability(
    predicted_s: float, target_s: float, past_errors: Sequence[float]
) -> float | None:
    """Return the chance to be as fast as a target, 0..1; None with fewer than five past errors.

    `past_errors` are shares by which past predictions were off; sigma is their root mean square, at
    least 0.5 %. The chance is the logistic function of (target - predicted) / sigma.
    """
    if len(past_errors) < LEAST_ERRORS:
        return None
    errors = np.asarray(past_errors, np.float64)
    sigma_s = max(float(np.sqrt(np.mean(errors**2))), 0.005) * predicted_s
    z = (target_s - predicted_s) / sigma_s
    return 1 / (1 + math.exp(-max(min(z, 50.0), -50.0)))
