"""Models of performance give what their papers say."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.wisp.domain.clean import clean
from causeway.apps.wisp.domain.files import read_track
from causeway.apps.wisp.domain.load import day_of, fitness, running_stress, trimp
from causeway.apps.wisp.domain.prediction import (
    Performance,
    fitted_exponent,
    predict,
    riegel,
    success_probability,
    threshold_pace,
    time_of_vdot,
    vdot,
)
from causeway.apps.wisp.domain.splits import Effort, best_effort
from causeway.apps.wisp.domain.timezones import zone_of
from causeway.apps.wisp.domain.trend import hampel, impossible, performances, trend

DATA = Path(__file__).parents[1] / "data" / "wisp"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_riegel_is_his_power_law() -> None:
    assert riegel(Performance(5000, 1200), 10_000) == pytest.approx(1200 * 2**1.06)


@pytest.mark.parametrize(
    ("distance_m", "time_s", "value"),
    # Daniels' Running Formula, third edition, table 5.1: VDOT 30, 50, 70.
    [
        (5000, 30 * 60 + 40, 30),
        (10_000, 41 * 60 + 21, 50),
        (42_195, 3 * 3600 + 10 * 60 + 49, 50),
        (5000, 14 * 60 + 55, 70),
    ],
)
def test_vdot_is_that_of_the_tables(distance_m: float, time_s: float, value: float) -> None:
    assert vdot(Performance(distance_m, time_s)) == pytest.approx(value, abs=0.15)
    assert time_of_vdot(value, distance_m) == pytest.approx(time_s, rel=0.004)


def test_the_threshold_pace_is_that_of_the_tables() -> None:
    # Daniels, table 5.2: VDOT 50 runs threshold at 4:15 a kilometre, for about an hour.
    assert threshold_pace(50) == pytest.approx(255, abs=3)
    assert vdot(Performance(3600 / threshold_pace(50) * 1000, 3600)) == pytest.approx(50)


@given(st.floats(25, 85), st.floats(1500, 42_195))
def test_a_vdot_and_its_times_agree(value: float, distance_m: float) -> None:
    assert vdot(Performance(distance_m, time_of_vdot(value, distance_m))) == pytest.approx(value)


def test_an_exponent_is_fitted_only_to_what_lies_on_a_line() -> None:
    line = [Performance(d, 0.2 * d**1.09) for d in (3000, 5000, 10_000, 21_000)]
    assert fitted_exponent(line) == pytest.approx(1.09)
    assert fitted_exponent(line[:2]) is None
    assert fitted_exponent([Performance(5000, t) for t in (1200, 1210, 1220)]) is None
    assert fitted_exponent([*line, Performance(42_195, 30_000)]) is None
    steep = [Performance(d, 0.01 * d**1.4) for d in (3000, 10_000, 40_000)]
    assert fitted_exponent(steep) == 1.20


def test_a_prediction_gives_both_models_a_range_and_its_effort() -> None:
    efforts = [Performance(400, 60), Performance(5000, 1200), Performance(1000, 250)]
    found = predict(efforts, 10_000)
    assert found is not None
    assert found.effort == Performance(5000, 1200)
    assert found.riegel_s == pytest.approx(1200 * 2**1.06)
    assert found.vdot_s == pytest.approx(2489, abs=10)
    assert found.low_s < found.time_s < found.high_s
    assert found.warnings == ()
    assert predict([Performance(400, 60)], 10_000) is None


def test_a_marathon_without_a_long_run_carries_a_warning() -> None:
    efforts = [Performance(10_000, 2500)]
    found = predict(efforts, 42_195, longest_recent_m=18_000)
    assert found is not None
    assert "25 km" in found.warnings[0]
    found = predict(efforts, 42_195, longest_recent_m=28_000)
    assert found is not None
    assert found.warnings == ()


def test_chances_are_even_at_the_prediction_and_need_five_past_ones() -> None:
    errors = [0.02, -0.02, 0.02, -0.02, 0.02]
    assert success_probability(1200, 1200, errors[:4]) is None
    assert success_probability(1200, 1200, errors) == pytest.approx(0.5)
    assert success_probability(1200, 1224, errors) == pytest.approx(1 / (1 + math.exp(-1)))
    assert (success_probability(1200, 1000, errors) or 0) < 0.001


@given(st.lists(st.floats(-0.2, 0.2), min_size=5, max_size=9), st.floats(300, 9000))
def test_an_easier_target_is_never_less_likely(errors: list[float], predicted_s: float) -> None:
    chances = [
        success_probability(predicted_s, predicted_s * share, errors) or 0.0
        for share in (0.5, 0.9, 1.0, 1.1, 2.0)
    ]
    assert chances == sorted(chances)
    assert all(0 <= one <= 1 for one in chances)


def test_the_training_impulse_is_banisters() -> None:
    t = np.arange(0.0, 3601.0)
    # An hour at half of the reserve: 60 * 0.5 * 0.64 * e^0.96.
    beats = np.full(len(t), 50 + 0.5 * 140.0)
    found = trimp(t, beats, resting=50, maximum=190)
    assert found == pytest.approx(60 * 0.5 * 0.64 * math.exp(0.96), rel=0.001)
    women = trimp(t, beats, resting=50, maximum=190, sex="female")
    assert women == pytest.approx(60 * 0.5 * 0.86 * math.exp(0.835), rel=0.001)
    beats[:1200] = np.nan
    assert trimp(t, beats, resting=50, maximum=190) == pytest.approx(found, rel=0.001)
    beats[:2400] = np.nan
    assert trimp(t, beats, resting=50, maximum=190) is None
    # A pause of ten minutes is no training.
    paused = np.where(t > 1800, t + 600, t)
    full = np.full(len(t), 120.0)
    assert trimp(paused, full, resting=50, maximum=190) == pytest.approx(found, rel=0.001)
    with pytest.raises(ValueError, match="above the resting"):
        trimp(t, full, resting=190, maximum=190)


def test_an_hour_at_threshold_is_a_hundred() -> None:
    assert running_stress(3600, 255, 255) == pytest.approx(100)
    assert running_stress(3600, 300, 255) == pytest.approx(100 * 0.85**2)


def test_fitness_counts_days_of_rest_and_form_is_yesterdays() -> None:
    first = date(2026, 1, 1)
    steady = fitness({first + timedelta(days=i): 50.0 for i in range(400)}, date(2027, 2, 4))
    assert len(steady) == 400
    assert steady[-1].ctl == pytest.approx(50, rel=0.001)
    assert steady[-1].form == pytest.approx(0, abs=0.01)
    once = fitness({first: 100.0}, first + timedelta(days=42))
    assert once[0].form == 0
    assert once[0].ctl == pytest.approx(100 * (1 - math.exp(-1 / 42)))
    assert once[42].ctl == pytest.approx(once[0].ctl / math.e)
    assert once[1].form == pytest.approx(once[0].ctl - once[0].atl)
    assert fitness({}, first) == []


def test_days_are_those_of_the_runner() -> None:
    late = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
    assert day_of(late, ZoneInfo("Europe/Rome")) == date(2026, 10, 25)
    # After the clocks have gone back.
    assert day_of(late + timedelta(days=1), ZoneInfo("Europe/Rome")) == date(2026, 10, 25)
    assert day_of(late, UTC) == date(2026, 10, 24)


@pytest.mark.parametrize(
    ("place", "zone"),
    [
        ((45.07, 7.69), "Europe/Rome"),
        ((-33.87, 151.2), "Australia/Sydney"),
        ((0.0, -30.0), "Etc/GMT+2"),
    ],
)
def test_the_zone_is_that_of_the_place(place: tuple[float, float], zone: str) -> None:
    assert zone_of(*place) == zone


def test_a_bad_day_changes_no_trend() -> None:
    points = [(NOW - timedelta(days=40 - 4 * i), 45.0 + 0.2 * i) for i in range(10)]
    points[5] = (points[5][0], 30.0)
    found = trend(points, NOW)
    assert found is not None
    assert found.per_week == pytest.approx(0.35, abs=0.02)
    assert found.is_clear
    assert found.count == 10
    assert trend(points[:3], NOW) is None
    assert trend([(at - timedelta(days=300), value) for at, value in points], NOW) is None


def test_a_spike_is_replaced_and_a_change_of_pace_is_not() -> None:
    values = np.concatenate((np.full(20, 3.0), np.full(20, 5.0)))
    values += np.random.default_rng(1).normal(0, 0.05, 40)
    spiked = values.copy()
    spiked[10] = 40.0
    cleaned, found = hampel(spiked)
    assert found[10]
    assert cleaned[10] == pytest.approx(3.0, abs=0.2)
    assert found.sum() <= 4
    np.testing.assert_allclose(cleaned[~found], spiked[~found])


def test_a_ride_in_a_car_is_no_record() -> None:
    # 33 s for 400 m, in the hands of somebody who drove (gpxpy's "around-visnjan-with-car").
    run = clean(read_track((DATA / "around-visnjan-with-car.gpx").read_bytes()))
    driven = best_effort(run.s, run.t, 400.0, run.gaps)
    assert driven is not None
    honest = Effort(1000.0, 200.0, 0.0, 0.0)
    over_gap = Effort(5000.0, 1500.0, 0.0, 0.0, spans_gap=True)
    assert impossible([driven, honest, over_gap]) == [driven]
    assert performances([driven, honest, over_gap]) == [Performance(1000, 200)]
