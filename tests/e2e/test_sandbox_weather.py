"""The stand-ins of Open-Meteo and OpenWeather answer as the real ones document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx2
import pytest

from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from tests.connections import HandClock

pytest_plugins = ["tests.sandbox_fixtures"]

BERLIN = {"latitude": "52.52", "longitude": "13.41"}
DAY = {"start_date": "2026-10-30", "end_date": "2026-10-31"}


@pytest.fixture(name="s")
async def _sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer.start(settings=SandboxSettings(), clock=HandClock()) as server:
        yield server


async def test_open_meteo_s_table(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    url = f"{s.open_meteo_url}/v1/forecast"
    hourly = {"hourly": "temperature_2m,wind_speed_10m"}
    plain = (await http.get(url, params={**BERLIN, **DAY, **hourly})).json()
    assert plain["hourly_units"] == {
        "time": "iso8601",
        "temperature_2m": "°C",
        "wind_speed_10m": "km/h",
    }
    assert plain["hourly"]["time"][:2] == ["2026-10-30T00:00", "2026-10-30T01:00"]
    assert {len(column) for column in plain["hourly"].values()} == {48}
    # The model's square, not the place that was asked for.
    assert (plain["latitude"], plain["timezone"]) == (52.5, "GMT")
    units = {"wind_speed_unit": "ms", "timeformat": "unixtime"}
    ours = (await http.get(url, params={**BERLIN, **DAY, **hourly, **units})).json()
    assert ours["hourly_units"]["wind_speed_10m"] == "m/s"
    assert ours["hourly"]["time"][0] == int(datetime(2026, 10, 30, tzinfo=UTC).timestamp())
    assert plain["hourly"]["wind_speed_10m"][0] == pytest.approx(
        3.6 * ours["hourly"]["wind_speed_10m"][0], abs=0.02
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latitude": "300"}, "Latitude must be in range of -90 to 90°. Given: 300.0."),
        (
            {"start_date": "2020-01-01"},
            "Parameter 'start_date' is out of allowed range from 2026-08-01 to 2026-11-16",
        ),
        ({"start_date": "1 May"}, "Invalid date format. Make sure to use 'YYYY-MM-DD'"),
        ({"end_date": "2026-10-01"}, "End-date must be larger or equals than start-date"),
    ],
)
async def test_open_meteo_s_errors(
    s: SandboxServer, http: httpx2.AsyncClient, change: dict[str, str], reason: str
) -> None:
    answer = await http.get(
        f"{s.open_meteo_url}/v1/forecast", params={**BERLIN, **DAY, "hourly": "rain", **change}
    )
    assert (answer.status_code, answer.json()) == (400, {"error": True, "reason": reason})


async def test_an_unknown_variable_is_named(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    for base, name in ((s.open_meteo_url + "/v1/forecast", "tempeture_2m"),
                       (s.open_meteo_archive_url + "/v1/archive", "uv_index")):  # fmt: skip
        answer = await http.get(base, params={**BERLIN, **DAY, "hourly": name})
        assert answer.status_code == 400
        assert answer.json()["reason"].endswith(f"invalid String value {name}.")


async def test_the_archive_s_last_days_are_null(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    days = {"start_date": "2026-10-20", "end_date": "2026-11-01"}
    answer = await http.get(
        f"{s.open_meteo_archive_url}/v1/archive",
        params={**BERLIN, **days, "hourly": "temperature_2m"},
    )
    column = answer.json()["hourly"]["temperature_2m"]
    assert column[0] is not None
    assert column[-1] is None


@pytest.mark.parametrize(
    ("limits", "word"), [((1, 9, 9), "Minutely"), ((9, 1, 9), "Hourly"), ((9, 9, 1), "Daily")]
)
async def test_open_meteo_s_limits(
    s: SandboxServer, http: httpx2.AsyncClient, limits: tuple[int, int, int], word: str
) -> None:
    s.settings.open_meteo_limits = limits
    url = f"{s.open_meteo_url}/v1/forecast"
    params = {**BERLIN, **DAY, "hourly": "cloud_cover"}
    assert (await http.get(url, params=params)).status_code == 200
    refused = await http.get(url, params=params)
    assert refused.status_code == 429
    assert refused.json()["reason"].startswith(f"{word} API request limit exceeded.")
    assert "Retry-After" not in refused.headers


async def test_openweather_s_moment(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    url = f"{s.openweather_url}/data/3.0/onecall/timemachine"
    at = str(int(datetime(2026, 10, 30, 6, tzinfo=UTC).timestamp()))
    asked = {"lat": "52.5", "lon": "13.4", "dt": at, "appid": "sandbox-openweather"}
    kelvin = (await http.get(url, params=asked)).json()
    (moment,) = kelvin["data"]
    assert moment["dt"] == int(at)
    assert {"temp", "feels_like", "pressure", "humidity", "uvi", "clouds", "visibility"} <= set(
        moment
    )
    assert set(moment["weather"][0]) == {"id", "main", "description", "icon"}
    metric = (await http.get(url, params={**asked, "units": "metric"})).json()
    assert moment["temp"] - metric["data"][0]["temp"] == pytest.approx(273.15)
    refused = await http.get(url, params={**asked, "appid": "wrong"})
    assert (refused.status_code, refused.json()["cod"]) == (401, 401)
    assert "Invalid API key" in refused.json()["message"]
    bad = await http.get(url, params={**asked, "lat": "91"})
    assert (bad.status_code, bad.json()["cod"]) == (400, "400")
    s.settings.openweather_per_day = 0
    assert (await http.get(url, params=asked)).status_code == 429
