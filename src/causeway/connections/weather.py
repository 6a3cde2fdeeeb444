"""Weather at a place and a moment, whoever it comes from, and the arithmetic they share.

Degrees Celsius, m/s, degrees the wind comes from (0 is north, clockwise), shares from 0 to 1, hPa,
metres, mm in an hour. A position is rounded to a cell of 0.05 degrees (at most 2.8 km away) before
it leaves this process: nobody is told where somebody lives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from causeway.base.errors import CausewayError, Field, InvalidInput, TransientError
from causeway.connections.errors import NoData

#: Edge of a cell, degrees.
CELL = 0.05
#: Older than this, a moment is asked of an archive, whose answer does not change any more.
ARCHIVE_AFTER = timedelta(days=5)
#: A forecast's word for a moment is replaced by the archive's from then on.
RENEWED_AFTER = timedelta(days=6)
FORECAST_KEPT = timedelta(hours=1)

Source = Literal["open_meteo", "openweathermap"]


@dataclass(frozen=True)
class Cell:
    """The middle of a cell, in degrees: all that is told of a position."""

    lat: float
    lng: float


def cell(lat: float, lng: float) -> Cell:
    """Return the cell of a position. Raises `InvalidInput`."""
    wrong = [
        Field(name, str(value), f"{-most}..{most}")
        for name, value, most in (("lat", lat, 90), ("lng", lng, 180))
        if not -most <= value <= most
    ]
    if wrong:
        raise InvalidInput(fields=wrong)
    # Adding zero takes the sign off a zero; 180 degrees east and west are one meridian.
    east = round(round(lng / CELL) * CELL, 2) + 0.0
    return Cell(round(round(lat / CELL) * CELL, 2) + 0.0, -180.0 if east == 180 else east)


@dataclass(frozen=True)
class Weather:
    """The weather at one moment. What nobody measured is None."""

    at: datetime
    temperature_c: float
    feels_like_c: float | None = None
    humidity: float | None = None
    wind_speed_mps: float | None = None
    #: None also while there is no wind.
    wind_from_deg: float | None = None
    #: One word, the same whoever it comes from: `clear`, `clouds`, `fog`, `drizzle`, `rain`,
    #: `snow`, `thunderstorm`, or a rarer one.
    condition: str | None = None
    description: str | None = None
    cloud_cover: float | None = None
    visibility_m: float | None = None
    uv_index: float | None = None
    pressure_hpa: float | None = None
    precipitation_mm: float | None = None
    source: Source = "open_meteo"
    #: Whether it will be the same when asked again: an archive's, not a forecast's.
    is_final: bool = False

    def kept_until(self, now: datetime) -> datetime | None:
        """Return until when it may be answered from a cache; None: for ever."""
        return None if self.is_final else now + FORECAST_KEPT

    @property
    def renewed_at(self) -> datetime | None:
        """When to ask again, for the archive's word; None when this is it."""
        return None if self.is_final else self.at + RENEWED_AFTER


class WeatherSource(Protocol):
    """Somebody who knows the weather."""

    async def at(self, lat: float, lng: float, moment: datetime) -> Weather:
        """Return the weather; `NoData` where this one does not know it."""
        ...


async def first_known(
    sources: Sequence[WeatherSource], lat: float, lng: float, moment: datetime
) -> Weather:
    """Ask one after the other, and return the first answer.

    When none has one: raises what is transient, because later there may be one, with the shortest
    wait that was asked for; else what the last one said.
    """
    place = cell(lat, lng)
    failures: list[CausewayError] = []
    for source in sources:
        try:
            return await source.at(place.lat, place.lng, moment)
        except CausewayError as failure:
            failures.append(failure)
    if not failures:
        raise NoData("nobody is set up who knows the weather")
    later = [failure for failure in failures if isinstance(failure, TransientError)]
    raise min(later, key=lambda f: f.retry_after_s or 0.0) if later else failures[-1]


def interpolated(before: Weather, after: Weather, moment: datetime) -> Weather:
    """Return the weather at a moment between two of the same source.

    Numbers go from one to the other in a straight line, the wind as a vector: between 350 and 10
    degrees it comes from the north. The condition is that of the nearer one; rain is what fell in
    the hour that ends with the later one, as services count it.
    """
    span_s = (after.at - before.at).total_seconds()
    if not before.at <= moment <= after.at:
        raise InvalidInput(f"{moment} is not between {before.at} and {after.at}")
    part = (moment - before.at).total_seconds() / span_s if span_s else 0.0
    if part in (0.0, 1.0):
        return after if part else before

    def between(a: float | None, b: float | None) -> float | None:
        if a is None or b is None:
            return b if a is None else a
        return a + (b - a) * part

    near = before if part < 0.5 else after
    speed, direction = _wind_between(before, after, part)
    return replace(
        near,
        at=moment,
        temperature_c=before.temperature_c + (after.temperature_c - before.temperature_c) * part,
        feels_like_c=between(before.feels_like_c, after.feels_like_c),
        humidity=between(before.humidity, after.humidity),
        wind_speed_mps=speed,
        wind_from_deg=direction,
        cloud_cover=between(before.cloud_cover, after.cloud_cover),
        visibility_m=between(before.visibility_m, after.visibility_m),
        uv_index=between(before.uv_index, after.uv_index),
        pressure_hpa=between(before.pressure_hpa, after.pressure_hpa),
        precipitation_mm=after.precipitation_mm,
        is_final=before.is_final and after.is_final,
    )


#: Less wind than this has no direction, m/s.
_CALM_MPS = 1e-6


def _wind_between(a: Weather, b: Weather, part: float) -> tuple[float | None, float | None]:
    one, other = _vector(a), _vector(b)
    if one is None or other is None:
        known = a if other is None else b
        return known.wind_speed_mps, known.wind_from_deg
    east = one[0] + (other[0] - one[0]) * part
    north = one[1] + (other[1] - one[1]) * part
    speed = math.hypot(east, north)
    if speed < _CALM_MPS:
        return 0.0, None
    # `% 360` of a tiny negative angle is 360 itself.
    return speed, math.degrees(math.atan2(-east, -north)) % 360 % 360


def _vector(weather: Weather) -> tuple[float, float] | None:
    """Return where the air goes, to the east and to the north, m/s."""
    speed, direction = weather.wind_speed_mps, weather.wind_from_deg
    if speed is None:
        return None
    if direction is None:
        return (0.0, 0.0) if speed == 0 else None
    angle = math.radians(direction)
    return -speed * math.sin(angle), -speed * math.cos(angle)


def hours_around(moment: datetime) -> tuple[datetime, datetime]:
    """Return the full hours a moment is between; on a full hour both are that hour."""
    utc = moment.astimezone(UTC)
    before = utc.replace(minute=0, second=0, microsecond=0)
    return before, before if before == utc else before + timedelta(hours=1)
