"""Lines are encoded, simplified, hidden and compared as they should."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import LineString, Point

from causeway.apps.wisp.domain import lines, privacy, segments, similarity, simplify
from causeway.apps.wisp.domain.geodesy import Plane, distance_m
from causeway.base.errors import InvalidInput
from tests.wisp_tracks import (
    PLACE,
    Way,
    figure_eight,
    laps,
    noise,
    out_and_back,
    straight,
    winding,
)

Floats = NDArray[np.float64]


def places(
    way: Way, step_m: float = 5.0, sigma_m: float = 0.0, seed: int = 0
) -> tuple[Floats, Floats]:
    xy = way.at(np.arange(0.0, way.length_m, step_m))
    xy = xy + noise(len(xy), sigma_m, 5.0, np.random.default_rng(seed))
    return PLACE.unproject(xy)


# Polylines.


def test_the_example_of_the_algorithm_is_encoded_as_published() -> None:
    lat, lng = np.array([38.5, 40.7, 43.252]), np.array([-120.2, -120.95, -126.453])
    text = "_p~iF~ps|U_ulLnnqC_mqNvxq`@"
    assert lines.encode(lat, lng) == text
    assert np.column_stack(lines.decode(text)).tolist() == np.column_stack((lat, lng)).tolist()


def test_nothing_is_the_empty_string_and_back() -> None:
    assert lines.encode(np.zeros(0), np.zeros(0)) == ""
    assert len(lines.decode("")[0]) == 0


def test_halves_go_away_from_zero() -> None:
    lat, _ = lines.decode(lines.encode(np.array([0.000005, -0.000005]), np.zeros(2)))
    assert lat.tolist() == [0.00001, -0.00001]


@given(
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), max_size=30),
    st.sampled_from([5, 6]),
)
def test_what_is_encoded_is_decoded(points: list[tuple[float, float]], precision: int) -> None:
    lat = np.array([one[0] for one in points], np.float64)
    lng = np.array([one[1] for one in points], np.float64)
    back = lines.decode(lines.encode(lat, lng, precision), precision)
    np.testing.assert_allclose(back[0], lat, atol=0.5001 * 10**-precision)
    np.testing.assert_allclose(back[1], lng, atol=0.5001 * 10**-precision)
    assert lines.disagreement_m(lines.encode(lat, lng, precision), lat, lng, precision) < 1.0


@pytest.mark.parametrize(
    ("text", "offset"),
    [("_p~iF~ps|", 9), ("_p~iF", 5), ("_p~iF ps|U", 5), ("_p~iF~ps|Ü", 9), ("~~~~~~~~", 6)],
)
def test_a_broken_polyline_is_refused_with_the_offset(text: str, offset: int) -> None:
    with pytest.raises(InvalidInput, match=f"offset {offset}$"):
        lines.decode(text)


def test_a_polyline_of_no_place_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"encoded_polyline\[1\]"):
        lines.decode(lines.polyline.encode([(1.0, 2.0), (95.0, 2.0)], 5))


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(min_codepoint=30, max_codepoint=130), max_size=30))
def test_any_text_is_a_polyline_or_refused(text: str) -> None:
    try:
        lat, lng = lines.decode(text)
    except InvalidInput:
        return
    assert len(lat) == len(lng)


def test_other_coordinates_disagree() -> None:
    lat, lng = places(winding(500))
    assert lines.disagreement_m(lines.encode(lat, lng), lat + 0.0001, lng) == pytest.approx(
        11.1, abs=0.8
    )
    assert lines.disagreement_m(lines.encode(lat, lng), lat[1:], lng[1:]) == math.inf


# Simplification.


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from(simplify.LEVELS_M))
def test_no_point_is_farther_from_the_simplified_line_than_the_tolerance(
    seed: int, tolerance_m: float
) -> None:
    lat, lng = places(winding(3000), 5.0, 8.0, seed)
    kept = simplify.simplified(lat, lng, tolerance_m)
    assert kept[0] == 0
    assert kept[-1] == len(lat) - 1
    assert len(kept) < len(lat)
    plane = Plane.at(45.001, 7.01)
    line = LineString(plane.project(lat[kept], lng[kept]))
    off = max(line.distance(Point(place)) for place in plane.project(lat, lng))
    assert off <= tolerance_m


def test_a_line_is_thinned_to_so_many_points() -> None:
    lat, lng = places(winding(5000), 2.0, 3.0)
    kept = simplify.thinned(lat, lng, 100)
    assert 40 <= len(kept) <= 100
    assert simplify.simplified(lat[:1], lng[:1], 5.0).tolist() == [0]


def test_simplification_keeps_laps_and_goes_across_the_antimeridian() -> None:
    lat, lng = places(laps(3))
    kept = simplify.simplified(lat, lng, 2.0)
    assert len(kept) > 30
    shifted = (lng + 173.0 + 180.0) % 360.0 - 180.0
    assert simplify.simplified(lat, shifted, 2.0).tolist() == kept.tolist()


# Privacy zones.


@settings(deadline=None)
@given(
    st.floats(-80, 80),
    st.floats(-180, 180),
    st.floats(200, 1600),
    st.binary(min_size=1, max_size=8),
)
def test_a_zone_is_moved_always_the_same_way_and_still_covers_the_house(
    lat: float, lng: float, radius_m: float, secret: bytes
) -> None:
    zone = privacy.Zone.around(lat, lng, radius_m, secret)
    assert zone == privacy.Zone.around(lat, lng, radius_m, secret)
    assert distance_m(lat, lng, zone.lat, zone.lng) <= radius_m / 3 + 0.01
    assert zone.covers(np.array([lat]), np.array([lng]))[0]


def test_zones_are_moved_all_around() -> None:
    zones = [privacy.Zone.around(45.0, 7.0, 300.0, bytes([i])) for i in range(200)]
    assert abs(np.mean([zone.lat for zone in zones]) - 45.0) * 111_000 < 15
    assert len({zone.lat for zone in zones}) == 200


def test_nothing_of_a_zone_is_shown() -> None:
    way = straight(4000)
    lat, lng = places(way)
    house, work = PLACE.unproject(np.array([[0.0, 0.0], [2000.0, 0.0]]))
    zones = [
        privacy.Zone.around(float(a), float(b), 400.0, b"s")
        for a, b in zip(house, work, strict=True)
    ]
    parts = privacy.visible_parts(lat, lng, zones)
    assert len(parts) == 2
    for part in parts:
        for zone in zones:
            line = LineString(Plane.at(zone.lat, zone.lng).project(lat[part], lng[part]))
            assert line.distance(Point(0.0, 0.0)) > zone.radius_m


def test_a_line_over_a_zone_without_a_sample_in_it_is_cut() -> None:
    lat, lng = PLACE.unproject(np.array([[-1000.0, 0], [-500, 0], [500, 0], [1000, 0]]))
    parts = privacy.visible_parts(lat, lng, [privacy.Zone(45.0, 7.0, 300.0)])
    assert [part.tolist() for part in parts] == [[0, 1]]


def test_a_zone_has_bounds() -> None:
    with pytest.raises(InvalidInput, match=r"radius_m: '100' is not 200\.\.1600"):
        privacy.Zone.around(45.0, 7.0, 100.0, b"s")


# Similarity.


def slow_frechet(a: Floats, b: Floats) -> float:
    """The definition, cell by cell."""
    table = np.full((len(a), len(b)), np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            before = [
                table[k, n]
                for k, n in ((i - 1, j), (i, j - 1), (i - 1, j - 1))
                if k >= 0 and n >= 0
            ]
            apart = float(np.hypot(*(a[i] - b[j])))
            table[i, j] = max(apart, min(before) if before else 0.0)
    return float(table[-1, -1])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_the_distance_of_lines_is_that_of_its_definition(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 2)) * 50, rng.normal(size=(m, 2)) * 50
    assert similarity.frechet_m(a, b) == pytest.approx(slow_frechet(a, b))


def line(way: Way, sigma_m: float = 0.0, seed: int = 0) -> similarity.Line:
    return similarity.Line.of(*places(way, 5.0, sigma_m, seed))


def test_noisy_repeats_of_three_routes_are_three_groups_and_the_reverse_is_apart() -> None:
    ways = [figure_eight(3000), winding(3000), out_and_back(3000)]
    runs = [(i, line(way, 5.0, seed)) for i, way in enumerate(ways) for seed in range(3)]
    for (i, a), (j, b) in combinations(runs, 2):
        assert (similarity.relation(a, b) == "same") is (i == j)
    there, back = line(ways[1], 5.0), line(Way.of(ways[1].xy[::-1]), 5.0, 9)
    assert similarity.relation(there, back) == "reverse"


def test_a_loop_is_the_same_from_wherever_it_is_started() -> None:
    side = 500.0
    square = np.array([[0, 0], [side, 0], [side, side], [0, side], [0, 0]], np.float64)
    elsewhere = np.vstack((square[2:4], square[0:3]))
    a, b = line(Way.of(square), 4.0), line(Way.of(elsewhere), 4.0, 1)
    assert a.is_loop
    assert similarity.relation(a, b) == "same"
    assert similarity.relation(a, line(Way.of(elsewhere[::-1]), 4.0, 2)) == "reverse"


def test_shared_stretches_are_those_in_the_same_direction() -> None:
    a = line(straight(2000), 3.0)
    half = line(Way.of(np.array([[1000.0, 0], [2000, 0], [2000, 1000]])), 3.0, 1)
    assert similarity.shared_share(a, half) == pytest.approx(0.5, abs=0.06)
    assert similarity.shared_share(a, line(Way.of(straight(2000).xy[::-1]), 3.0, 2)) == 0.0
    assert similarity.shared_share(a, a) == 1.0


def test_candidates_among_ten_thousand_runs_are_found_in_time() -> None:
    rng = np.random.default_rng(4)
    index = similarity.CellIndex[int]()
    base = line(winding(8000), 5.0)
    own = similarity.cells(base)
    pool = np.array(sorted(own))
    for i in range(10_000):
        # A town's runs: each shares some cells with ours, and has many of its own.
        shared = rng.choice(pool, size=rng.integers(0, 8), replace=False).tolist()
        index.add(i, frozenset(shared) | frozenset(range(i * 100, i * 100 + 40)))
    for seed in range(5):
        index.add(10_000 + seed, similarity.cells(line(winding(8000), 5.0, seed)))
    started = time.process_time()
    found = index.candidates(own)
    assert time.process_time() - started < 0.2
    assert {name for name, _ in found} == set(range(10_000, 10_005))
    index.remove(10_001)
    index.remove(10_001)
    assert len(index.candidates(own)) == 4


# Segments.


def on_segment(
    way: Way, speed_mps: float = 3.0, sigma_m: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    xy = way.at(np.arange(0.0, way.length_m, speed_mps))
    xy = xy + noise(len(xy), sigma_m, 5.0, np.random.default_rng(2))
    return *PLACE.unproject(xy), np.arange(len(xy), dtype=np.float64)


def segment(way: Way) -> segments.Segment:
    return segments.Segment.of(*places(way))


def test_times_on_a_segment_are_interpolated() -> None:
    part = segment(Way.of(np.array([[300.5, 0.0], [800.5, 0.0]])))
    (one,) = segments.efforts(part, *on_segment(straight(1500), 3.1))
    assert one.start_s == pytest.approx(300.5 / 3.1, abs=0.1)
    assert one.time == pytest.approx(part.length_m / 3.1, abs=0.1)
    (noisy,) = segments.efforts(part, *on_segment(straight(1500), 3.1, 4.0))
    assert noisy.time == pytest.approx(part.length_m / 3.1, abs=4)


def test_each_lap_is_an_effort_and_only_in_the_right_direction() -> None:
    lap = laps(1)
    part = segment(Way.of(lap.xy))
    found = segments.efforts(part, *on_segment(laps(5), 3.3, 2.0))
    assert len(found) == 5
    assert all(one.time == pytest.approx(lap.length_m / 3.3, abs=4) for one in found)
    assert segments.efforts(part, *on_segment(Way.of(laps(3).xy[::-1]), 3.3)) == []


def test_who_cuts_a_corner_or_turns_back_has_no_effort() -> None:
    corner = Way.of(np.array([[0.0, 0], [400, 0], [400, 400]]))
    part = segment(corner)
    cut = Way.of(np.array([[-200.0, 0], [0, 0], [400, 400], [400, 600]]))
    assert segments.efforts(part, *on_segment(cut)) == []
    early = Way.of(np.array([[0.0, 0], [400, 0], [400, 300], [0, 0]]))
    assert segments.efforts(part, *on_segment(early)) == []
    assert len(segments.efforts(part, *on_segment(corner))) == 1


def test_a_false_start_is_no_second_effort() -> None:
    part = segment(straight(500))
    start = np.array([[-50.0, 0], [20, 0], [20, 30], [-30, 30], [-30, 0], [700, 0]])
    (one,) = segments.efforts(part, *on_segment(Way.of(start)))
    assert one.time == pytest.approx(part.length_m / 3.0, abs=2)


def test_a_segment_has_a_length() -> None:
    with pytest.raises(InvalidInput, match=r"'50 m' is not 100..20000 m long"):
        segment(straight(55))


def test_the_earlier_of_equal_efforts_leads_and_ones_own_comes_first() -> None:
    day = datetime(2026, 11, 1, tzinfo=UTC)
    entries = [
        segments.Entry("ann", 100.0, day + timedelta(days=2)),
        segments.Entry("bob", 100.0, day + timedelta(days=1)),
        segments.Entry("bob", 120.0, day),
        segments.Entry("eve", 130.0, day),
    ]
    found = segments.leaderboard(entries, own="eve")
    assert [(rank, one.person) for rank, one in found] == [(3, "eve"), (1, "bob"), (2, "ann")]
