"""Fees, batches, states and answers: the relayer's rules without a database or a chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.base.errors import (
    InvalidStateTransition,
    ProviderUnavailable,
    RateLimited,
    TransactionReverted,
)
from causeway.base.ids import uuid7
from causeway.chains.classify import ErrorReply, classify_send
from causeway.relayer.batching import TooMuchGas, fit
from causeway.relayer.fees import (
    Fees,
    Quote,
    bumped_fees,
    gas_limit,
    is_underpriced,
    starting_fees,
    suggested_tip,
)
from causeway.relayer.kind import GasStrategy, Unit
from causeway.relayer.sending import meaning
from causeway.relayer.states import EDGES, FAULT_POINTS, OPEN, TO_REVIEW, check_edge

wei = st.integers(0, 10**15)
quotes = st.builds(Quote, wei, wei)
ceilings = st.none() | st.integers(1, 10**16)


@st.composite
def offers(draw: st.DrawFn) -> Fees:
    tip = draw(wei)
    return Fees(tip, tip + draw(wei))


@given(offers(), quotes, st.integers(1, 3_000_000), ceilings)
def test_a_bump_always_replaces_and_never_passes_the_ceiling(
    last: Fees, quote: Quote, factor: int, ceiling: int | None
) -> None:
    found = bumped_fees(last, quote, factor, ceiling)
    if found is None:
        assert ceiling is not None
        return
    # geth wants a tenth more in both fields; stricter clients an eighth.
    assert found.tip_wei >= math.ceil(last.tip_wei * 1125 / 1000)
    assert found.cap_wei >= math.ceil(last.cap_wei * 1125 / 1000)
    assert found.tip_wei > last.tip_wei
    assert found.cap_wei > last.cap_wei
    assert found.tip_wei <= found.cap_wei
    assert ceiling is None or found.cap_wei <= ceiling
    if ceiling is None:
        assert found.tip_wei >= quote.tip_wei
        assert found.cap_wei >= 2 * quote.base_wei + found.tip_wei
        assert found.tip_wei * 1_000_000 >= last.tip_wei * factor


@given(quotes, ceilings)
def test_the_first_offer_gets_in_and_never_passes_the_ceiling(
    quote: Quote, ceiling: int | None
) -> None:
    found = starting_fees(quote, ceiling)
    if found is None:
        assert ceiling is not None
        assert quote.base_wei + quote.tip_wei > ceiling
        return
    assert found.tip_wei <= found.cap_wei
    assert not is_underpriced(found, quote)
    assert ceiling is None or found.cap_wei <= ceiling


@pytest.mark.parametrize(("strategy", "expected"), [("slow", 20), ("medium", 30), ("fast", 40)])
def test_the_tip_is_the_median_of_blocks_that_had_any(strategy: GasStrategy, expected: int) -> None:
    rewards = [(10, 20, 30), (0, 0, 0), (20, 30, 40), (30, 40, 50), (0, 0, 0)]
    assert suggested_tip(rewards, strategy, 1, 0) == expected
    assert suggested_tip(rewards, strategy, 99, 0) == 99
    assert suggested_tip([], strategy, 7, 0) == 7
    assert suggested_tip([], strategy, 7, 50) == (7 if strategy == "slow" else 50)


def test_the_gas_limit_is_rounded_down() -> None:
    assert gas_limit(100_001, 1_200_000) == 120_001


def unit(number: int) -> Unit:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Unit(uuid7(), str(number), {}, None, None, 0, 0, now)


def no_name(_error: TransactionReverted, _units: Sequence[Unit]) -> str | None:
    return None


@given(st.data())
async def test_whatever_the_gas_something_goes_and_only_hogs_and_bad_ones_fail(
    data: st.DataObject,
) -> None:
    """Batches are sent one after the other until nothing is left, as the planner does it."""
    size = data.draw(st.integers(1, 40))
    needs = data.draw(st.lists(st.integers(1, 60), min_size=size, max_size=size))
    bad = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    shared = data.draw(st.integers(0, 30))
    most, of_node = 70, data.draw(st.integers(60, 400))
    left = [unit(number) for number in range(size)]
    sent: list[int] = []
    failed: set[int] = set()

    async def estimate(part: Sequence[Unit]) -> int:
        gas = shared + sum(needs[int(one.key)] for one in part)
        if gas > of_node:
            raise TooMuchGas("no estimate")
        if any(int(one.key) in bad for one in part):
            raise TransactionReverted("no")
        return gas

    for _ in range(2 * size):
        if not left:
            break
        found = await fit(left, estimate, no_name, lambda _size: most)
        assert found.units or found.bad, "nothing moves"
        numbers = [int(one.key) for one in found.units]
        assert not numbers or shared + sum(needs[n] for n in numbers) == found.gas <= most
        sent += numbers
        failed |= {int(key) for key in found.bad}
        gone = {*found.bad, *(one.key for one in found.units)}
        left = [one for one in left if one.key not in gone]
    assert not left
    assert failed == {n for n in range(size) if n in bad or shared + needs[n] > min(most, of_node)}
    assert sorted(sent) == [n for n in range(size) if n not in failed]


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
async def test_halving_finds_exactly_the_bad_ones_with_few_tries(
    case: tuple[int, set[int]],
) -> None:
    size, bad = case
    units = [unit(number) for number in range(size)]
    tries = 0

    async def estimate(part: Sequence[Unit]) -> int:
        nonlocal tries
        tries += 1
        if any(int(one.key) in bad for one in part):
            raise TransactionReverted("no")
        return len(part)

    found = await fit(units, estimate, no_name)
    assert set(found.bad) == {str(number) for number in bad}
    assert [int(one.key) for one in found.units] == [n for n in range(size) if n not in bad]
    assert found.gas == len(found.units)
    depth = math.ceil(math.log2(size)) if size > 1 else 0
    assert tries <= 2 + 2 * len(bad) * max(depth, 1)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
async def test_named_offenders_cost_one_try_each(case: tuple[int, set[int]]) -> None:
    size, bad = case
    tries = 0

    async def estimate(part: Sequence[Unit]) -> int:
        nonlocal tries
        tries += 1
        for one in part:
            if int(one.key) in bad:
                raise TransactionReverted("no", error_name="AlreadyRevealed", error_args=[one.key])
        return 1

    def named(error: TransactionReverted, _units: Sequence[Unit]) -> str | None:
        return str(error.error_args[0])

    found = await fit([unit(number) for number in range(size)], estimate, named)
    assert set(found.named) == {str(number) for number in bad}
    assert found.bad == {}
    assert len(found.units) == size - len(bad)
    assert tries <= len(bad) + 1


async def test_what_passes_apart_but_not_together_sends_the_larger_part() -> None:
    async def estimate(part: Sequence[Unit]) -> int:
        keys = {one.key for one in part}
        if "2" in keys or keys >= {"0", "3"}:
            raise TransactionReverted("no")
        return len(part)

    found = await fit([unit(number) for number in range(4)], estimate, no_name)
    assert [one.key for one in found.units] == ["0", "1"]
    assert set(found.bad) == {"2"}


async def test_a_failing_provider_is_no_revert() -> None:
    async def estimate(_part: Sequence[Unit]) -> int:
        raise ProviderUnavailable

    with pytest.raises(ProviderUnavailable):
        await fit([unit(0)], estimate, no_name)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (-32000, "already known", "accepted"),
        (-32000, "unknown transaction", "open"),
        (-32000, "nonce too low: next nonce 7, tx nonce 6", "spent"),
        (-32000, "replacement transaction underpriced", "rival"),
        (-32000, "nonce too high", "gap"),
        (-32000, "insufficient funds for gas * price + value", "funds"),
        (-32000, "transaction underpriced", "cheap"),
        (-32000, "tx fee (2.00 ether) exceeds the configured cap (1.00 ether)", "cap"),
        (-32000, "intrinsic gas too low", "gas"),
        (-32603, "Internal error", "open"),
        (-32005, "rate limit exceeded", "open"),
    ],
)
def test_only_a_clear_answer_is_taken_as_one(code: int, text: str, expected: str) -> None:
    assert meaning(classify_send(ErrorReply(code, text))) == expected


def test_outages_leave_the_fate_of_bytes_open() -> None:
    assert meaning(ProviderUnavailable()) == "open"
    assert meaning(RateLimited()) == "open"


def test_every_state_but_the_final_ones_leads_on() -> None:
    final = {state for state, to in EDGES.items() if not to}
    assert final == {"dropped", *TO_REVIEW}
    assert EDGES["confirmed"] == {"sent"}  # a reorg, and nothing else
    assert {state for state in EDGES if "mined" in EDGES[state]} == {"signed", "sent"}
    assert "sent" in EDGES["mined"]
    # Once something is signed, only a spent nonce ends it.
    assert all("dropped" not in EDGES[state] for state in OPEN)
    with pytest.raises(InvalidStateTransition):
        check_edge("confirmed", "lost")


def test_fault_points_have_one_name_each() -> None:
    assert len(set(FAULT_POINTS)) == len(FAULT_POINTS)
