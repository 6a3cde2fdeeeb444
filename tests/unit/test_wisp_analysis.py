"""A run's derived figures fit together, and a phone gets what it needs to race."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from causeway.apps.wisp.domain import lines
from causeway.apps.wisp.domain.analysis import (
    analyse,
    average_pace,
    corrected_pace,
    heart_rates,
)
from causeway.apps.wisp.domain.clean import clean
from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.files import read_track
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.racedata import race_data
from causeway.apps.wisp.domain.standing import MILE_M
from causeway.apps.wisp.domain.track import Track
from tests.wisp_tracks import PLACE, figure_eight, ghost_of, straight

DATA = Path(__file__).parents[1] / "data" / "wisp"


def test_what_is_derived_from_a_recorded_run_fits_together() -> None:
    run = clean(read_track((DATA / "3173437224.tcx.gz").read_bytes()))
    found = analyse(run)
    assert found.average_pace == pytest.approx(found.moving_time_s / found.distance_m * 1000)
    assert found.average_speed == pytest.approx(found.distance_m / found.moving_time_s)
    assert sum(one.time for one in found.pace_splits) == pytest.approx(found.moving_time_s)
    assert [one.distance for one in found.pace_splits[:4]] == [1000, 2000, 3000, 4000]
    climbed = [one.elevation_change for one in found.pace_splits]
    assert found.climb is not None
    total = sum(one for one in climbed if one is not None)
    assert total == pytest.approx(found.climb.gain_m - found.climb.loss_m, abs=3.1)
    assert found.max_heart_rate == 168
    assert found.average_heart_rate == pytest.approx(130.8, abs=0.1)
    assert found.average_cadence == pytest.approx(118, abs=15)
    assert len(lines.decode(found.encoded_polyline)[0]) == 3507
    assert found.bounds is not None
    assert found.start is not None
    assert found.bounds.south <= found.start[0] <= found.bounds.north
    assert found.flags == ()
    minutes = heart_rates(run)
    assert minutes[0][0] == 60.0
    assert len(minutes) == pytest.approx(3510 / 60, abs=3)
    assert all(80 < rate <= 168 for _, rate in minutes)


def test_uphill_the_adjusted_pace_is_faster() -> None:
    way = straight(3000)
    s = np.arange(0.0, 3000.0, 3.0)
    lat, lng = PLACE.unproject(way.at(s))
    hill = np.where(s < 1500, 0.05 * s, 75.0)
    t = np.arange(len(s), dtype=np.float64)
    found = analyse(clean(Track.of(t, {"lat": lat, "lng": lng, "elevation_m": 100 + hill})))
    up, half, flat = found.pace_splits
    assert up.elevation_change == pytest.approx(50, abs=1)
    assert flat.elevation_change == pytest.approx(0, abs=0.1)
    assert up.gap_pace is not None
    assert half.gap_pace is not None
    assert up.gap_pace < half.gap_pace < half.pace
    assert flat.gap_pace == pytest.approx(flat.pace, rel=0.005)


def test_a_treadmill_has_no_places_and_no_hills() -> None:
    t = np.arange(0.0, 1201.0)
    found = analyse(clean(Track.of(t, {"distance_m": 2.5 * t}, sport="treadmill")))
    assert (found.start, found.bounds, found.climb, found.encoded_polyline) == (
        None,
        None,
        None,
        "",
    )
    assert found.average_pace == pytest.approx(400)
    assert {(one.elevation_change, one.gap_pace) for one in found.pace_splits} == {(None, None)}
    assert found.flags == ("no_places",)
    nothing = analyse(clean(Track.of(t, {"distance_m": 0 * t})))
    assert (nothing.average_pace, nothing.pace_splits, nothing.best_efforts) == (None, (), ())


def test_a_ride_in_a_car_is_flagged() -> None:
    found = analyse(clean(read_track((DATA / "around-visnjan-with-car.gpx").read_bytes())))
    assert "faster_than_records" in found.flags


def test_paces_are_weighed_by_distance_and_wrong_ones_are_corrected() -> None:
    # 1 km in 10 minutes and 9 km in 36: 276 s/km, not the mean of 600 and 240.
    assert average_pace([(1000, 600), (9000, 2160)]) == pytest.approx(276)
    assert average_pace([]) is None
    assert corrected_pace(285.5, 5000, 1200) == pytest.approx(240)
    assert corrected_pace(241, 5000, 1200) is None


def test_a_phone_gets_curve_way_and_paces() -> None:
    way = figure_eight(3500)
    found = race_data(ghost_of(way, 3.5))
    assert found.target_duration == pytest.approx(way.length_m / 3.5)
    assert [one.distance for one in found.pacing_strategy] == [1000, 2000, 3000, way.length_m]
    assert found.pacing_strategy[-1].cumulative_time == pytest.approx(found.target_duration)
    assert all(one.target_pace == pytest.approx(1000 / 3.5) for one in found.pacing_strategy)
    assert found.encoded_polyline is not None
    assert 50 < len(lines.decode(found.encoded_polyline)[0]) <= 1000
    miles = race_data(Ghost.goal(5000, 1200), MILE_M)
    assert [one.distance for one in miles.pacing_strategy][:2] == [MILE_M, 2 * MILE_M]
    assert miles.encoded_polyline is None
    assert miles.curve == ((0.0, 0.0), (5000.0, 1200.0))


def test_a_phones_curve_gives_the_same_gap() -> None:
    run = clean(read_track((DATA / "activity_4801048867.gpx.gz").read_bytes()))
    ghost = Ghost.of_run(run)
    found = race_data(ghost)
    assert len(found.curve) <= 1000
    phone = Curve(*(np.array(column) for column in zip(*found.curve, strict=True)))
    for t in np.linspace(100.0, 5000.0, 200):
        assert phone.distance_at(t) == pytest.approx(ghost.elapsed.distance_at(t), abs=8)
