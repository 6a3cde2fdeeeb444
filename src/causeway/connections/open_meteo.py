"""Open-Meteo: the weather of any hour since 1940, without a key.

The last days and the next come from the forecast, everything older from the archive, whose last
days are empty. Times are Unix seconds of GMT; the answer's arrays are as long as its `time`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, Field, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, ProviderUnavailable, RateLimited
from causeway.base.http import Response
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.errors import NoData
from causeway.connections.limits import Rate, Reading
from causeway.connections.weather import (
    ARCHIVE_AFTER,
    Weather,
    cell,
    hours_around,
    interpolated,
)

FORECAST_URL = "https://api.open-meteo.com"
ARCHIVE_URL = "https://archive-api.open-meteo.com"

#: Documented for the free service: less than 600 in a minute.
RATE = Rate(500, 60)

#: How far back the forecast knows what it said.
FORECAST_REACH = timedelta(days=90)

HOURLY = (
    *("temperature_2m", "relative_humidity_2m", "apparent_temperature", "precipitation"),
    *("weather_code", "cloud_cover", "pressure_msl", "wind_speed_10m", "wind_direction_10m"),
)
#: Only forecasts have these.
FORECAST_ONLY = ("visibility", "uv_index")

#: The units that were asked for. An answer in others is not believed.
_UNITS = {
    "time": "unixtime",
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
}

#: WMO 4677 as Open-Meteo uses it: code -> condition, description.
WMO: dict[int, tuple[str, str]] = {
    0: ("clear", "clear sky"),
    1: ("clear", "mainly clear"),
    2: ("clouds", "partly cloudy"),
    3: ("clouds", "overcast"),
    45: ("fog", "fog"),
    48: ("fog", "depositing rime fog"),
    51: ("drizzle", "light drizzle"),
    53: ("drizzle", "moderate drizzle"),
    55: ("drizzle", "dense drizzle"),
    56: ("drizzle", "light freezing drizzle"),
    57: ("drizzle", "dense freezing drizzle"),
    61: ("rain", "slight rain"),
    63: ("rain", "moderate rain"),
    65: ("rain", "heavy rain"),
    66: ("rain", "light freezing rain"),
    67: ("rain", "heavy freezing rain"),
    71: ("snow", "slight snowfall"),
    73: ("snow", "moderate snowfall"),
    75: ("snow", "heavy snowfall"),
    77: ("snow", "snow grains"),
    80: ("rain", "slight rain showers"),
    81: ("rain", "moderate rain showers"),
    82: ("rain", "violent rain showers"),
    85: ("snow", "slight snow showers"),
    86: ("snow", "heavy snow showers"),
    95: ("thunderstorm", "thunderstorm"),
    96: ("thunderstorm", "thunderstorm with slight hail"),
    99: ("thunderstorm", "thunderstorm with heavy hail"),
}

_Values = list[float | None]


class _Hourly(BaseModel):
    time: list[int]
    temperature_2m: _Values
    relative_humidity_2m: _Values
    apparent_temperature: _Values
    precipitation: _Values
    weather_code: _Values
    cloud_cover: _Values
    pressure_msl: _Values
    wind_speed_10m: _Values
    wind_direction_10m: _Values
    visibility: _Values = Field(default_factory=_Values)
    uv_index: _Values = Field(default_factory=_Values)


class _Answer(BaseModel):
    hourly_units: dict[str, str]
    hourly: _Hourly


class OpenMeteo:
    """Open-Meteo's forecast and archive."""

    name = "open_meteo"

    def __init__(
        self,
        *,
        forecast_url: str = FORECAST_URL,
        archive_url: str = ARCHIVE_URL,
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._archive_url = archive_url
        manner = manner or Manner(rate=RATE)
        self._client = ProviderClient(
            self.name, forecast_url, manner=manner, judge=_judge, clock=clock
        )

    async def at(self, lat: float, lng: float, moment: datetime) -> Weather:
        """Return the weather at a moment; the position is rounded before it leaves.

        Raises `NoData` for what nobody measured or foresees, `RateLimited`, `ProviderUnavailable`.
        """
        age = self._clock.now() - moment
        if age > ARCHIVE_AFTER:
            found = await self._ask(lat, lng, moment, is_archive=True)
            if found is not None or age > FORECAST_REACH:
                return _known(found, moment)
            # The archive is not that far yet; the forecast's word will do until it is.
        return _known(await self._ask(lat, lng, moment, is_archive=False), moment)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(
        self, lat: float, lng: float, moment: datetime, *, is_archive: bool
    ) -> Weather | None:
        place = cell(lat, lng)
        before, after = hours_around(moment)
        names = HOURLY if is_archive else (*HOURLY, *FORECAST_ONLY)
        answer = await self._client.request(
            "archive" if is_archive else "forecast",
            "GET",
            f"{self._archive_url}/v1/archive" if is_archive else "/v1/forecast",
            params={
                "latitude": f"{place.lat:.2f}",
                "longitude": f"{place.lng:.2f}",
                "start_date": before.date().isoformat(),
                "end_date": after.date().isoformat(),
                "hourly": ",".join(names),
                "wind_speed_unit": "ms",
                "timeformat": "unixtime",
                "timezone": "GMT",
            },
        )
        hours = _hours(answer, is_final=is_archive)
        first, last = hours.get(before), hours.get(after)
        if first is None or last is None:
            return None
        return interpolated(first, last, moment)


def _known(found: Weather | None, moment: datetime) -> Weather:
    if found is None:
        raise NoData(f"open-meteo does not know the weather of {moment:%Y-%m-%d %H:%M}")
    return found


def _hours(answer: Response, *, is_final: bool) -> dict[datetime, Weather]:
    """Return the hours of an answer that have a temperature, by their time."""
    try:
        found = _Answer.model_validate_json(answer.body)
    except ValidationError:
        raise _strange("an answer in another shape") from None
    hourly = found.hourly
    for name, unit in _UNITS.items():
        if getattr(hourly, name) and found.hourly_units.get(name) != unit:
            raise _strange(f"{name} in another unit than {unit}")
    count = len(hourly.time)
    columns = [getattr(hourly, name) for name in (*HOURLY, *FORECAST_ONLY)]
    if any(len(column) not in (0, count) for column in columns):
        raise _strange("columns of different lengths")
    hours: dict[datetime, Weather] = {}
    for n, seconds in enumerate(hourly.time):
        values = {
            name: column[n] if column else None
            for name, column in zip((*HOURLY, *FORECAST_ONLY), columns, strict=True)
        }
        temperature = values["temperature_2m"]
        if temperature is None:
            continue
        code = values["weather_code"]
        condition, description = WMO.get(-1 if code is None else int(code), (None, None))
        at = datetime.fromtimestamp(seconds, UTC)
        hours[at] = Weather(
            at=at,
            temperature_c=temperature,
            feels_like_c=values["apparent_temperature"],
            humidity=_share(values["relative_humidity_2m"]),
            wind_speed_mps=values["wind_speed_10m"],
            wind_from_deg=values["wind_direction_10m"],
            condition=condition,
            description=description,
            cloud_cover=_share(values["cloud_cover"]),
            visibility_m=values["visibility"],
            uv_index=values["uv_index"],
            pressure_hpa=values["pressure_msl"],
            precipitation_mm=values["precipitation"],
            source="open_meteo",
            is_final=is_final,
        )
    return hours


def _share(percent: float | None) -> float | None:
    return None if percent is None else min(1.0, max(0.0, percent / 100))


def _judge(response: Response, reading: Reading | None, now: float) -> CausewayError | None:
    """Return what Open-Meteo says in a sentence."""
    if response.status not in (400, 429):
        return None
    try:
        reason = _Refusal.model_validate_json(response.body).reason
    except ValidationError:
        return None
    if response.status == 400:
        if "out of allowed range" in reason:
            return NoData("open-meteo does not reach that day")
        return None
    period_s = next((s for word, s in _PERIODS.items() if reason.startswith(word)), 60)
    return RateLimited(
        "open-meteo asks to slow down",
        retry_after_s=period_s - now % period_s + 1,
        service="open_meteo",
    )


class _Refusal(BaseModel):
    reason: str


#: First word of the reason -> the window that is full, seconds.
_PERIODS = {
    "Minutely": 60,
    "Hourly": 3600,
    "Daily": int(timedelta(days=1).total_seconds()),
}


def _strange(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"open-meteo gave {what}", service="open_meteo")
