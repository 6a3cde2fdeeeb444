"""How hard training was, and what it adds up to.

A run's load is Banister's training impulse where there is a heart rate (Morton, Fitz-Clarke and
Banister, J. Appl. Physiol. 69, 1990), else the running stress score of its pace; an hour at one's
threshold is 100 of the latter. Fitness (CTL) and fatigue (ATL) are exponential averages over 42 and
7 days, each calendar day a step, days of rest too; form is their difference of the day before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.clean import GAP_S

Floats = NDArray[np.float64]

#: Factor and exponent of the training impulse.
TRIMP_WEIGHTS: dict[Literal["male", "female"], tuple[float, float]] = {
    "male": (0.64, 1.92),
    "female": (0.86, 1.67),
}
FITNESS_DAYS, FATIGUE_DAYS = 42.0, 7.0


def trimp(
    t: Floats,
    heart_rate: Floats,
    *,
    resting: float,
    maximum: float,
    sex: Literal["male", "female"] = "male",
) -> float | None:
    """Return the training impulse of a run; None without a heart rate for half of its time.

    `t` in seconds, heart rates in beats a minute; a sample stands for the time to the next, pauses
    of 30 s and more not counted. Raises ValueError when the maximum is not above the resting rate.
    """
    if not maximum > resting > 0:
        raise ValueError("the maximum heart rate is above the resting one")
    lasting = np.diff(t, append=t[-1:])
    lasting = np.where(lasting < GAP_S, lasting, 0.0)
    known = np.isfinite(heart_rate)
    if lasting[known].sum() < 0.5 * lasting.sum() or not lasting[known].sum() > 0:
        return None
    reserve = np.clip((heart_rate[known] - resting) / (maximum - resting), 0.0, 1.0)
    factor, exponent = TRIMP_WEIGHTS[sex]
    weights = reserve * factor * np.exp(exponent * reserve)
    found = float((lasting[known] * weights).sum() / 60.0)
    # What is not known is taken to have been like what is.
    return found * float(lasting.sum() / lasting[known].sum())


def running_stress(duration_s: float, pace: float, threshold: float) -> float:
    """Return the running stress score: hours, times the intensity squared, times 100.

    Paces in s/km, grade-adjusted; the intensity is the threshold's pace over the run's.
    """
    if not (pace > 0 and threshold > 0):
        raise ValueError("a pace is above 0")
    return duration_s / 3600.0 * (threshold / pace) ** 2 * 100.0


def day_of(instant: datetime, zone: tzinfo) -> date:
    """Return the calendar day of an aware instant, where the runner is."""
    return instant.astimezone(zone).date()


@dataclass(frozen=True, slots=True)
class Day:
    """One day: what was trained, fitness and fatigue at its end, and the form it began with."""

    day: date
    load: float
    ctl: float
    atl: float
    form: float


def fitness(loads: Mapping[date, float], until: date) -> list[Day]:
    """Return every day from the first load to a last day; from nothing at the beginning."""
    if not loads:
        return []
    slow, fast = 1 - math.exp(-1 / FITNESS_DAYS), 1 - math.exp(-1 / FATIGUE_DAYS)
    found: list[Day] = []
    ctl = atl = 0.0
    day = min(loads)
    while day <= until:
        load, form = loads.get(day, 0.0), ctl - atl
        ctl += (load - ctl) * slow
        atl += (load - atl) * fast
        found.append(Day(day, load, ctl, atl, form))
        day += timedelta(days=1)
    return found
