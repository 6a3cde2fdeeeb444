"""Alert rules: the state machine, what may be stored, and how a channel is kept."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.mobs.alerts import channels
from causeway.apps.mobs.alerts.delivery import message, pause_s, signature
from causeway.apps.mobs.alerts.notices import plain
from causeway.apps.mobs.alerts.rules import check, holds, parse
from causeway.apps.mobs.alerts.states import NoData, Series, Timing, evaluate
from causeway.base.errors import InvalidInput

TRUTH = {"T": True, "F": False, "N": None}


def run(story: str, timing: Timing, every_s: int = 30) -> list[tuple[str, tuple[str, ...]]]:
    """Return the state and the events after each evaluation, 30 seconds apart."""
    series, found = Series(), list[tuple[str, tuple[str, ...]]]()
    for number, letter in enumerate(story.replace(" ", "")):
        step = evaluate(series, TRUTH[letter], 1000 + number * every_s, timing)
        series = step.series
        found.append((series.state, step.events))
    return found


def test_the_specification_s_example() -> None:
    timing = Timing(for_s=60, cooldown_s=60)
    found = run("F T T T N T F F T F", timing)
    assert [state for state, _ in found] == [
        *("inactive", "pending", "pending", "firing", "firing", "firing"),
        *("inactive", "inactive", "pending", "inactive"),
    ]
    events = [(number, what) for number, (_, events) in enumerate(found, 1) for what in events]
    assert events == [(4, "firing"), (6, "repeat"), (7, "resolved")]
    patient = run("F T T T N T F F T F", Timing(for_s=60, cooldown_s=900))
    assert [(n, e) for n, (_, es) in enumerate(patient, 1) for e in es] == [
        (4, "firing"),
        (7, "resolved"),
    ]


def test_no_data_that_is_fine_resolves() -> None:
    found = run("F T T T N T F", Timing(for_s=60, cooldown_s=900, no_data="ok"))
    assert [state for state, _ in found[3:6]] == ["firing", "inactive", "pending"]
    assert found[4][1] == ("resolved",)


def test_no_data_that_alerts_fires() -> None:
    assert run("N", Timing(no_data="alert"))[0] == ("firing", ("firing",))


def test_what_is_true_at_once_fires_at_once() -> None:
    assert run("T", Timing()) == [("firing", ("firing",))]


def test_a_new_episode_in_the_cooldown_is_told_of_when_that_ends() -> None:
    found = run("T F T T T T", Timing(cooldown_s=120))
    assert [events for _, events in found] == [("firing",), ("resolved",), (), (), ("firing",), ()]


def test_an_episode_nobody_heard_of_ends_in_silence() -> None:
    assert run("T F T F F F", Timing(cooldown_s=900))[3] == ("inactive", ())


def test_firing_is_kept_for_a_while() -> None:
    found = run("T F F F", Timing(keep_firing_s=60))
    assert [state for state, _ in found] == ["firing", "firing", "inactive", "inactive"]


stories = st.text(alphabet="TFN", min_size=1, max_size=60)
timings = st.builds(
    Timing,
    for_s=st.sampled_from([0, 30, 60, 300]),
    cooldown_s=st.sampled_from([60, 120, 900]),
    keep_firing_s=st.sampled_from([0, 60]),
    no_data=st.sampled_from(["ok", "keep", "alert"]),
)


@given(stories, timings)
def test_episodes_are_told_of_once_and_resolved_once(story: str, timing: Timing) -> None:
    told, last_event = False, None
    for number, (state, events) in enumerate(run(story, timing)):
        for what in events:
            if what == "resolved":
                assert told
                told = False
                continue
            assert state == "firing"
            assert told == (what == "repeat")
            assert last_event is None or (number - last_event) * 30 >= timing.cooldown_s
            told, last_event = True, number
        if state != "firing":
            assert not told


@given(stories, timings)
def test_firing_needs_to_have_been_true_long_enough(story: str, timing: Timing) -> None:
    unbroken = {"T": True, "N": timing.no_data != "ok", "F": False}
    before = "inactive"
    for number, (state, _) in enumerate(run(story, timing)):
        if state == "firing" and before != "firing":
            back = number - timing.for_s // 30
            assert back >= 0
            assert all(unbroken[letter] for letter in story[back : number + 1])
        before = state


@given(stories, timings)
def test_not_knowing_changes_nothing_when_it_is_kept(story: str, timing: Timing) -> None:
    kept: NoData = "keep"
    timing = Timing(timing.for_s, timing.cooldown_s, timing.keep_firing_s, kept)
    series = Series()
    for number, letter in enumerate(story):
        step = evaluate(series, TRUTH[letter], number * 30, timing)
        if letter == "N":
            assert step.series == series
            assert step.events == ()
        series = step.series


CUSTOM: dict[str, Any] = {"metric": "gas_price", "aggregation": "p95", "operator": ">"}


def test_the_specification_s_custom_rule_can_be_stored() -> None:
    found = parse(CUSTOM | {"by": "contract", "min_tx": 20, "filters": {"method_id": "0xa9059cbb"}})
    assert (found.metric, found.by, found.min_tx) == ("gas_price", "contract", 20)
    assert found.filters == {"method_id": "0xa9059cbb"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "metric"),
    ({"metric": "height"}, "metric"),
    (CUSTOM | {"aggregation": "median"}, "aggregation"),
    (CUSTOM | {"operator": "=>"}, "operator"),
    ({"metric": "gas_price"}, "operator"),
    (CUSTOM | {"filters": []}, "filters"),
    (CUSTOM | {"filters": {"colour": "red"}}, "filters.colour"),
    (CUSTOM | {"filters": {"to": "0x12"}}, "filters.to"),
    (CUSTOM | {"filters": {"contract_ids": ["1"]}}, "filters.contract_ids"),
    (CUSTOM | {"filters": {"contract_ids": [2**40]}}, "filters.contract_ids"),
    (CUSTOM | {"by": "colour"}, "by"),
    (CUSTOM | {"by": "provider"}, "by"),
    ({"metric": "block_time", "operator": ">", "by": "contract"}, "by"),
    (CUSTOM | {"min_tx": -1}, "min_tx"),
    (CUSTOM | {"min_tx": True}, "min_tx"),
    (CUSTOM | {"wat": 1}, "wat"),
    ({"metric": "error_count", "operator": ">"}, "filters.signature"),
    ({"metric": "method_count", "operator": ">"}, "filters.method_id"),
    ({"metric": "failure_rate", "operator": ">", "aggregation": "sum"}, "aggregation"),
    ({"metric": "indexer_lag", "operator": ">", "aggregation": "p95"}, "aggregation"),
]


@pytest.mark.parametrize(("conditions", "field"), WRONG)
def test_a_rule_that_cannot_be_evaluated_is_refused(conditions: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check("custom", conditions)
    assert refused.value.fields[0].path == f"conditions.{field}"
    assert refused.value.fields[0].allowed


def test_operators() -> None:
    one, two = Decimal(1), Decimal(2)
    found = {sign: holds(one, sign, two) for sign in (">", ">=", "<", "<=", "==", "!=")}
    assert found == {">": False, ">=": False, "<": True, "<=": True, "==": False, "!=": True}


def test_numbers_are_written_plainly() -> None:
    shown = [plain(Decimal(one)) for one in ("61200000000", "6.12E+10", "5.000000", "0.5", "100")]
    assert shown == ["61200000000", "61200000000", "5", "0.5", "100"]
    assert plain(None) is None


def test_a_channel_shows_no_secret_and_is_kept_when_it_comes_back_as_shown() -> None:
    hook = {"type": "slack", "url": "https://hooks.example/services/T0/B0/abcdefghij0123456789ABCD"}
    shown = channels.shown(hook)
    assert shown["url"] == "https://hooks.example/services/T0/B0/…"
    assert channels.kept([shown], [hook]) == [hook]
    with pytest.raises(InvalidInput):
        channels.kept([shown], [])


def test_a_channel_may_lie_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = {"type": "webhook", "url": "env:MOBS_CHANNEL_OPS"}
    assert channels.kept([channel], []) == [channel]
    with pytest.raises(InvalidInput, match="MOBS_CHANNEL_OPS is not set"):
        channels.address(channel)
    monkeypatch.setenv("MOBS_CHANNEL_OPS", "https://example.org/hook")
    assert channels.address(channel) == "https://example.org/hook"
    # Anything else of the environment is nobody's channel.
    with pytest.raises(InvalidInput):
        channels.kept([{"type": "webhook", "url": "env:DATABASE_URL"}], [])


@pytest.mark.parametrize("url", ["ftp://a.example/", "https://u:p@a.example/", "https://", "x"])
def test_a_channel_leads_somewhere(url: str) -> None:
    with pytest.raises(InvalidInput):
        channels.target(url)


def test_a_target_keeps_its_name_at_the_address_that_was_checked() -> None:
    target = channels.target("https://a.example:8443/x?y=1")
    assert target.at("192.0.2.1") == "https://192.0.2.1:8443/x?y=1"
    assert target.at("2001:db8::1") == "https://[2001:db8::1]:8443/x?y=1"
    assert target.authority == "a.example:8443"
    assert channels.target("https://a.example/").authority == "a.example"


def test_what_goes_together_has_a_key_of_its_own_and_keeps_theirs() -> None:
    first, second = ({"idempotency_key": f"alert-{n}:episode-1:firing"} for n in (1, 2))
    assert message([first]) == first
    both = message([first, second])
    assert both["notifications"] == [first, second]
    assert both["idempotency_key"] == message([first, second])["idempotency_key"]
    assert both["idempotency_key"] != message([second])["idempotency_key"]


def test_a_signature_is_over_time_and_body() -> None:
    # hmac-sha256("secret", "1700000000.{}")
    found = signature("secret", 1_700_000_000, b"{}")
    assert len(found) == 64
    assert found != signature("secret", 1_700_000_001, b"{}")
    assert found != signature("secret", 1_700_000_000, b"{ }")


def test_pauses_grow_to_an_hour() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 4, 20)] == [5, 10, 20, 40, 3600]
