"""What single bad days do not change: robust trends, and values that are none of their series.

Theil-Sen: the median of the slopes between all pairs of points, with Sen's interval (J. Am. Stat.
Assoc. 63, 1968). Hampel's filter: what is more than three scaled median deviations from the median
of its neighbours is replaced by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import stats

from causeway.apps.wisp.domain.prediction import Performance
from causeway.apps.wisp.domain.splits import Effort

Floats = NDArray[np.float64]

TREND = timedelta(weeks=6)
#: Fewer points than this are no trend.
LEAST_POINTS = 4
#: A median absolute deviation times this is the sigma of normal errors.
MAD_SIGMA = 1.4826

#: The fastest that men have run, seconds; whoever is faster was not on foot.
WORLD_RECORDS_S = {
    400.0: 43.03,
    1000.0: 131.96,
    1609.344: 223.13,
    5000.0: 755.36,
    10_000.0: 1571.0,
    21_097.5: 3402.0,
    42_195.0: 7235.0,
}


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope a week with its 95 % interval, and how many points it comes from."""

    per_week: float
    low: float
    high: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval is all on one side of no change."""
        return self.low > 0 or self.high < 0


def trend(
    points: Sequence[tuple[datetime, float]], now: datetime, span: timedelta = TREND
) -> Trend | None:
    """Return the trend of values over the last six weeks; None with fewer than four of them."""
    recent = [(at, value) for at, value in points if now - span <= at <= now]
    if len(recent) < LEAST_POINTS or len({at for at, _ in recent}) < 2:
        return None
    weeks = [(at - now) / timedelta(weeks=1) for at, _ in recent]
    values = [value for _, value in recent]
    found = cast("Any", stats).theilslopes(values, weeks, alpha=0.95)
    return Trend(float(found.slope), float(found.low_slope), float(found.high_slope), len(recent))


def hampel(values: Floats, side: int = 3, sigmas: float = 3.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the values with outliers replaced by their neighbours' median, and which they were."""
    if len(values) <= 2 * side:
        return values.copy(), np.zeros(len(values), bool)
    windows = sliding_window_view(np.pad(values, side, mode="reflect"), 2 * side + 1)
    middle = np.median(windows, axis=1)
    spread = MAD_SIGMA * np.median(np.abs(windows - middle[:, None]), axis=1)
    found = np.abs(values - middle) > sigmas * spread + 1e-12
    return np.where(found, middle, values), found


def impossible(efforts: Sequence[Effort]) -> list[Effort]:
    """Return the efforts that are faster than world records: a car, a bicycle, a broken track."""
    return [one for one in efforts if one.time < WORLD_RECORDS_S.get(one.distance, 0.0)]


def performances(efforts: Sequence[Effort]) -> list[Performance]:
    """Return the efforts that say something of the runner: possible, and without gaps."""
    return [
        Performance(one.distance, one.time)
        for one in efforts
        if not one.spans_gap and one.time >= WORLD_RECORDS_S.get(one.distance, 0.0)
    ]
