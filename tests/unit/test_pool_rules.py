"""The rules by which a provider pool judges its endpoints, as plain arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.base.errors import ConfigurationError
from causeway.chains import methods
from causeway.chains.breaker import Breaker
from causeway.chains.budget import Budget, budgets_from
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.head import agree
from causeway.chains.protocol import Block
from causeway.chains.record import Record
from causeway.chains.routing import Question, Router
from causeway.chains.score import score


def block(number: int, fork: str = "a", parent: str | None = None) -> Block:
    """Return a block of a fork; its parent is of the same unless another is said."""
    return Block(
        number,
        f"0x{fork}{number:x}",
        f"0x{parent or fork}{number - 1:x}",
        datetime.fromtimestamp(number, UTC),
    )


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(SecretUrl(f"http://node{n}.test"), f"node{n}") for n in range(count)]


# Score


@given(
    success=st.none() | st.floats(0, 1),
    latency_s=st.none() | st.floats(0, 100),
    median_s=st.none() | st.floats(0, 100),
    lag=st.integers(0, 1000),
    forked=st.booleans(),
)
def test_what_a_score_lost_is_explained_to_the_last_point(
    success: float | None, latency_s: float | None, median_s: float | None, lag: int, forked: bool
) -> None:
    found = score(
        success=success, latency_s=latency_s, median_s=median_s, lag_blocks=lag, forked=forked
    )
    assert found.points == pytest.approx(100 - sum(one.points for one in found.deductions))
    assert -1e-9 <= found.points <= 100
    assert all(one.points > 0 and one.reason for one in found.deductions)


def test_a_score_falls_with_failures_slowness_and_lag() -> None:
    def points(success: float = 1.0, latency_s: float = 0.1, lag: int = 0) -> float:
        found = score(success=success, latency_s=latency_s, median_s=0.1, lag_blocks=lag)
        return found.points

    assert points() == 100
    assert points() > points(success=0.9) > points(success=0.5) > points(success=0) == 50
    assert points() > points(latency_s=0.2) > points(latency_s=0.4) > points(latency_s=9) == 70
    assert points() > points(lag=1) > points(lag=5) > points(lag=10) == points(lag=99) == 80


# Breaker


def test_five_failures_in_a_row_open_the_breaker_and_one_question_closes_it() -> None:
    breaker = Breaker()
    for second in range(4):
        breaker.failed(second)
    assert breaker.state(4) == "closed"
    breaker.failed(4)
    assert breaker.state(18.9) == "open"
    assert breaker.state(19) == "half_open"
    breaker.asking(19)
    assert breaker.state(19) == "open"  # one at a time
    breaker.succeeded(20)
    assert breaker.state(20) == "closed"


def test_the_breaker_stays_open_twice_as_long_each_time_up_to_five_minutes() -> None:
    breaker, now, rests = Breaker(), 0.0, list[float]()
    for _ in range(5):
        breaker.failed(now)
    for _ in range(7):
        since = now
        while breaker.state(now) != "half_open":
            now += 1
        rests.append(now - since)
        breaker.asking(now)
        breaker.failed(now)
    assert rests == [15, 30, 60, 120, 240, 300, 300]


def test_a_question_that_is_given_up_lets_the_next_one_pass() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0)
    breaker.asking(15)
    breaker.given_up()
    assert breaker.state(15) == "half_open"


def test_the_breaker_opens_when_most_of_the_last_calls_failed() -> None:
    breaker = Breaker()
    for n in range(12):
        if n % 3:
            breaker.failed(n)
        else:
            breaker.succeeded(n)
    assert breaker.state(12) == "open"
    spread = Breaker()
    for n in range(12):  # as many, but over minutes
        if n % 3:
            spread.failed(n * 20)
        else:
            spread.succeeded(n * 20)
    assert spread.state(12 * 20) == "closed"


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ok", "failed", "ask", "give up"]))))
def test_a_breaker_lets_a_question_pass_again_whatever_happened(
    story: list[tuple[float, str]],
) -> None:
    breaker, now = Breaker(), 0.0
    for wait, what in story:
        now += wait
        if what == "ok":
            breaker.succeeded(now)
        elif what == "failed":
            breaker.failed(now)
        elif what == "ask":
            breaker.asking(now)
        else:
            breaker.given_up()
    breaker.given_up()
    assert breaker.state(now + 300) != "open"


# Budget


def test_without_a_limit_nothing_waits() -> None:
    budget = Budget()
    for n in range(1000):
        assert budget.wait_s(100, n / 1000) == 0
        budget.spend(100, n / 1000)


@given(st.floats(1, 100), st.lists(st.floats(0.1, 20), min_size=30, max_size=60))
def test_no_more_is_spent_than_the_rate_allows(rate: float, costs: list[float]) -> None:
    budget, now, spent = Budget(rate), 0.0, 0.0
    for cost in costs:
        now += budget.wait_s(cost, now) + 1e-9
        assert budget.wait_s(cost, now) == pytest.approx(0, abs=1e-6)
        budget.spend(cost, now)
        spent += cost
    # One second's worth at the start, and the last one may be dearer than what is left.
    assert spent <= rate * (now + 1) + max(costs) + 1e-6


def test_a_refusal_halves_the_rate_and_minutes_give_it_back() -> None:
    budget = Budget()
    for n in range(100):
        budget.spend(1, n / 10)  # ten a second
    budget.refused(10)
    assert budget.rate(10) == pytest.approx(5, rel=0.1)
    budget.refused(10.5)  # the same burst
    assert budget.rate(10.5) == pytest.approx(5, rel=0.1)
    before = budget.rate(10)
    assert before is not None
    assert budget.rate(70) == pytest.approx(before * 1.1)
    budget.refused(70)
    halved = budget.rate(70)
    assert halved is not None
    assert halved < before
    assert budget.rate(70 + 3600) is None  # long ago


def test_retry_after_is_waited_for_and_a_plan_is_never_exceeded() -> None:
    budget = Budget(25.0)
    budget.refused(100, 7)
    assert budget.wait_s(1, 100) == 7
    assert budget.blocked_s(106) == 1
    assert budget.blocked_s(107) == 0
    assert budget.rate(1e6) == 25


def test_budgets_are_read_by_endpoint_and_what_is_none_is_named() -> None:
    found = budgets_from("base-1=25, mantle.main-2=330cu/s\nother=0.5/s")
    assert {name: (b.rate(0), b.weighed) for name, b in found.items()} == {
        "base-1": (25, False),
        "mantle.main-2": (330, True),
        "other": (0.5, False),
    }
    assert budgets_from("") == {}
    for wrong in ("base-1", "base-1=fast", "base-1=0", "base-1=-3", "=3"):
        with pytest.raises(ConfigurationError, match="CAUSEWAY_RPC_BUDGETS"):
            budgets_from(wrong)


# Record


def test_latencies_are_percentiles_and_age() -> None:
    record = Record()
    assert record.latency_s(0.5, 0) is None
    for n in range(1, 101):
        record.answered(n / 100, n / 1000)
    assert record.latency_s(0.5, 1) == 0.05
    assert record.latency_s(0.95, 1) == 0.095
    assert record.latency_s(0.95, 400) is None


def test_failures_are_counted_by_kind_and_forgiven_with_time() -> None:
    record = Record()
    assert record.success(0) is None
    for n in range(50):
        record.failed(n / 10, "timeout" if n % 2 else "http_502")
    assert record.failures == {"timeout": 25, "http_502": 25}
    bad = record.success(5)
    assert bad is not None
    assert bad < 0.05
    later = record.success(65)
    assert later == pytest.approx(0.5, abs=0.03)


# Heads


def test_the_head_of_one_endpoint_is_the_head() -> None:
    found = agree({"one": block(7)})
    assert (found.head.number, found.confirmed, found.forked) == (7, 7, frozenset())


def test_a_head_that_only_one_has_is_followed_and_confirmed_up_to_the_others() -> None:
    found = agree({"a": block(8), "b": block(7), "c": block(5)})
    assert (found.head.number, found.confirmed) == (8, 7)
    assert found.lags == {"a": 0, "b": 1, "c": 3}
    assert not found.forked


@pytest.mark.parametrize("liar", ["a", "b", "c"])
@pytest.mark.parametrize("above", [-1, 0, 1])
def test_who_contradicts_two_others_is_on_another_fork(liar: str, above: int) -> None:
    heads = {name: block(9) for name in "abc"}
    heads[liar] = block(9 + above, "f")
    found = agree(heads, trusted=liar)
    assert found.forked == {liar}
    assert found.head == block(9)
    assert not found.undecided


def test_of_two_that_contradict_each_other_the_one_that_was_trusted_is_believed() -> None:
    heads = {"a": block(9), "b": block(10, "f")}
    for trusted, other in (("a", "b"), ("b", "a")):
        found = agree(heads, trusted=trusted)
        assert (found.named_by, found.forked, found.undecided) == (trusted, {other}, True)


@given(
    st.dictionaries(
        st.sampled_from("vwxyz"),
        st.tuples(st.integers(5, 9), st.sampled_from("abc")),
        min_size=1,
    )
)
def test_whatever_heads_there_are_the_agreed_one_is_of_somebody_and_nobody_outvotes_it(
    said: dict[str, tuple[int, str]],
) -> None:
    heads = {name: block(number, fork) for name, (number, fork) in said.items()}
    found = agree(heads, trusted="v")
    assert found.head == heads[found.named_by]
    assert found.named_by not in found.forked
    assert found.confirmed <= found.head.number
    same = [n for n, h in heads.items() if h.hash == found.head.hash]
    for name in found.forked:
        rivals = [n for n, h in heads.items() if h.hash == heads[name].hash]
        near = [n for n, h in heads.items() if found.head.parent_hash == h.hash]
        assert len(same) + len(near) >= 1
        assert found.undecided or len(rivals) <= len(heads) - len(rivals)


# Methods and routing


def test_what_a_request_is_about_is_seen() -> None:
    logs = ("eth_getLogs", ({"fromBlock": "0x1", "toBlock": "0x64"},))
    header = ("eth_getBlockByNumber", ("0x65", False))
    assert methods.lead([header, logs, header]) == "eth_getLogs"
    assert methods.highest_block([logs, header]) == 0x65
    assert methods.highest_block([("eth_getBlockByNumber", ("latest", False))]) is None
    assert methods.about_the_tip([("eth_getBlockByNumber", ("latest", False))])
    assert methods.about_the_tip([("eth_call", ({"data": "0x"}, "pending"))])
    assert methods.about_the_tip([("eth_blockNumber", ())])
    assert not methods.about_the_tip([logs, header])
    assert methods.state_block([("eth_call", ({}, "0x10")), ("eth_getCode", ("0x", "0x9"))]) == 9
    assert methods.repeatable([logs, header])
    assert not methods.repeatable([header, ("eth_sendRawTransaction", ("0x",))])


def test_the_first_in_the_list_is_asked_until_another_is_much_better_for_half_a_minute() -> None:
    router, (one, two) = Router(), endpoints(2)
    asked = Question.of([("eth_call", ({}, "0x10"))])
    for n in range(100):
        two.record("eth_call").answered(n / 100, 0.01)
        one.record("eth_call").failed(n / 100, "timeout")
    one.record("eth_call").breaker.succeeded(1)  # only its score speaks against it
    first = [router.order([one, two], asked, 1 + second)[0].name for second in range(40)]
    assert first == ["node0"] * 30 + ["node1"] * 10


def test_who_is_behind_is_not_asked_about_the_tip_nor_about_blocks_it_lacks() -> None:
    router, (one, two) = Router(), endpoints(2)
    one.lag, one.head = 5, block(95)

    def order(*calls: tuple[str, tuple[object, ...]]) -> list[str]:
        return [e.name for e in router.order([one, two], Question.of(calls), 0)]

    assert order(("eth_getBalance", ("0x", "latest"))) == ["node1"]
    assert order(("eth_getBlockByNumber", (hex(96), False))) == ["node1"]
    assert order(("eth_getBlockByNumber", (hex(95), False))) == ["node0", "node1"]
    two.forked = True
    assert order(("eth_getBlockByNumber", (hex(95), False))) == ["node0"]
    assert order(("eth_getBalance", ("0x", "latest"))) == ["node0", "node1"]  # none is well


def test_who_lacks_something_is_asked_last() -> None:
    router, (one, two, three) = Router(), endpoints(3)
    all_of_them = [one, two, three]
    one.lacks["debug_traceTransaction"] = 100.0
    trace = Question.of([("debug_traceTransaction", ("0x",))])
    assert [e.name for e in router.order(all_of_them, trace, 99)] == ["node1", "node2", "node0"]
    assert router.order(all_of_them, trace, 100)[0] is one  # perhaps by now
    two.state_from = 50
    state = Question.of([("eth_call", ({}, hex(49)))])
    assert [e.name for e in router.order(all_of_them, state, 99)] == ["node0", "node2", "node1"]
    three.max_log_range = 10
    query = {"fromBlock": "0x0", "toBlock": "0x1f"}
    logs = Question.of([("eth_getLogs", (query,))], 32)
    assert router.order(all_of_them, logs, 99)[-1] is three
    for _ in range(5):
        one.record("eth_getLogs").breaker.failed(99)
    assert [e.name for e in router.order(all_of_them, logs, 99)] == ["node1", "node2", "node0"]
