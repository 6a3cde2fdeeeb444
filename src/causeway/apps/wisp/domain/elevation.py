"""Altitude along a run: resampled, smoothed, and how much was climbed.

Altitudes by satellites err by many metres, so that summing every rise says nothing. The profile is
resampled every 10 m (which makes the answer the same at any rate of recording), cleaned by a median
and a mean if it is not barometric, and climbs are counted between turning points: a change of
direction is one only when it is as large as a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Kind = Literal["gps", "barometric", "dem"]

STEP_M = 10.0
#: Values around each that are smoothed together: 50 m.
SMOOTHED = 5
#: Turning points are this far apart in altitude at least, metres.
THRESHOLD_M: dict[Kind, float] = {"gps": 3.0, "barometric": 2.0, "dem": 5.0}
#: Longer stretches without altitudes are not bridged, metres.
BRIDGED_M = 200.0
#: With less of the way known than this share nothing is said of its climbs.
KNOWN_SHARE = 0.9


@dataclass(frozen=True)
class Profile:
    """Altitudes every 10 m along a run, metres; NaN where they are not known."""

    s: Floats
    altitude_m: Floats

    @property
    def is_known(self) -> bool:
        """Whether enough of the way has an altitude."""
        return bool(np.mean(np.isfinite(self.altitude_m)) >= KNOWN_SHARE)


@dataclass(frozen=True)
class Climb:
    """What was climbed and descended, and the ends of it, metres."""

    gain_m: float
    loss_m: float
    highest_m: float
    lowest_m: float


def profile(s: Floats, altitude_m: Floats, kind: Kind = "gps") -> Profile:
    """Return the smoothed profile of samples at distances `s`, which never fall."""
    grid = np.arange(0.0, float(s[-1]) + STEP_M / 2, STEP_M)
    known = np.isfinite(altitude_m)
    if int(known.sum()) < 2:
        return Profile(grid, np.full(len(grid), np.nan))
    at, altitude = s[known], altitude_m[known]
    found = np.interp(grid, at, altitude)
    right = np.clip(np.searchsorted(at, grid), 1, len(at) - 1)
    width = at[right] - at[right - 1]
    outside = (grid < at[0] - BRIDGED_M) | (grid > at[-1] + BRIDGED_M)
    inside_gap = (width > BRIDGED_M) & (grid > at[right - 1]) & (grid < at[right])
    found[outside | inside_gap] = np.nan
    if kind == "gps":
        found = _smoothed(_smoothed(found, by_median=True), by_median=False)
    return Profile(grid, found)


def _smoothed(values: Floats, *, by_median: bool) -> Floats:
    """Return the median or the mean of five values around each; unknown ones stay so."""
    known = np.isfinite(values)
    if not known.any():
        return values
    half = SMOOTHED // 2
    windows = sliding_window_view(np.pad(values, half, mode="edge"), SMOOTHED)[known]
    result = values.copy()
    result[known] = np.nanmedian(windows, axis=1) if by_median else np.nanmean(windows, axis=1)
    return result


def climb(found: Profile, kind: Kind = "gps") -> Climb | None:
    """Return what was climbed along a profile; None when too little of it is known."""
    if not found.is_known:
        return None
    known = np.isfinite(found.altitude_m)
    gain = loss = 0.0
    for part in np.split(found.altitude_m, np.flatnonzero(~known)):
        heights = part[np.isfinite(part)]
        if len(heights):
            up, down = _between_turns(heights.tolist(), THRESHOLD_M[kind])
            gain, loss = gain + up, loss + down
    heights = found.altitude_m[known]
    return Climb(gain, loss, float(heights.max()), float(heights.min()))


def _between_turns(heights: list[float], threshold: float) -> tuple[float, float]:
    """Return the metres up and down between turning points; the last stretch counts if it is one.

    `low` and `high` are the extremes since the last turn, `pivot` is that turn.
    """
    gain = loss = 0.0
    rising: bool | None = None
    pivot = low = high = heights[0]
    for height in heights:
        low, high = min(low, height), max(high, height)
        if rising is not False and high - height >= threshold:
            # Down from the highest: if it was rising, that climb is over.
            if rising:
                gain += high - pivot
            rising, pivot, low = False, high, height
            high = height
        elif rising is not True and height - low >= threshold:
            if rising is False:
                loss += pivot - low
            rising, pivot, high = True, low, height
            low = height
    if rising:
        gain += high - pivot
    elif rising is False:
        loss += pivot - low
    return gain, loss
