"""A stand-in for Open-Meteo: forecast (`/open-meteo/v1`) and archive (`/open-meteo-archive/v1`).

The weather is made up from place and time alone, so both say the same, and a test can compute it.
The archive's last days are null, as they are while nobody has worked them up yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.world import World, route

#: name -> its unit.
UNITS = {
    "temperature_2m": "°C",
    "relative_humidity_2m": "%",
    "apparent_temperature": "°C",
    "precipitation": "mm",
    "weather_code": "wmo code",
    "cloud_cover": "%",
    "pressure_msl": "hPa",
    "wind_speed_10m": "m/s",
    "wind_direction_10m": "°",
    "visibility": "m",
    "uv_index": "",
}
_FORECAST_ONLY = {"visibility", "uv_index"}
_WIND = {
    "ms": ("m/s", 1.0),
    "kmh": ("km/h", 3.6),
    "mph": ("mp/h", 2.236936),
    "kn": ("kn", 1.943844),
}
#: Days a forecast reaches back and ahead, and how many of the archive's last are not there yet.
_PAST_DAYS, _FUTURE_DAYS, _LATE_DAYS = 92, 16, 6
_FIRST_DAY = date(1940, 1, 1)
_LIMITS = (
    (60, "Minutely API request limit exceeded. Please try again in one minute."),
    (3600, "Hourly API request limit exceeded. Please try again in the next hour."),
    (86_400, "Daily API request limit exceeded. Please try again tomorrow."),
)


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in Open-Meteo's words."""
    reason = _LIMITS[0][1] if status == 429 else "Not Found" if status == 404 else "Internal error"
    return JSONResponse({"error": True, "reason": reason}, status)


