"""OpenWeather's "time machine": the weather at a moment since 1979, with a key.

The key goes into the address, because there is no other place for it there; addresses are in no log
of ours.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, Field, SecretStr, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, ProviderUnavailable, RateLimited
from causeway.base.http import Response
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.errors import NoData
from causeway.connections.limits import Rate, Reading
from causeway.connections.weather import ARCHIVE_AFTER, Weather, cell

API_URL = "https://api.openweathermap.org"

#: Documented for the free plan: 60 in a minute.
RATE = Rate(50, 60)
#: A used-up quota is not asked again before this, seconds: it says nothing of when it is full.
QUOTA_PAUSE_S = 3600.0

#: Their groups in our words; the rest are the same in lower case.
_CONDITIONS = {"mist": "fog", "haze": "fog", "smoke": "dust", "sand": "dust", "ash": "dust"}


class _Group(BaseModel):
    main: str
    description: str | None = None


class _Rain(BaseModel):
    per_hour: float | None = Field(None, alias="1h")


class _Moment(BaseModel):
    dt: int
    temp: float = Field(allow_inf_nan=False)
    feels_like: float | None = None
    pressure: float | None = None
    humidity: float | None = None
    uvi: float | None = None
    clouds: float | None = None
    visibility: float | None = None
    wind_speed: float | None = None
    wind_deg: float | None = None
    weather: list[_Group] = Field(default_factory=list[_Group])
    rain: _Rain | None = None
    snow: _Rain | None = None


class _Answer(BaseModel):
    data: list[_Moment] = Field(min_length=1)


class OpenWeather:
    """OpenWeather's API for one key."""

    name = "openweather"

    def __init__(
        self,
        key: SecretStr,
        *,
        api_url: str = API_URL,
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._key = key
        self._clock = clock
        manner = manner or Manner(rate=RATE)
        self._client = ProviderClient(self.name, api_url, manner=manner, judge=_judge, clock=clock)

    async def at(self, lat: float, lng: float, moment: datetime) -> Weather:
        """Return the weather at a moment; the position is rounded before it leaves.

        Raises `NoData` for what it does not reach, `ConfigurationError` for a wrong key,
        `RateLimited`, `ProviderUnavailable`.
        """
        place = cell(lat, lng)
        answer = await self._client.request(
            "timemachine",
            "GET",
            "/data/3.0/onecall/timemachine",
            params={
                "lat": f"{place.lat:.2f}",
                "lon": f"{place.lng:.2f}",
                "dt": str(int(moment.timestamp())),
                "units": "metric",
                "appid": self._key.get_secret_value(),
            },
            accept=frozenset({400}),
        )
        if answer.status == 400:
            raise NoData(f"openweather does not know the weather of {moment:%Y-%m-%d %H:%M}")
        try:
            found = _Answer.model_validate_json(answer.body).data[0]
        except ValidationError:
            raise ProviderUnavailable(
                "openweather gave an answer in another shape", service=self.name
            ) from None
        group = found.weather[0] if found.weather else None
        word = group.main.lower() if group else None
        fallen = [part.per_hour for part in (found.rain, found.snow) if part and part.per_hour]
        return Weather(
            at=datetime.fromtimestamp(found.dt, UTC),
            temperature_c=found.temp,
            feels_like_c=found.feels_like,
            humidity=_share(found.humidity),
            wind_speed_mps=found.wind_speed,
            wind_from_deg=found.wind_deg if found.wind_speed else None,
            condition=_CONDITIONS.get(word, word) if word else None,
            description=group.description if group else None,
            cloud_cover=_share(found.clouds),
            visibility_m=found.visibility,
            uv_index=found.uvi,
            pressure_hpa=found.pressure,
            precipitation_mm=sum(fallen),
            source="openweathermap",
            is_final=moment < self._clock.now() - ARCHIVE_AFTER,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _share(percent: float | None) -> float | None:
    return None if percent is None else min(1.0, max(0.0, percent / 100))


def _judge(response: Response, reading: Reading | None, now: float) -> CausewayError | None:
    """Return what OpenWeather means: its 429 is a quota, and names no time."""
    if response.status == 429:
        return RateLimited(
            "openweather: the plan's calls are used up",
            retry_after_s=QUOTA_PAUSE_S,
            service="openweather",
        )
    return None
