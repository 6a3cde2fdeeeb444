"""In which time zone a run began: by its first place, since a phone's own clock may be anywhere."""

from __future__ import annotations

from functools import cache

from timezonefinder import TimezoneFinder


@cache
def _finder() -> TimezoneFinder:
    # Reads some 50 MB of borders, once.
    return TimezoneFinder(in_memory=False)


def zone_of(lat: float, lng: float) -> str:
    """Return the IANA name of the zone of a place; at sea one of `Etc/GMT±n`."""
    return _finder().timezone_at(lat=lat, lng=lng) or "UTC"
