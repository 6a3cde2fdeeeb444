"""Segments are announced while they are run, as they are found afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from causeway.apps.wisp.domain.curve import Curve
from causeway.apps.wisp.domain.livesegments import LiveSegment, SegmentEvent
from causeway.apps.wisp.domain.segments import Segment, efforts
from tests.wisp_tracks import Run, Way, laps, route_of, run, straight


def said(live: LiveSegment, one: Run) -> list[SegmentEvent]:
    events = (live.add(fix) for fix in one.fixes)
    return [event for event in events if event is not None]


def part(start_m: float, end_m: float) -> Way:
    return Way.of(np.array([[start_m, 0.0], [end_m, 0.0]]))


@pytest.mark.parametrize("sigma_m", [0.0, 4.0])
def test_a_segment_begins_stands_and_ends(sigma_m: float) -> None:
    way = part(400.0, 1001.6)
    live = LiveSegment(route_of(way), Curve.even(way.length_m, 200))
    events = said(live, run(straight(1500), 3.3, sigma_m=sigma_m))
    kinds = [event.kind for event in events]
    assert kinds[0] == "segment_start"
    assert kinds[-1] == "segment_end"
    assert set(kinds[1:-1]) == {"segment_gap"}
    slack = 0.7 if sigma_m == 0 else 4.0
    assert events[0].t == pytest.approx(400 / 3.3, abs=slack)
    assert events[-1].time == pytest.approx(601.6 / 3.3, abs=slack)
    # Between two fixes, not at the second.
    assert events[-1].t == pytest.approx(1001.6 / 3.3, abs=0.3 if sigma_m == 0 else 4.0)
    assert events[-1].gap_seconds == pytest.approx(601.6 / 3.3 - 200, abs=slack)
    half = next(event for event in events if event.s >= 300)
    assert half.gap_seconds == pytest.approx(half.s / 3.3 - half.s / 3.008, abs=slack)


def test_live_and_afterwards_agree_on_each_lap() -> None:
    lap = laps(1)
    one = run(laps(4), 3.3, sigma_m=3.0)
    ends = [event for event in said(LiveSegment(route_of(lap)), one) if event.kind == "segment_end"]
    lat = np.array([fix.lat for fix in one.fixes], np.float64)
    lng = np.array([fix.lng for fix in one.fixes], np.float64)
    route = route_of(lap)
    found = efforts(Segment.of(*route.plane.unproject(route.xy[40:-40])), lat, lng, one.t)
    assert len(ends) == 4
    assert len(found) == 4
    for live, after in zip(ends, found, strict=True):
        assert live.time == pytest.approx(after.time, abs=5.0)
        assert live.gap_seconds is None


def test_who_crosses_or_turns_off_hears_of_no_effort() -> None:
    live = LiveSegment(route_of(part(500.0, 1000.0)))
    across = Way.of(np.array([[500.0, -400.0], [500.0, 400.0]]))
    assert said(live, run(across, 3.0)) == []
    back = Way.of(straight(1500).xy[::-1])
    assert said(LiveSegment(route_of(part(500.0, 1000.0))), run(back, 3.0)) == []
    off = Way.of(np.array([[300.0, 0], [700, 0], [700, 500]]))
    kinds = [event.kind for event in said(live, run(off, 3.0))]
    assert kinds[0] == "segment_start"
    assert "segment_end" not in kinds
    # The next time round it is an effort again.
    whole = [event.kind for event in said(live, later(run(straight(1500), 3.0), 1000.0))]
    assert whole[-1] == "segment_end"


def test_who_turns_back_and_starts_again_is_timed_anew() -> None:
    live = LiveSegment(route_of(part(500.0, 1000.0)))
    again = Way.of(np.array([[300.0, 0], [580, 0], [460, 0], [1300, 0]]))
    ends = [event for event in said(live, run(again, 3.0)) if event.kind == "segment_end"]
    assert [event.time for event in ends] == [pytest.approx(500 / 3.0, abs=2)]


def later(one: Run, seconds: float) -> Run:
    return Run(one.t, one.s, [replace(fix, t=fix.t + seconds) for fix in one.fixes])
