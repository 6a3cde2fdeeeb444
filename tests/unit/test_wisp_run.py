"""Distance, moving time, splits, efforts, climbs and hills of a run, synthetic and recorded.

Bounds for recorded runs: the device's own distance within 0.1 %, its timer within 0.2 %, the times
of its lap within 4 s, its ascent within 15 % (it has no raw altitudes to compare with).
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from causeway.apps.wisp.domain import elevation, grade
from causeway.apps.wisp.domain.clean import Run, clean
from causeway.apps.wisp.domain.files import read_track
from causeway.apps.wisp.domain.geodesy import (
    Plane,
    bounds,
    cumulative_lengths,
    destination,
    distance_m,
)
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.replay import replay
from causeway.apps.wisp.domain.result import result_of
from causeway.apps.wisp.domain.splits import (
    RECORD_DISTANCES_M,
    best_effort,
    best_efforts,
    splits,
    times_at,
)
from causeway.apps.wisp.domain.standing import Rules
from causeway.apps.wisp.domain.track import Track
from causeway.base.errors import InvalidInput
from tests.wisp_tracks import PLACE, laps, noise, straight, winding

DATA = Path(__file__).parents[1] / "data" / "wisp"
Floats = NDArray[np.float64]


def ticks(count: int) -> Floats:
    """0, 1, 2 and so on."""
    return np.arange(count, dtype=np.float64)


def recorded(name: str) -> Run:
    return clean(read_track((DATA / name).read_bytes()))


def made(xy: Floats, t: Floats | None = None, **rest: Any) -> Track:
    """A track of places in metres, one a second."""
    lat, lng = PLACE.unproject(xy)
    columns = {"lat": lat, "lng": lng} | rest.pop("columns", {})
    return Track.of(ticks(len(xy)) if t is None else t, columns, **rest)


def even(length_m: float, speed_mps: float) -> Floats:
    s = np.arange(0.0, length_m + 1e-6, speed_mps)
    return straight(length_m).at(s)


# Recorded runs beside their devices' own figures.


def test_the_watch_and_we_agree_on_a_run() -> None:
    run = recorded("3173437224.tcx.gz")
    # Raw fixes would say 4,749 m.
    assert run.gps_m == pytest.approx(4749, abs=5)
    assert run.distance_m == pytest.approx(4508.5, rel=0.001)
    assert run.elapsed_s == pytest.approx(3903.719)
    assert run.moving_time_s == pytest.approx(3510, rel=0.002)
    assert run.flags == ()


def test_a_lap_of_the_watch_ends_when_it_says() -> None:
    text = gzip.decompress((DATA / "3173437224.tcx.gz").read_bytes()).decode()
    lap = re.search(r"<TotalTimeSeconds>([\d.]+)</TotalTimeSeconds><DistanceMeters>([\d.]+)<", text)
    assert lap is not None
    run = recorded("3173437224.tcx.gz")
    # The first sample has counted 0.6 m.
    end = np.array([float(lap[2]) - 0.6])
    there = float(times_at(run.s, run.moving_s, end)[0])
    gone = float(times_at(run.s, run.moving_s, end, last=True)[0])
    assert there - 4 <= float(lap[1]) <= gone + 4


def test_splits_of_a_recorded_activity_add_up_and_do_not_depend_on_the_file() -> None:
    of_fit, of_gpx = recorded("4801048867.fit.gz"), recorded("activity_4801048867.gpx.gz")
    ours, others = splits(of_fit.s, of_fit.t), splits(of_gpx.s, of_gpx.t)
    assert len(ours) == len(others) == 37
    assert sum(one.time for one in ours) == pytest.approx(of_fit.elapsed_s)
    for a, b in zip(ours[:-1], others[:-1], strict=True):
        assert a.time == pytest.approx(b.time, rel=0.03)
    for a, b in zip(
        best_efforts(of_fit.s, of_fit.t), best_efforts(of_gpx.s, of_gpx.t), strict=True
    ):
        assert a.time == pytest.approx(b.time, rel=0.005)


def test_the_climb_of_a_recorded_activity_is_near_to_the_devices() -> None:
    run = recorded("4801048867.fit.gz")
    found = elevation.climb(elevation.profile(run.s, run.track.elevation_m))
    assert found is not None
    assert found.gain_m == pytest.approx(run.track.summary.ascent_m, rel=0.15)


def test_a_device_that_counted_another_distance_is_told() -> None:
    run = recorded("2020-06-01-16-52-40.fit.gz")
    assert run.flags == ("distances_differ",)
    assert run.gps_m == pytest.approx(902, abs=2)
    assert run.device_m == pytest.approx(662, abs=2)


def test_a_run_raced_against_itself_is_level() -> None:
    run = recorded("activity_4801048867.gpx.gz")
    ghost = Ghost.of_run(run)
    race = replay(ghost, run.track, Rules(mode="route", clock="moving"))
    result = result_of(race)
    assert "off_course" not in result.flags
    assert abs(result.average_gap) <= 1
    # Who stops on the line does not cross it: the finish is a little before the last sample.
    assert result.finish_s == pytest.approx(run.moving_time_s, abs=12)
    assert replay(ghost, run.track, Rules(mode="route", clock="moving")).splits == race.splits


def test_a_track_in_any_order_is_the_same_race() -> None:
    run = recorded("4801048867_strava.gpx.gz")
    ghost = Ghost.of_run(run, 0.0, 5000.0)
    shuffled = run.track.at(np.random.default_rng(1).permutation(len(run.track)))
    first, second = replay(ghost, run.track), replay(ghost, shuffled)
    assert result_of(first) == result_of(second)
    assert first.events == second.events
    assert np.array_equal(clean(shuffled).s, run.s)


# Cleaning.


def test_impossible_fixes_are_dropped() -> None:
    xy = even(1000, 3.0)
    xy[100] += 500
    xy[200] += [0, 80]
    run = clean(made(xy))
    assert run.dropped == 2
    assert run.distance_m == pytest.approx(999, rel=0.001)


def test_a_first_fix_from_elsewhere_is_dropped() -> None:
    xy = even(1000, 3.0)
    xy[0] -= 5000
    assert clean(made(xy)).distance_m == pytest.approx(996, rel=0.001)


def test_useless_fixes_and_repeated_ones_are_dropped() -> None:
    xy = even(300, 3.0)
    accuracy = np.full(len(xy), 5.0)
    accuracy[50] = 150
    xy[50] += [0, 11]
    t = ticks(len(xy))
    twice = np.concatenate((t, t[20:30]))
    track = made(
        np.vstack((xy, xy[20:30])),
        twice,
        columns={"accuracy_m": np.append(accuracy, accuracy[20:30])},
    )
    run = clean(track)
    assert len(run.t) == len(xy) - 1
    assert run.distance_m == pytest.approx(300, rel=0.001)


@pytest.mark.parametrize(("gap_s", "counts"), [(100, True), (40, False)])
def test_the_line_across_a_gap_counts_if_one_can_have_run_it(gap_s: int, counts: bool) -> None:
    # 240 m without a sample, in 100 s (2.4 m/s, as usual) or in 40 s (6 m/s).
    xy = even(1000, 3.0)
    keep = np.r_[0:100, 180 : len(xy)]
    t = ticks(len(xy))
    t[180:] += gap_s - 81
    run = clean(made(xy[keep], t[keep]))
    (gap,) = run.gaps
    assert gap.counts is counts
    assert run.distance_m == pytest.approx(999 if counts else 999 - 243, abs=2)
    assert ("gap_without_distance" in run.flags) is not counts


def test_standing_adds_no_distance_and_no_moving_time() -> None:
    rng = np.random.default_rng(3)
    there, back = even(600, 3.0), even(600, 3.0) + np.array([600.0, 0.0])
    stand = np.tile(there[-1], (120, 1)) + noise(120, 1.0, 20, rng)
    run = clean(made(np.vstack((there, stand, back[1:]))))
    assert run.distance_m == pytest.approx(1200, rel=0.01)
    assert run.elapsed_s - run.moving_time_s == pytest.approx(120, abs=10)


def test_pauses_of_the_device_are_believed() -> None:
    xy = even(600, 3.0)
    run = clean(made(xy, pauses=((50.0, 60.0), (55.0, 70.0))))
    assert run.elapsed_s - run.moving_time_s == pytest.approx(20)


def test_without_places_the_devices_distance_counts_and_without_both_nothing() -> None:
    t = np.arange(100.0)
    run = clean(Track.of(t, {"distance_m": 3 * t}, sport="treadmill"))
    assert run.distance_m == pytest.approx(297)
    assert run.flags == ("no_places",)
    with pytest.raises(InvalidInput, match="neither places nor a distance"):
        clean(Track.of(t, {}))


# Splits and efforts.

steps = st.lists(
    st.tuples(st.floats(0, 12), st.floats(0.1, 5)).map(lambda one: (round(one[0], 3), one[1])),
    min_size=2,
    max_size=60,
)


def cumulated(given_steps: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    s = np.cumsum([0.0, *(metres for metres, _ in given_steps)])
    t = np.cumsum([0.0, *(seconds for _, seconds in given_steps)])
    return s, t


@given(steps, st.sampled_from([7.0, 50.0, 1000.0]))
def test_splits_add_up_to_the_run(given_steps: list[tuple[float, float]], unit: float) -> None:
    s, t = cumulated(given_steps)
    if s[-1] <= 0:
        return
    found = splits(s, t, unit)
    assert sum(one.time for one in found) == pytest.approx(t[-1])
    assert all(one.time >= 0 for one in found)
    assert [one.distance for one in found] == sorted({one.distance for one in found})
    assert s[-1] - found[-1].distance < 1.0


@settings(deadline=None)
@given(steps, st.sampled_from([1.0, 10.0, 33.3]))
def test_no_stretch_is_faster_than_the_best_effort(
    given_steps: list[tuple[float, float]], metres: float
) -> None:
    s, t = cumulated(given_steps)
    found = best_effort(s, t, metres)
    if s[-1] < metres:
        assert found is None
        return
    assert found is not None
    starts: Floats = np.linspace(0.0, float(s[-1]) - metres, 500)
    spent = times_at(s, t, starts + metres) - times_at(s, t, starts, last=True)
    assert found.time <= spent.min() + 1e-6
    there = times_at(s, t, np.array([found.start_m + metres]))[0]
    assert there - found.start_s == pytest.approx(found.time, abs=1e-6)


def test_a_record_may_be_a_stretch_of_a_longer_run_and_pauses_count() -> None:
    speed = np.concatenate((np.full(400, 3.0), np.full(250, 4.0), np.full(600, 3.0)))
    s, t = np.concatenate(([0.0], np.cumsum(speed))), np.arange(1251.0)
    found = best_effort(s, t, 1000)
    assert found is not None
    assert (found.time, found.start_m) == (pytest.approx(250), pytest.approx(1200))
    t[500:] += 60
    slower = best_effort(s, t, 1000)
    assert slower is not None
    # What is left of the fast part behind the pause, and the rest at 3 m/s.
    assert slower.time == pytest.approx(600 / 4 + 400 / 3)
    assert [one.distance for one in best_efforts(s, t)] == [400, 1000, 1609.344]
    assert RECORD_DISTANCES_M[-1] == 42195


def test_standing_before_an_effort_is_no_part_of_it() -> None:
    s = np.concatenate((3.0 * ticks(101), np.full(60, 300.0), 300 + 4.0 * ticks(101)[1:]))
    found = best_effort(s, ticks(len(s)), 400)
    assert found is not None
    assert (found.time, found.start_s) == (pytest.approx(100), pytest.approx(160))


def test_an_effort_over_a_gap_without_distance_says_so() -> None:
    xy = even(1000, 3.0)
    keep = np.r_[0:100, 180 : len(xy)]
    t = ticks(len(xy))
    t[180:] -= 40
    run = clean(made(xy[keep], t[keep]))
    found = best_efforts(run.s, run.t, run.gaps)
    assert [(one.distance, one.spans_gap) for one in found] == [(400, False)]
    whole = best_effort(run.s, run.t, run.distance_m, run.gaps)
    assert whole is not None
    assert whole.spans_gap


def test_best_efforts_take_linear_time() -> None:
    import time

    def seconds(count: int) -> float:
        s = np.cumsum(np.random.default_rng(1).uniform(2, 4, count))
        t = ticks(count)
        start = time.process_time()
        best_efforts(s, t)
        return time.process_time() - start

    seconds(1000)
    few = min(seconds(20_000) for _ in range(3))
    many = min(seconds(200_000) for _ in range(3))
    # Ten times as many; the square would be a hundred times.
    assert many < 50 * few


# Climbs and hills.


@pytest.mark.parametrize("every_m", [1.0, 3.0, 7.0])
def test_the_climb_does_not_depend_on_the_rate_of_recording(every_m: float) -> None:
    s = np.arange(0.0, 10_000.0, every_m)
    rng = np.random.default_rng(5)
    errors = np.interp(s, np.arange(0, 10_001, 30.0), rng.normal(0, 1.0, 334))
    altitude = 300 + 25 * np.sin(s / 400) + errors
    found = elevation.climb(elevation.profile(s, altitude))
    assert found is not None
    # Four waves of 50 m; the run ends in the fifth climb's turn down.
    waves = s[-1] / 400 / (2 * math.pi)
    assert found.gain_m == pytest.approx(50 * waves, rel=0.06)
    each = ticks(10_000)
    dense = elevation.climb(elevation.profile(each, np.interp(each, s, altitude)))
    assert dense is not None
    assert found.gain_m == pytest.approx(dense.gain_m, rel=0.03)


def test_altitudes_by_satellites_do_not_climb_by_noise() -> None:
    s = 3.0 * ticks(3000)
    altitude = 200 + np.random.default_rng(2).normal(0, 2.5, len(s))
    smooth, raw = (
        elevation.climb(elevation.profile(s, altitude, kind), "gps")
        for kind in ("gps", "barometric")
    )
    assert smooth is not None
    assert raw is not None
    assert smooth.gain_m < 100 < raw.gain_m


@pytest.mark.parametrize(
    ("heights", "gain", "loss"),
    [
        ([0, 2, 0, 2, 0, 2], 0, 0),
        ([0, 10], 10, 0),
        ([0, 10, 9, 12], 12, 0),
        ([0, 10, 6, 12], 16, 4),
        ([10, 0, 5], 5, 10),
        ([5, 5, 5], 0, 0),
        ([0, 3, 0], 3, 3),
    ],
)
def test_a_turn_counts_from_the_threshold_on(
    heights: list[float], gain: float, loss: float
) -> None:
    s = 10.0 * ticks(len(heights))
    found = elevation.climb(
        elevation.Profile(s, np.array(heights, np.float64)),
        "gps",
    )
    assert found is not None
    assert (found.gain_m, found.loss_m) == (pytest.approx(gain), pytest.approx(loss))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=80))
def test_what_goes_up_and_down_is_what_is_left(heights: list[float]) -> None:
    up, down = elevation._between_turns(heights, 3.0)
    assert up >= 0
    assert down >= 0
    assert abs((up - down) - (heights[-1] - heights[0])) <= 2 * 3.0 + 1e-6


def test_unknown_altitudes_are_not_zero() -> None:
    s = np.arange(0.0, 2000.0, 5.0)
    altitude = np.full(len(s), np.nan)
    assert elevation.climb(elevation.profile(s, altitude)) is None
    altitude = 100 + s / 100
    altitude[(s > 500) & (s < 650)] = np.nan
    bridged = elevation.climb(elevation.profile(s, altitude))
    assert bridged is not None
    assert bridged.gain_m == pytest.approx(20, abs=1)
    altitude[(s > 500) & (s < 1500)] = np.nan
    assert elevation.climb(elevation.profile(s, altitude)) is None


def test_hills_cost_what_minetti_measured() -> None:
    # Table 1 of the paper: J/(kg m) at gradients, and the cheapest at about -0.1 to -0.2.
    for gradient, joules in ((0.0, 3.6), (0.1, 5.9), (0.45, 18.9), (-0.45, 3.9)):
        assert float(grade.cost(np.array([gradient]))[0]) == pytest.approx(joules, rel=0.15)
    gradients = np.linspace(-0.45, 0.45, 181)
    assert -0.22 < gradients[np.argmin(grade.cost(gradients))] < -0.15
    assert float(grade.factor(np.array([2.0]))[0]) == float(grade.factor(np.array([0.45]))[0])


def test_a_flat_ghost_is_slower_uphill_by_the_factor() -> None:
    s = 10.0 * ticks(501)
    flat = grade.flat_metres(elevation.Profile(s, 100 + 0.02 * s))
    assert flat is not None
    expected = 240 * float(grade.factor(np.array([0.02]))[0])
    pace_on_flat = grade.adjusted_pace(expected * 5, 0.0, 5000.0, flat)
    assert pace_on_flat == pytest.approx(240, abs=1)
    assert grade.flat_metres(elevation.Profile(s, np.full(len(s), np.nan))) is None


# Geodesy and ghosts of runs.


def test_lengths_are_those_of_the_ellipsoid() -> None:
    # One degree of the equator and of a meridian at the pole (WGS84).
    assert distance_m(0, 0, 0, 1) == pytest.approx(111_319.491, abs=0.001)
    assert distance_m(89, 0, 90, 0) == pytest.approx(111_693.865, abs=0.01)
    line = cumulative_lengths(np.array([0.0, 0.0, 0.0]), np.array([179.5, -179.5, -178.5]))
    assert line.tolist() == pytest.approx([0, 111_319.491, 222_638.982], abs=0.01)


@settings(deadline=None)
@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(0, 360), st.floats(1, 1000))
def test_the_plane_agrees_with_the_ellipsoid(
    lat: float, lng: float, bearing: float, metres: float
) -> None:
    plane = Plane.at(lat, lng)
    x, y = plane.xy(*destination(lat, lng, bearing, metres))
    # At 80 degrees a kilometre to the side bends away by half a metre.
    assert math.hypot(x, y) == pytest.approx(metres, rel=0.001)
    back = plane.unproject(np.array([[x, y]]))
    assert plane.xy(float(back[0][0]), float(back[1][0])) == pytest.approx((x, y), abs=1e-4)


def test_bounds_go_the_short_way_round() -> None:
    box = bounds(np.array([1.0, 2.0, 3.0]), np.array([179.0, -179.0, 178.0]))
    assert (box.north, box.south, box.west, box.east) == (3, 1, 178, -179)
    box = bounds(np.array([1.0, 2.0]), np.array([-1.0, 5.0]))
    assert (box.west, box.east) == (-1, 5)
    box = bounds(np.array([1.0]), np.array([7.0]))
    assert (box.west, box.east) == (7, 7)


@pytest.mark.parametrize("where", [(0.0, 179.999), (60.0, -179.999), (-45.0, 7.0)])
def test_a_ghost_is_raced_anywhere_on_earth(where: tuple[float, float]) -> None:
    plane = Plane.at(*where)
    way = winding(1500)
    xy = way.at(np.arange(0.0, 1500.0, 3.0))
    lat, lng = plane.unproject(xy)
    track = Track.of(ticks(len(xy)), {"lat": lat, "lng": lng})
    ghost = Ghost.of_run(clean(track))
    race = replay(ghost, track)
    result = result_of(race)
    assert result.mode == "route"
    assert result.result_status == "won" or abs(result.time_difference_ms) < 2000
    assert abs(result.time_difference_ms) < 2000


def test_a_ghost_may_end_on_the_antimeridian() -> None:
    step = 3.0 / 111_319.491
    lng = 180.0 - 100.5 * step + step * ticks(300)
    lng = np.where(lng > 180, lng - 360, lng)
    run = clean(Track.of(ticks(300), {"lat": np.zeros(300), "lng": lng}))
    ghost = Ghost.of_run(run, 100 * 3.0 - 60, 100.5 * 3.0)
    assert ghost.route is not None
    end = ghost.route.place(ghost.length_m)
    assert abs(end[1]) == pytest.approx(180.0, abs=step)


def test_a_stretch_of_a_run_is_a_ghost_of_its_own() -> None:
    way = laps(5)
    run = clean(made(way.at(np.arange(0.0, 2000.0, 3.3))))
    ghost = Ghost.of_run(run, 400.0, 1600.0)
    assert ghost.length_m == pytest.approx(1200)
    assert ghost.elapsed.duration_s == pytest.approx(1200 / 3.3, rel=0.01)
    assert ghost.route is not None
    assert ghost.route.length_m == pytest.approx(1200, abs=0.5)
    with pytest.raises(InvalidInput, match="start_m"):
        Ghost.of_run(run, 1600.0, 400.0)


def test_goals_say_what_does_not_add_up() -> None:
    marks = [(1000.0, 240.0), (2000.0, 238.0), (5000.0, 239.4)]
    with pytest.raises(InvalidInput, match=r"add up to 1196\.2 s, target_duration is 1200 s"):
        Ghost.goal(5000, 1200, marks)
    scaled = Ghost.goal(5000, 1200, marks, normalise=True)
    assert scaled.elapsed.duration_s == pytest.approx(1200)
    assert scaled.elapsed.time_at(1000) == pytest.approx(240 * 1200 / 1196.2)
    with pytest.raises(InvalidInput) as caught:
        Ghost.goal(5000, 1200, [(1000, 240), (900, -1), (4000, 240)])
    assert [field.path for field in caught.value.fields] == [
        "custom_splits[1].distance",
        "custom_splits[1].target_pace",
    ]
    with pytest.raises(InvalidInput, match="target_distance, 5000"):
        Ghost.goal(5000, 1200, [(4000, 240)])
    with pytest.raises(InvalidInput, match="target_duration"):
        Ghost.goal(5000, 0)


def test_a_curve_for_the_phone_is_small_and_near() -> None:
    run = recorded("3173437224.tcx.gz")
    whole = Ghost.of_run(run).elapsed
    small = whole.reduced(1000)
    assert len(small.s) <= 1000
    at = np.linspace(0, whole.length_m, 3000)
    off = [abs(whole.distance_at(t) - small.distance_at(t)) for t in np.linspace(0, 3900, 3000)]
    assert max(off) < 5
    assert small.length_m == whole.length_m
    assert small.duration_s == pytest.approx(whole.duration_s, abs=0.5)
    assert len(at) == 3000