def weather(lat: float, lng: float, hour: int) -> dict[str, float]:
    """Return the weather of an hour (Unix seconds): made up, with some of everything."""
    day = 2 * math.pi * (hour % 86_400) / 86_400
    wave = math.sin(hour / 3600 * 0.7 + lat * 3 + lng)
    temperature = round(15 - 8 * math.cos(day) + 4 * wave, 1)
    clouds = round(50 + 50 * wave)
    wet = max(0.0, wave - 0.5)
    return {
        "temperature_2m": temperature,
        "relative_humidity_2m": round(65 - 25 * math.sin(day) * wave),
        "apparent_temperature": round(temperature - 2, 1),
        "precipitation": round(4 * wet, 1),
        "weather_code": 61 if wet else 3 if clouds > 80 else 2 if clouds > 30 else 0,
        "cloud_cover": clouds,
        "pressure_msl": round(1013 + 9 * wave, 1),
        "wind_speed_10m": round(4 + 3 * wave, 2),
        # Through north again and again, where directions cannot be averaged.
        "wind_direction_10m": (hour // 3600 * 37) % 360,
        "visibility": 24_140.0 - 20_000 * wet,
        "uv_index": round(max(0.0, -5 * math.cos(day)), 2),
    }


class OpenMeteo:
    """The `/open-meteo` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/open-meteo/v1/forecast", self._forecast, "GET")
        route(app, "/open-meteo-archive/v1/archive", self._archive, "GET")

    async def _forecast(self, request: Request) -> Response:
        today = self._world.clock.now().date()
        first, last = today - timedelta(days=_PAST_DAYS), today + timedelta(days=_FUTURE_DAYS - 1)
        return self._answer(request, first, last, set(UNITS), lambda hour: True)

    async def _archive(self, request: Request) -> Response:
        now = self._world.clock.now()
        worked_up = (now - timedelta(days=_LATE_DAYS)).timestamp()
        known = set(UNITS) - _FORECAST_ONLY
        return self._answer(request, _FIRST_DAY, now.date(), known, lambda hour: hour < worked_up)

    def _answer(
        self,
        request: Request,
        first: date,
        last: date,
        known: set[str],
        is_known: Callable[[int], bool],
    ) -> Response:
        limited = self._limited()
        if limited is not None:
            return limited
        query = request.query_params
        try:
            lat, lng = float(query["latitude"]), float(query["longitude"])
        except (KeyError, ValueError):
            return _wrong("Parameter 'latitude' and 'longitude' must be given.")
        if not -90 <= lat <= 90:
            return _wrong(f"Latitude must be in range of -90 to 90°. Given: {lat}.")
        if not -180 <= lng <= 180:
            return _wrong(f"Longitude must be in range of -180 to 180°. Given: {lng}.")
        dates: list[date] = []
        for name in ("start_date", "end_date"):
            try:
                day = date.fromisoformat(query[name])
            except KeyError:
                return _wrong(f"Parameter '{name}' must be set.")
            except ValueError:
                return _wrong("Invalid date format. Make sure to use 'YYYY-MM-DD'")
            if not first <= day <= last:
                reason = f"Parameter '{name}' is out of allowed range from {first} to {last}"
                return _wrong(reason)
            dates.append(day)
        if dates[1] < dates[0]:
            return _wrong("End-date must be larger or equals than start-date")
        names = [name for name in query.get("hourly", "").split(",") if name]
        for name in names:
            if name not in known:
                return _wrong(
                    "Data corrupted at path ''. Cannot initialize VariableOrDerived from invalid "
                    f"String value {name}."
                )
        unit = query.get("wind_speed_unit", "kmh")
        if unit not in _WIND:
            return _wrong(f"Cannot initialize WindspeedUnit from invalid String value {unit}.")
        start = int(datetime(dates[0].year, dates[0].month, dates[0].day, tzinfo=UTC).timestamp())
        count = ((dates[1] - dates[0]).days + 1) * 24
        hours = [start + 3600 * n for n in range(count)]
        fault = self._world.work_fault(request, "open_meteo")
        return JSONResponse(
            {
                # The middle of the model's own square, not what was asked for.
                "latitude": round(round(lat / 0.1) * 0.1, 5),
                "longitude": round(round(lng / 0.1) * 0.1, 5),
                "generationtime_ms": 0.1,
                "utc_offset_seconds": 0,
                "timezone": "GMT",
                "timezone_abbreviation": "GMT",
                "elevation": 38.0,
                **_table(
                    lat,
                    lng,
                    hours,
                    names,
                    unit,
                    is_unix=query.get("timeformat") == "unixtime",
                    is_known=lambda hour: is_known(hour) and (fault is None or hour % 7200 > 0),
                ),
            }
        )

    def _limited(self) -> Response | None:
        now = int(self._world.now())
        counts = self._world.limits.open_meteo
        most = self._world.settings.open_meteo_limits
        for (seconds, reason), allowed in zip(_LIMITS, most, strict=True):
            key = (seconds, now - now % seconds)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] > allowed:
                return JSONResponse({"error": True, "reason": reason}, 429)
        return None


def _table(
    lat: float,
    lng: float,
    hours: list[int],
    names: list[str],
    wind_unit: str,
    *,
    is_unix: bool,
    is_known: Callable[[int], bool],
) -> dict[str, Any]:
    times = [
        h if is_unix else datetime.fromtimestamp(h, UTC).strftime("%Y-%m-%dT%H:%M") for h in hours
    ]
    word, factor = _WIND[wind_unit]
    units = {"time": "unixtime" if is_unix else "iso8601"}
    columns: dict[str, Any] = {"time": times}
    for name in names:
        units[name] = word if name == "wind_speed_10m" else UNITS[name]
        columns[name] = [
            round(weather(lat, lng, h)[name] * (factor if name == "wind_speed_10m" else 1), 2)
            if is_known(h)
            else None
            for h in hours
        ]
    return {"hourly_units": units, "hourly": columns}


def _wrong(reason: str) -> Response:
    return JSONResponse({"error": True, "reason": reason}, 400)
