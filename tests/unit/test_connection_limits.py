"""What may still be asked: never more than allowed, never stuck, whatever the answers' order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.connections.limits import MOST_S, Budget, Budgets, Rate, Reading, read_limits

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "reading"),
    [
        ({"X-RateLimit-Remaining": "12", "X-RateLimit-Reset": f"{NOW + 60:.0f}"}, (12, NOW + 60)),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, (0, NOW + 30)),
        ({"x-rate-limit-remaining": " 3 ", "x-rate-limit-reset": "5"}, (3, NOW + 5)),
        ({"x-ratelimit-remaining": "3"}, None),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "٣", "x-ratelimit-reset": "5"}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "9" * 15}, (1, NOW + MOST_S)),
        ({}, None),
    ],
)
def test_headers_are_read(headers: dict[str, str], reading: tuple[int, float] | None) -> None:
    found = read_limits(headers, NOW)
    assert found == (None if reading is None else Reading(*reading))


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=30)))
def test_no_header_breaks_it(headers: dict[str, str]) -> None:
    read_limits(headers, NOW)


@given(
    st.integers(1, 6),
    st.floats(0.5, 30),
    st.lists(st.floats(0, 20), max_size=60),
)
def test_a_documented_rate_is_never_exceeded(
    requests: int, seconds: float, pauses: list[float]
) -> None:
    budget, now, sent = Budget(Rate(requests, seconds)), NOW, list[float]()
    for pause in pauses:
        now += pause
        now += budget.wait_s(now) * (1 + 1e-9)
        budget.take(now)
        sent.append(now)
    for n, at in enumerate(sent):
        within = [t for t in sent[n:] if t < at + seconds * (1 - 1e-6)]
        assert len(within) <= requests


@dataclass
class Provider:
    """Counts as GitHub does: so many in each period, told in every answer."""

    limit: int
    period_s: float
    used: int = 0
    ends_at: float = 0.0
    refused: int = 0
    answers: list[Reading] = field(default_factory=list[Reading])

    def ask(self, now: float) -> Reading:
        if now >= self.ends_at:
            self.used, self.ends_at = 0, now + self.period_s
        if self.used >= self.limit:
            self.refused += 1
        self.used += 1
        return Reading(max(0, self.limit - self.used), self.ends_at)


@given(
    st.integers(1, 8),
    st.floats(3, 60),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3)), max_size=80),
)
def test_a_provider_that_tells_its_limit_never_refuses(
    limit: int, period_s: float, steps: list[tuple[float, int]]
) -> None:
    """Also when answers arrive late and in another order than they were given."""
    provider, budget, now = Provider(limit, period_s), Budget(), NOW
    budget.learn(provider.ask(now), now)
    late: list[Reading] = []
    for pause, delay in steps:
        now += pause
        now += budget.wait_s(now) * (1 + 1e-9)
        if provider.ends_at <= now:
            late.clear()
        budget.take(now)
        late.append(provider.ask(now))
        if delay == 0:
            for reading in reversed(late):
                budget.learn(reading, now)
            late.clear()
        elif now - (provider.ends_at - period_s) < 1e-6:
            # The first answer of a period comes before the next question.
            budget.learn(late.pop(), now)
    assert provider.refused == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.just(0.0), st.just(0)),
            st.tuples(st.just("pause"), st.floats(0, 1e9), st.just(0)),
            st.tuples(st.just("learn"), st.floats(-100, 1e6), st.integers(0, 50)),
            st.tuples(st.just("move"), st.floats(0, 1e5), st.just(0)),
        ),
        max_size=40,
    )
)
def test_nobody_waits_for_ever(steps: list[tuple[str, float, int]]) -> None:
    budget, now = Budget(Rate(3, 60)), NOW
    for what, seconds, remaining in steps:
        match what:
            case "take":
                budget.take(now)
            case "pause":
                budget.pause(seconds, now)
                assert budget.wait_s(now) >= min(seconds, MOST_S) - 1e-3
            case "learn":
                budget.learn(Reading(remaining, now + min(seconds, MOST_S)), now)
            case _:
                now += seconds
        wait_s = budget.wait_s(now)
        assert 0 <= wait_s <= MOST_S + 61
        assert budget.wait_s(now + wait_s + 1e-3) == 0


def test_an_answer_of_the_last_period_changes_nothing() -> None:
    budget = Budget()
    budget.learn(Reading(50, NOW + 3600), NOW)
    budget.learn(Reading(0, NOW + 60), NOW)
    assert budget.wait_s(NOW) == 0
    budget.learn(Reading(0, NOW + 3600.4), NOW)
    assert budget.wait_s(NOW) == pytest.approx(3600)
    budget.learn(Reading(80, NOW + 3600), NOW)
    assert budget.wait_s(NOW) > 0


def test_each_person_has_a_budget_and_the_oldest_is_forgotten() -> None:
    budgets = Budgets(most=2)
    budgets.of("alice").pause(60, NOW)
    assert budgets.of("bob").wait_s(NOW) == 0
    assert budgets.of("alice").wait_s(NOW) == 60
    budgets.of("carol")
    assert budgets.of("alice").wait_s(NOW) == 60
    budgets.of("bob")
    budgets.of("carol")
    assert budgets.of("alice").wait_s(NOW) == 0
