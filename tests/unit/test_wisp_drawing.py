"""The picture of a race shows what happened, is well-formed and brings nothing dangerous."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from defusedxml.ElementTree import fromstring

from causeway.apps.wisp.domain.drawing import draw, duration, signed
from causeway.apps.wisp.domain.fixes import Fix
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.result import result_of
from causeway.apps.wisp.domain.standing import Rules, Standing
from tests.wisp_tracks import figure_eight, ghost_of, run, straight

SVG = "{http://www.w3.org/2000/svg}"


def picture(ghost: Ghost, fixes: list[Fix], rules: Rules | None = None, title: str = "Race") -> str:
    race = Race(ghost, rules)
    standings: list[Standing] = []
    for fix in fixes:
        standings.append(race.add(fix))
        if race.is_over:
            break
    race.finish(fixes[-1].t)
    return draw(ghost, fixes, standings, result_of(race), title=title, opponent="5K PB")


def elements(svg: str, tag: str) -> list[Any]:
    return list(fromstring(svg).iter(f"{SVG}{tag}"))


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in elements(svg, "text")]


def strokes(svg: str) -> list[str]:
    return [one.get("stroke") for one in elements(svg, "path")]


def test_a_race_is_drawn_with_its_way_gap_and_paces() -> None:
    way = figure_eight(3000)
    svg = picture(ghost_of(way, 3.2), run(way, sigma_m=4.0, pauses=((400, 30),)).fixes)
    words = texts(svg)
    assert {"The way", "Gap to the ghost", "Pace, per kilometre", "start", "end", "200 m"} <= {
        *words
    }
    assert any(re.match(r"(Won|Lost) in 15:\d\d, 0:\d\d (ahead|behind)", one) for one in words)
    # Ahead before the stop, behind after it; the ghost's way and pace.
    assert {"#177245", "#b3261e", "#8b9099"} <= set(strokes(svg))
    assert "nan" not in svg
    assert len(svg) < 150_000


def test_words_of_people_stay_words() -> None:
    way = straight(800)
    svg = picture(ghost_of(way), run(way).fixes, title='<script>alert("x")</script>')
    assert '<script>alert("x")</script>' in texts(svg)
    assert elements(svg, "script") == []
    assert "href" not in svg


def test_a_race_on_a_treadmill_or_elsewhere_is_drawn_too() -> None:
    treadmill = picture(
        Ghost.goal(1000, 300), [Fix(float(t), distance_m=3.6 * t) for t in range(300)]
    )
    assert "Without places: by distance alone." in texts(treadmill)
    way = straight(1000)
    elsewhere = [replace(fix, lng=(fix.lng or 0) + 3.0) for fix in run(way).fixes]
    svg = picture(ghost_of(way), elsewhere)
    assert "nan" not in svg
    # The ghost's way is three degrees away: only its pace is grey.
    assert strokes(svg).count("#8b9099") == 1


def test_an_abandoned_race_says_where() -> None:
    way = straight(2000)
    svg = picture(ghost_of(way), run(way, end_m=700).fixes)
    assert any(re.match(r"Abandoned after 70\d m, 0:2\d ahead", one) for one in texts(svg))
    one_fix = picture(ghost_of(way), run(way).fixes[:1])
    assert "Abandoned after 0 m, level" in texts(one_fix)
    assert "nan" not in one_fix
    with pytest.raises(ValueError, match="without a fix"):
        draw(ghost_of(way), [], [], result_of(_over()))


def _over() -> Race:
    race = Race(Ghost.goal(1000, 300))
    race.add(Fix(0.0, distance_m=0.0))
    race.abandon(1.0)
    return race


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (-61, "-1:01"), (3600, "1:00:00"), (-0.2, "0:00")],
)
def test_durations_are_as_people_write_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_gaps_are_said_in_words() -> None:
    assert [signed(one) for one in (-38.1, 12.0, 0.2)] == ["0:38 ahead", "0:12 behind", "level"]
