"""Weather at a place and a moment: from whom, in which units, between the hours, and to whom the
place is told."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from causeway.base.errors import (
    ConfigurationError,
    InvalidInput,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.connections.errors import NoData
from causeway.connections.open_meteo import WMO, OpenMeteo
from causeway.connections.openweather import OpenWeather
from causeway.connections.weather import (
    CELL,
    Weather,
    cell,
    first_known,
    hours_around,
    interpolated,
)
from causeway.sandbox.open_meteo import weather
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from tests.connections import HandClock

KEY = "sandbox-openweather"
#: The clock stands at noon of 2026-11-01.
RECENT = datetime(2026, 10, 31, 6, 30, tzinfo=UTC)
OLD = datetime(2025, 3, 2, 6, 30, tzinfo=UTC)
TURIN = (45.0703, 7.6869)


@dataclass
class Sky:
    sandbox: SandboxServer
    clock: HandClock
    meteo: OpenMeteo
    openweather: OpenWeather

    def asked(self) -> list[str]:
        return [entry.path for entry in self.sandbox.log()]


@pytest.fixture(name="s")
async def _sky() -> AsyncIterator[Sky]:
    clock = HandClock()
    async with SandboxServer.start(settings=SandboxSettings(), clock=clock) as sandbox:
        meteo = OpenMeteo(
            forecast_url=sandbox.open_meteo_url,
            archive_url=sandbox.open_meteo_archive_url,
            clock=clock,
        )
        paid = OpenWeather(SecretStr(KEY), api_url=sandbox.openweather_url, clock=clock)
        try:
            yield Sky(sandbox, clock, meteo, paid)
        finally:
            await meteo.aclose()
            await paid.aclose()


def made(moment: datetime) -> dict[str, float]:
    """Return what the stand-in makes up for the hour before, in the cell that is asked for."""
    hour = int(moment.timestamp())
    return weather(45.05, 7.7, hour - hour % 3600)


# Places


def test_cells() -> None:
    assert (cell(*TURIN).lat, cell(*TURIN).lng) == (45.05, 7.7)
    assert cell(-0.01, 0.02) == cell(0.02, -0.01)
    assert str(cell(-0.01, -0.01).lat) == "0.0"
    assert cell(10, 179.99) == cell(10, -179.99)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_a_cell_is_near_and_says_no_more_than_that(lat: float, lng: float) -> None:
    found = cell(lat, lng)
    assert abs(found.lat - lat) <= CELL / 2 + 1e-9
    assert min(abs(found.lng - lng), 360 - abs(found.lng - lng)) <= CELL / 2 + 1e-9
    for value in (found.lat, found.lng):
        assert round(value / CELL) * CELL == pytest.approx(value, abs=1e-9)
    assert cell(found.lat, found.lng) == found


@pytest.mark.parametrize(("lat", "lng"), [(90.1, 0), (0, -180.1), (math.nan, 0), (0, math.inf)])
def test_what_is_no_place(lat: float, lng: float) -> None:
    with pytest.raises(InvalidInput):
        cell(lat, lng)


async def test_a_position_is_rounded_before_it_leaves(s: Sky) -> None:
    await s.meteo.at(*TURIN, RECENT)
    await s.meteo.at(*TURIN, OLD)
    await s.openweather.at(*TURIN, RECENT)
    queries = [entry.query for entry in s.sandbox.log()]
    assert [(q["latitude"], q["longitude"]) for q in queries[:2]] == [("45.05", "7.70")] * 2
    assert (queries[2]["lat"], queries[2]["lon"]) == ("45.05", "7.70")


# From whom


@pytest.mark.parametrize(
    ("moment", "path"),
    [
        (datetime(2026, 11, 3, 6, tzinfo=UTC), "/open-meteo/v1/forecast"),
        (datetime(2026, 10, 27, 12, 0, 1, tzinfo=UTC), "/open-meteo/v1/forecast"),
        (datetime(2026, 10, 1, 6, tzinfo=UTC), "/open-meteo-archive/v1/archive"),
        (datetime(1940, 1, 1, tzinfo=UTC), "/open-meteo-archive/v1/archive"),
    ],
)
async def test_the_last_days_come_from_the_forecast(s: Sky, moment: datetime, path: str) -> None:
    found = await s.meteo.at(*TURIN, moment)
    assert s.asked() == [path]
    assert found.is_final == path.endswith("archive")
    assert (found.visibility_m is None) == found.is_final


async def test_an_archive_that_is_not_that_far_yet(s: Sky) -> None:
    moment = datetime(2026, 10, 27, 6, tzinfo=UTC)  # five days and six hours ago
    found = await s.meteo.at(*TURIN, moment)
    assert s.asked() == ["/open-meteo-archive/v1/archive", "/open-meteo/v1/forecast"]
    assert not found.is_final
    assert found.renewed_at == datetime(2026, 11, 2, 6, tzinfo=UTC)
    assert found.kept_until(s.clock.now()) == s.clock.now() + timedelta(hours=1)
    s.clock.move(2 * 86_400)
    renewed = await s.meteo.at(*TURIN, moment)
    assert renewed.is_final
    assert (renewed.renewed_at, renewed.kept_until(s.clock.now())) == (None, None)
    assert renewed.temperature_c == found.temperature_c


@pytest.mark.parametrize(
    "moment", [datetime(1939, 12, 31, tzinfo=UTC), datetime(2026, 12, 24, tzinfo=UTC)]
)
async def test_what_nobody_knows(s: Sky, moment: datetime) -> None:
    with pytest.raises(NoData):
        await s.meteo.at(*TURIN, moment)


async def test_first_one_then_the_other(s: Sky) -> None:
    sources = (s.meteo, s.openweather)
    assert (await first_known(sources, *TURIN, RECENT)).source == "open_meteo"
    s.sandbox.fault("open_meteo", "status", status=500)
    assert (await first_known(sources, *TURIN, RECENT)).source == "openweathermap"
    # Nobody answers now: later somebody may, so it is not said that nobody knows.
    s.sandbox.fault("openweather", "rate_limit")
    with pytest.raises(TransientError):
        await first_known(sources, *TURIN, RECENT)
    with pytest.raises(NoData):
        await first_known((), *TURIN, RECENT)


# Units


async def test_open_meteo_in_our_units(s: Sky) -> None:
    moment = datetime(2026, 10, 31, 6, tzinfo=UTC)
    found = await s.meteo.at(*TURIN, moment)
    there = made(moment)
    condition, description = WMO[int(there["weather_code"])]
    assert found == Weather(
        at=moment,
        temperature_c=there["temperature_2m"],
        feels_like_c=there["apparent_temperature"],
        humidity=there["relative_humidity_2m"] / 100,
        wind_speed_mps=there["wind_speed_10m"],
        wind_from_deg=there["wind_direction_10m"],
        condition=condition,
        description=description,
        cloud_cover=there["cloud_cover"] / 100,
        visibility_m=there["visibility"],
        uv_index=there["uv_index"],
        pressure_hpa=there["pressure_msl"],
        precipitation_mm=there["precipitation"],
    )
    (entry,) = s.sandbox.log()
    assert entry.query["wind_speed_unit"] == "ms"
    assert entry.query["timeformat"] == "unixtime"


async def test_openweather_in_our_units(s: Sky) -> None:
    moment = datetime(2026, 10, 31, 6, tzinfo=UTC)
    found = await s.openweather.at(*TURIN, moment)
    there = made(moment)
    assert found.temperature_c == there["temperature_2m"]
    assert found.humidity == there["relative_humidity_2m"] / 100
    assert found.wind_speed_mps == there["wind_speed_10m"]
    assert found.wind_from_deg == there["wind_direction_10m"]
    assert found.cloud_cover == there["cloud_cover"] / 100
    assert found.condition == WMO[int(there["weather_code"])][0]
    assert found.source == "openweathermap"
    assert not found.is_final
    assert (await s.openweather.at(*TURIN, OLD)).is_final
    with pytest.raises(NoData):
        await s.openweather.at(*TURIN, datetime(1978, 12, 31, tzinfo=UTC))


def answer(**change: Any) -> dict[str, Any]:
    """Return an answer of Open-Meteo for 2026-10-31, with something changed."""
    names = {
        **dict.fromkeys(("temperature_2m", "apparent_temperature"), "°C"),
        **dict.fromkeys(("relative_humidity_2m", "cloud_cover"), "%"),
        **{"precipitation": "mm", "weather_code": "wmo code", "pressure_msl": "hPa"},
        **{"wind_speed_10m": "m/s", "wind_direction_10m": "°"},
    }
    start = int(datetime(2026, 10, 31, tzinfo=UTC).timestamp())
    hourly: dict[str, Any] = {"time": [start + 3600 * n for n in range(24)]}
    hourly |= {name: [1.0] * 24 for name in names}
    return {
        "hourly_units": {"time": "unixtime", **names, **change.get("units", {})},
        "hourly": {**hourly, **change.get("hourly", {})},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"units": {"wind_speed_10m": "km/h"}},
        {"units": {"temperature_2m": "°F"}},
        {"units": {"time": "iso8601"}},
        {"hourly": {"temperature_2m": [1.0] * 23}},
        {"hourly": {"temperature_2m": ["warm"] * 24}},
        {"hourly": {"time": ["2026-10-31T00:00"] * 24}},
        {"hourly": {"wind_speed_10m": None}},
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for(s: Sky, change: dict[str, Any]) -> None:
    s.sandbox.fault(
        "open_meteo", "status", status=200, body=orjson.dumps(answer(**change)).decode()
    )
    with pytest.raises(ProviderUnavailable):
        await s.meteo.at(*TURIN, RECENT)


async def test_hours_that_are_null(s: Sky) -> None:
    s.sandbox.fault("open_meteo", "lost_hours")
    assert (await s.meteo.at(*TURIN, RECENT.replace(minute=0, hour=7))).temperature_c
    with pytest.raises(NoData):
        await s.meteo.at(*TURIN, RECENT)


# Limits and failures


@pytest.mark.parametrize(
    ("limits", "wait_s"), [((1, 9, 9), 60), ((9, 1, 9), 3600), ((9, 9, 1), 12 * 3600)]
)
async def test_open_meteo_says_which_window_is_full(
    s: Sky, limits: tuple[int, int, int], wait_s: int
) -> None:
    s.sandbox.settings.open_meteo_limits = limits
    await s.meteo.at(*TURIN, RECENT)
    with pytest.raises(RateLimited) as refused:
        await s.meteo.at(*TURIN, RECENT + timedelta(hours=3))
    assert refused.value.retry_after_s == wait_s + 1


async def test_openweather_s_quota_and_key(s: Sky) -> None:
    s.sandbox.settings.openweather_per_day = 0
    with pytest.raises(RateLimited) as refused:
        await s.openweather.at(*TURIN, RECENT)
    assert refused.value.retry_after_s == 3600
    wrong = OpenWeather(
        SecretStr("a-key-that-is-wrong"), api_url=s.sandbox.openweather_url, clock=s.clock
    )
    with pytest.raises(ConfigurationError) as ours:
        await wrong.at(*TURIN, RECENT)
    assert "a-key-that-is-wrong" not in f"{ours.value} {wrong!r}"
    await wrong.aclose()


@pytest.mark.parametrize("service", ["open_meteo", "openweather"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 502},
        {"kind": "reset"},
        {"kind": "html"},
        {"kind": "truncate"},
        {"kind": "short"},
        {"kind": "redirect"},
        {"kind": "status", "status": 200, "body": "[]"},
    ],
)
async def test_an_outage_is_told_from_no_data(s: Sky, service: Any, fault: dict[str, Any]) -> None:
    s.sandbox.fault(service, **fault)
    source = s.meteo if service == "open_meteo" else s.openweather
    with pytest.raises(ProviderUnavailable):
        await source.at(*TURIN, RECENT)


# Between the hours

SIX = datetime(2026, 10, 31, 6, tzinfo=UTC)


def sky(hour: int, speed: float | None, direction: float | None, **more: Any) -> Weather:
    return Weather(
        at=SIX + timedelta(hours=hour),
        temperature_c=10.0 + hour,
        wind_speed_mps=speed,
        wind_from_deg=direction,
        **more,
    )


@pytest.mark.parametrize(
    ("before", "after", "speed", "direction"),
    [
        ((4, 350), (4, 10), 4 * math.cos(math.radians(10)), 0),
        ((4, 0), (4, 90), 4 / math.sqrt(2), 45),
        ((2, 270), (4, 270), 3, 270),
        ((3, 0), (3, 180), 0, None),
        ((0, None), (4, 90), 2, 90),
        ((0, 123), (4, 90), 2, 90),
        ((None, None), (4, 90), 4, 90),
        ((4, 90), (None, None), 4, 90),
        ((None, None), (None, None), None, None),
    ],
)
def test_wind_is_a_vector(
    before: tuple[float | None, float | None],
    after: tuple[float | None, float | None],
    speed: float | None,
    direction: float | None,
) -> None:
    found = interpolated(sky(0, *before), sky(1, *after), SIX + timedelta(minutes=30))
    assert found.wind_speed_mps == pytest.approx(speed, abs=1e-9)
    if direction is None:
        assert found.wind_from_deg is None
    else:
        assert found.wind_from_deg is not None
        assert abs((found.wind_from_deg - direction + 180) % 360 - 180) < 1e-6


def test_numbers_in_a_straight_line_and_words_of_the_nearer_hour() -> None:
    before = sky(0, 1, 0, humidity=0.5, condition="clear", precipitation_mm=0.0)
    after = sky(1, 1, 0, humidity=0.9, condition="rain", precipitation_mm=2.0, uv_index=3.0)
    found = interpolated(before, after, SIX + timedelta(minutes=15))
    assert (found.temperature_c, found.humidity) == (10.25, pytest.approx(0.6))
    assert (found.condition, found.precipitation_mm, found.uv_index) == ("clear", 2.0, 3.0)
    assert interpolated(before, after, SIX + timedelta(minutes=31)).condition == "rain"
    assert interpolated(before, after, SIX) == before
    assert interpolated(before, after, after.at) == after
    with pytest.raises(InvalidInput):
        interpolated(before, after, SIX + timedelta(hours=2))


@given(
    st.tuples(st.floats(0, 60), st.floats(0, 360)),
    st.tuples(st.floats(0, 60), st.floats(0, 360)),
    st.integers(0, 3600),
)
def test_wind_between_is_never_stronger_than_at_the_hours(
    before: tuple[float, float], after: tuple[float, float], seconds: int
) -> None:
    found = interpolated(sky(0, *before), sky(1, *after), SIX + timedelta(seconds=seconds))
    assert found.wind_speed_mps is not None
    assert found.wind_speed_mps <= max(before[0], after[0]) + 1e-9
    assert found.wind_from_deg is None or 0 <= found.wind_from_deg <= 360


def test_hours_around() -> None:
    assert hours_around(SIX) == (SIX, SIX)
    assert hours_around(SIX + timedelta(seconds=1)) == (SIX, SIX + timedelta(hours=1))


async def test_a_moment_over_midnight(s: Sky) -> None:
    found = await s.meteo.at(*TURIN, datetime(2026, 10, 30, 23, 30, tzinfo=UTC))
    before, after = (
        weather(45.05, 7.7, int(datetime(2026, 10, day, hour, tzinfo=UTC).timestamp()))
        for day, hour in ((30, 23), (31, 0))
    )
    expected = (before["temperature_2m"] + after["temperature_2m"]) / 2
    assert found.temperature_c == pytest.approx(expected)
    # A moment of another zone is the same moment.
    zone = datetime.fromisoformat("2026-10-31T01:30:00+02:00")
    assert (await s.meteo.at(*TURIN, zone)).temperature_c == pytest.approx(expected)
