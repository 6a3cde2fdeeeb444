"""A race that is stored and restored at any fix goes on as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.apps.wisp.domain.fixes import Fix
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.result import result_of
from causeway.apps.wisp.domain.snapshot import OtherFormat, dump, restore
from causeway.apps.wisp.domain.standing import Rules
from tests.wisp_tracks import figure_eight, ghost_of, laps, run

GHOSTS = {
    "laps": ghost_of(laps(3)),
    "eight": ghost_of(figure_eight(900)),
    "goal": Ghost.goal(1000, 300),
}
RUNS = {
    "laps": run(laps(3), sigma_m=5.0, pauses=((100, 30),), has_counter=True).fixes,
    "eight": run(figure_eight(900), sigma_m=8.0).fixes,
    "goal": [
        replace(fix, lng=(fix.lng or 0) + 0.5) for fix in run(laps(3), sigma_m=4.0, seed=3).fixes
    ],
}


def told(race: Race, i: int, fix: Fix) -> None:
    if i == 60:
        race.pause(fix.t)
    if i == 80:
        race.resume(fix.t)
    race.add(Fix(fix.t, distance_m=fix.distance_m) if 150 <= i < 170 else fix)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(GHOSTS)),
    stops=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    clock=st.sampled_from(["elapsed", "moving"]),
)
def test_a_restored_race_says_what_the_first_would_have_said(
    name: str, stops: list[int], clock: str
) -> None:
    rules = Rules(
        clock="elapsed" if clock == "elapsed" else "moving",
        auto_pause=True,
        may_change_mode=True,
        split_m=200.0,
    )
    first, second = Race(GHOSTS[name], rules), Race(GHOSTS[name], rules)
    for i, fix in enumerate(RUNS[name]):
        if i in stops:
            second = restore(GHOSTS[name], rules, dump(second))
        told(first, i, fix)
        told(second, i, fix)
        assert first.standing == second.standing
    last = RUNS[name][-1].t
    first.finish(last)
    second.finish(last)
    assert result_of(first) == result_of(second)
    assert first.events == second.events
    assert dump(first) == dump(second)


def test_a_race_is_a_few_kilobytes() -> None:
    race = Race(GHOSTS["laps"])
    for fix in RUNS["laps"]:
        race.add(fix)
    assert len(dump(race)) < 12_000


def test_bytes_of_another_format_are_refused() -> None:
    ghost, rules = GHOSTS["goal"], Rules()
    data = dump(Race(ghost, rules))
    other = msgspec.msgpack.decode(data)
    changes: list[dict[str, Any]] = [
        {"format": 0},
        {"race": {}},
        {"race": other["race"] | {"more": 1}},
    ]
    for change in changes:
        with pytest.raises(OtherFormat):
            restore(ghost, rules, msgspec.msgpack.encode(other | change))
    for broken in (b"", b"\xc1", data[:-1]):
        with pytest.raises(OtherFormat):
            restore(ghost, rules, broken)
    # A race on a way does not become one without.
    with pytest.raises(OtherFormat):
        restore(ghost, rules, dump(Race(GHOSTS["laps"], rules)))
