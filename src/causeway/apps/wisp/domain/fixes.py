"""Single fixes as they come in, and which of them are believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from causeway.base.errors import Field

#: Nobody runs faster, in m/s.
FASTEST_MPS = 12.0
#: The best a fix is believed, and what is assumed when the accuracy is not sent, metres.
LEAST_SIGMA_M, USUAL_SIGMA_M = 4.0, 5.0
#: Fixes less exact than this say nothing of the place, metres.
USELESS_M = 50.0
#: So many impossible fixes in a row are a relocation.
RELOCATED_AFTER = 3


@dataclass(frozen=True, slots=True)
class Fix:
    """What a device sent of one moment; `t` in seconds since the start of the race."""

    t: float
    lat: float | None = None
    lng: float | None = None
    accuracy_m: float | None = None
    #: The device's own cumulative distance, metres.
    distance_m: float | None = None
    elevation_m: float | None = None
    heart_rate: int | None = None
    cadence: int | None = None


#: What a field of a fix may be; the fastest and the longest that anybody has run, and some.
_ALLOWED = (
    ("t", 0.0, 14 * 86_400.0, "0..1209600 seconds since the start"),
    ("lat", -90.0, 90.0, "-90..90"),
    ("lng", -180.0, 180.0, "-180..180"),
    ("accuracy_m", 0.0, 1e6, "0..1000000 metres"),
    ("distance_m", 0.0, 2e6, "0..2000000 metres"),
    ("elevation_m", -500.0, 10_000.0, "-500..10000 metres"),
    ("heart_rate", 20, 260, "20..260 beats a minute"),
    ("cadence", 0, 400, "0..400 steps a minute"),
)


def faults(fix: Fix) -> list[Field]:
    """Return what of a fix cannot be, field by field; nothing when it can."""
    found = [
        Field(name, f"{value:g}", allowed)
        for name, least, most, allowed in _ALLOWED
        if (value := getattr(fix, name)) is not None and not least <= value <= most
    ]
    if (fix.lat is None) != (fix.lng is None):
        found.append(Field("lat, lng", f"{fix.lat}, {fix.lng}", "both or neither"))
    if fix.lat is None and fix.lng is None and fix.distance_m is None:
        found.append(Field("lat, lng, distance_m", "none of them", "a place, a distance or both"))
    return found


def sigma_m(accuracy_m: float | None) -> float:
    """Return how far a fix is taken to err, metres in each direction."""
    return USUAL_SIGMA_M if accuracy_m is None else max(LEAST_SIGMA_M, accuracy_m)


class Gate:
    """Lets fixes through that a runner can have sent.

    A fix that implies more than 12 m/s, its error allowed for, is ignored; three in a row are a
    relocation, and the third is let through with `relocated`.
    """

    __slots__ = ("_jumps", "_last", "relocated")

    def __init__(self) -> None:
        self._last: tuple[float, float, float] | None = None
        self._jumps = 0
        self.relocated = False

    def lets(self, t: float, x: float, y: float, accuracy_m: float | None) -> bool:
        """Tell whether a fix (x, y in metres) is believed, and remember it if so."""
        self.relocated = False
        if accuracy_m is not None and accuracy_m > USELESS_M:
            return False
        if self._last is not None:
            t0, x0, y0 = self._last
            moved = math.hypot(x - x0, y - y0) - sigma_m(accuracy_m)
            if moved > FASTEST_MPS * (t - t0):
                self._jumps += 1
                if self._jumps < RELOCATED_AFTER:
                    return False
                self.relocated = True
        self._jumps = 0
        self._last = (t, x, y)
        return True
