"""A stand-in for OpenWeather's time machine (`/openweather/data/3.0/onecall/timemachine`).

It makes the weather up as the stand-in of Open-Meteo does, in OpenWeather's own units and words.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.open_meteo import weather
from causeway.sandbox.world import World, route

_FIRST = int(datetime(1979, 1, 1, tzinfo=UTC).timestamp())
_AHEAD_S = 4 * 86_400
_MESSAGES = {
    401: "Invalid API key. Please see https://openweathermap.org/faq#error401 for more info.",
    404: "Internal error",
    429: (
        "Your account is temporary blocked due to exceeding of requests limitation of your "
        "subscription type. Please choose the proper subscription https://openweathermap.org/price"
    ),
}
#: WMO code -> id, group, description, icon.
_GROUPS = {
    0: (800, "Clear", "clear sky", "01d"),
    2: (802, "Clouds", "scattered clouds", "03d"),
    3: (804, "Clouds", "overcast clouds", "04d"),
    61: (500, "Rain", "light rain", "10d"),
}


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in OpenWeather's words."""
    return JSONResponse({"cod": status, "message": _MESSAGES.get(status, "Internal error")}, status)


class OpenWeather:
    """The `/openweather` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/openweather/data/3.0/onecall/timemachine", self._moment, "GET")

    async def _moment(self, request: Request) -> Response:
        query = request.query_params
        settings = self._world.settings
        given = query.get("appid", "").encode()
        if not hmac.compare_digest(given, settings.openweather_api_key.encode()):
            return refusal(401)
        now = int(self._world.now())
        day = now - now % 86_400
        counts = self._world.limits.openweather
        counts[day] = counts.get(day, 0) + 1
        if counts[day] > settings.openweather_per_day:
            return refusal(429)
        values: dict[str, float] = {}
        for name, least, most in (
            ("lat", -90, 90),
            ("lon", -180, 180),
            ("dt", _FIRST, now + _AHEAD_S),
        ):
            try:
                values[name] = float(query[name])
            except (KeyError, ValueError):
                return _wrong(f"Nothing to geocode: {name}", name)
            if not least <= values[name] <= most:
                return _wrong(f"wrong {name}", name)
        lat, lon, dt = values["lat"], values["lon"], int(values["dt"])
        made = weather(lat, lon, dt - dt % 3600)
        kelvin = {"metric": 0.0, "standard": 273.15}.get(query.get("units", "standard"), 273.15)
        number, group, description, icon = _GROUPS[int(made["weather_code"])]
        rain = {"rain": {"1h": made["precipitation"]}} if made["precipitation"] else {}
        moment = {
            "dt": dt,
            "sunrise": dt - dt % 86_400 + 21_600,
            "sunset": dt - dt % 86_400 + 64_800,
            "temp": round(made["temperature_2m"] + kelvin, 2),
            "feels_like": round(made["apparent_temperature"] + kelvin, 2),
            "pressure": round(made["pressure_msl"]),
            "humidity": made["relative_humidity_2m"],
            "dew_point": round(made["temperature_2m"] - 5 + kelvin, 2),
            "uvi": made["uv_index"],
            "clouds": made["cloud_cover"],
            "visibility": min(10_000, round(made["visibility"])),
            "wind_speed": made["wind_speed_10m"],
            "wind_deg": made["wind_direction_10m"],
            "weather": [{"id": number, "main": group, "description": description, "icon": icon}],
            **rain,
        }
        return JSONResponse(
            {"lat": lat, "lon": lon, "timezone": "Etc/UTC", "timezone_offset": 0, "data": [moment]}
        )


def _wrong(message: str, name: str) -> Response:
    return JSONResponse({"cod": "400", "message": message, "parameters": [name]}, 400)
