"""The pool among several real servers: who is asked, who is left, who is asked besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ProviderUnavailable, RateLimited
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import MethodUnsupported, WrongAnswer
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from causeway.chains.report import report
from causeway.sandbox.anvil import AnvilNode
from tests.chain.proxy import FaultProxy, fault_proxy

SOMEBODY = "0x" + "11" * 20


class LateClock:
    """A clock that can be put forward; sleeping is put forward, too."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.slept_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.slept_s += seconds


@dataclass
class Three:
    """A chain read through three proxies before one node."""

    chain: EvmChain
    nodes: list[FaultProxy]
    clock: LateClock

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.chain.pool.endpoints


def chain_of(
    urls: list[str], chain_id: int, *, timeout_s: float = 5.0, clock: Clock = SYSTEM_CLOCK
) -> EvmChain:
    endpoints = [Endpoint(SecretUrl(url), f"node{n}") for n, url in enumerate(urls)]
    return EvmChain("test", chain_id, ProviderPool(endpoints, timeout_s=timeout_s, clock=clock))


@pytest.fixture
async def three(anvil: AnvilNode) -> AsyncGenerator[Three]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(fault_proxy(anvil.url)) for _ in range(3)]
        clock = LateClock()
        chain = chain_of([node.url for node in nodes], anvil.chain_id, clock=clock)
        stack.push_async_callback(chain.close)
        await chain.verify()
        yield Three(chain, nodes, clock)


def another_hash(header: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a header as a node on another fork would name it."""
    if header is None or header["number"] == "0x0":
        return header
    return header | {"hash": "0x" + "ab" * 32, "parentHash": "0x" + "cd" * 32}


# Hedging and sharing


async def test_a_read_that_hangs_is_asked_of_a_second_endpoint_and_that_one_is_asked_next(
    three: Three,
) -> None:
    for _ in range(5):
        await three.chain.balance(SOMEBODY)
    three.nodes[0].delay_s = 30
    started = SYSTEM_CLOCK.monotonic()
    assert await three.chain.balance(SOMEBODY) == 0
    assert SYSTEM_CLOCK.monotonic() - started < 2  # not the five seconds of a time limit
    asked = three.nodes[0].requests
    assert await three.chain.balance(SOMEBODY) == 0
    assert three.nodes[0].requests == asked  # it rests
    shown = {m.method: m for m in report(three.chain.pool)[0].methods}
    assert shown["eth_getBalance"].failures == {"slow": 1}


async def test_a_few_reads_in_a_hundred_are_hedged_and_no_more(three: Three) -> None:
    for _ in range(5):
        await three.chain.balance(SOMEBODY)
    for node in three.nodes:
        node.calls.clear()
        node.delay_s = 0.5
    await asyncio.gather(*(three.chain.balance(f"0x{n:040x}") for n in range(60)))
    asked = sum(node.calls["eth_getBalance"] for node in three.nodes)
    assert 60 < asked <= 60 + 10 + 3  # a burst of ten, and one in twenty


async def test_the_same_read_at_the_same_time_is_made_once(three: Three) -> None:
    three.nodes[0].delay_s = 0.05
    waiting = [asyncio.create_task(three.chain.balance(SOMEBODY)) for _ in range(20)]
    waiting += [asyncio.create_task(three.chain.balance(SOMEBODY, at=0)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # who stops waiting takes nothing from the others
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [0] * 39
    assert sum(node.calls["eth_getBalance"] for node in three.nodes) == 2
    await three.chain.balance(SOMEBODY)
    assert sum(node.calls["eth_getBalance"] for node in three.nodes) == 3  # nothing is kept


async def test_what_changes_something_is_asked_of_one_endpoint_one_time(three: Three) -> None:
    three.nodes[0].errors["evm_mine"] = (-32603, "internal error", None)
    calls = [three.chain.pool.call("evm_mine", ()) for _ in range(2)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, ProviderUnavailable) for one in failures)
    assert [node.calls["evm_mine"] for node in three.nodes] == [2, 0, 0]


# Breakers, budgets, capabilities


def breakers(three: Three) -> dict[str, str]:
    """Return the state of each breaker of the first endpoint, by method."""
    return {one.method: one.breaker for one in report(three.chain.pool)[0].methods}


async def test_who_keeps_failing_is_not_asked_for_fifteen_seconds_and_then_once(
    three: Three,
) -> None:
    three.nodes[0].lies["eth_getBalance"] = lambda _true: 7  # no hex
    for _ in range(5):
        assert await three.chain.balance(SOMEBODY) == 0
        three.endpoints[0].succeeded()  # it does not rest: only the breaker can hold it back
    assert breakers(three) == {"eth_getBalance": "open"}
    for _ in range(3):
        assert await three.chain.balance(SOMEBODY) == 0
    assert three.nodes[0].calls["eth_getBalance"] == 5
    await three.chain.code(SOMEBODY)
    assert three.nodes[0].calls["eth_getCode"] == 1  # the breaker is the method's own
    three.nodes[0].lies.clear()
    three.clock.ahead_s += 16
    await three.chain.balance(SOMEBODY)
    assert three.nodes[0].calls["eth_getBalance"] == 6
    assert breakers(three) == {"eth_getBalance": "closed", "eth_getCode": "closed"}


async def test_retry_after_is_honoured_even_when_nobody_else_is_left(three: Three) -> None:
    for node in three.nodes:
        node.status, node.retry_after = 429, "30"
    with pytest.raises(RateLimited):
        await three.chain.balance(SOMEBODY)
    asked = [node.requests for node in three.nodes]
    with pytest.raises(RateLimited) as refused:
        await three.chain.balance(SOMEBODY)
    assert [node.requests for node in three.nodes] == asked
    assert refused.value.retry_after_s == pytest.approx(30, abs=5)
    for node in three.nodes:
        node.status = None
    three.clock.ahead_s += 31
    assert await three.chain.balance(SOMEBODY) == 0


async def test_an_endpoint_with_a_budget_is_asked_within_it_and_others_for_the_rest(
    anvil: AnvilNode, three: Three
) -> None:
    for endpoint in three.endpoints:
        endpoint.budget.__init__(10.0)
    for n in range(30):
        await three.chain.balance(f"0x{n:040x}")
    assert [node.calls["eth_getBalance"] for node in three.nodes] == [10, 10, 10]
    assert three.clock.slept_s == 0
    for n in range(30, 40):
        await three.chain.balance(f"0x{n:040x}")
    assert three.clock.slept_s > 0.1  # all had spent it: somebody had to wait


async def test_a_method_that_an_endpoint_lacks_is_asked_of_others(three: Three) -> None:
    three.nodes[0].errors["eth_getBlockReceipts"] = (-32601, "the method does not exist", None)
    assert await three.chain.pool.call("eth_getBlockReceipts", ("0x0",)) == []
    assert await three.chain.pool.call("eth_getBlockReceipts", ("0x0",)) == []
    assert three.nodes[0].calls["eth_getBlockReceipts"] == 1
    assert report(three.chain.pool)[0].lacks == ("eth_getBlockReceipts",)
    assert await three.chain.balance(SOMEBODY) == 0
    assert three.nodes[0].calls["eth_getBalance"] == 1  # for anything else it is the first
    three.clock.ahead_s += 25 * 3600
    three.nodes[0].errors.clear()
    await three.chain.pool.call("eth_getBlockReceipts", ("0x0",))
    assert three.nodes[0].calls["eth_getBlockReceipts"] == 2


async def test_a_method_that_all_lack_is_said_to_be_lacking(three: Three) -> None:
    for node in three.nodes:
        node.errors["trace_block"] = (-32601, "the method trace_block does not exist", None)
    with pytest.raises(MethodUnsupported):
        await three.chain.pool.call("trace_block", ("0x0",))


async def test_old_state_is_asked_of_who_has_it(anvil: AnvilNode, three: Three) -> None:
    await anvil.mine(10)
    pruned = (-32000, "missing trie node 0abc (path ) state 0x12 is not available", None)
    three.nodes[0].errors["eth_getBalance"] = pruned
    assert await three.chain.balance(SOMEBODY, at=3) == 0
    three.endpoints[0].succeeded()
    three.nodes[0].errors.clear()
    await three.chain.balance(SOMEBODY, at=2)
    assert three.nodes[0].calls["eth_getBalance"] == 1
    await three.chain.balance(SOMEBODY, at=4)
    assert three.nodes[0].calls["eth_getBalance"] == 2


# Heads


async def test_heads_are_compared_and_the_odd_one_is_not_asked_about_the_tip(
    anvil: AnvilNode, three: Three
) -> None:
    await anvil.mine(5)
    three.nodes[0].lies["eth_getBlockByNumber"] = another_hash
    head = await three.chain.head()
    assert head.hash != "0x" + "ab" * 32
    assert [one.forked for one in three.endpoints] == [True, False, False]
    asked = three.nodes[0].calls.copy()
    await three.chain.balance(SOMEBODY)
    await three.chain.logs(LogFilter((), ()), 1, 5)
    assert three.nodes[0].calls == asked
    shown = report(three.chain.pool)[0]
    assert all(one.score.points == 0 for one in shown.methods)
    three.nodes[0].lies.clear()
    three.clock.ahead_s += 2
    await three.chain.head()
    assert [one.forked for one in three.endpoints] == [False, False, False]


async def test_two_that_contradict_each_other_leave_the_trusted_one_and_it_is_told(
    anvil: AnvilNode, three: Three
) -> None:
    pool = three.chain.pool
    pool.arrange(pool.endpoints[:2])
    true = await three.chain.head()
    await anvil.mine(3)
    three.nodes[0].lies["eth_getBlockByNumber"] = another_hash
    three.clock.ahead_s += 2
    await three.chain.head()
    assert pool.agreement is not None
    assert pool.agreement.undecided
    assert true.number == 0
    three.clock.ahead_s += 40
    await three.chain.head()
    assert pool.disagreeing_s() >= 40


async def test_of_two_the_one_that_leaves_the_common_chain_is_not_believed(
    anvil: AnvilNode, three: Three
) -> None:
    pool = three.chain.pool
    pool.arrange(pool.endpoints[:2])
    await anvil.mine(3)
    await three.chain.head()
    assert pool.agreement is not None
    assert pool.agreement.named_by == "node0"
    three.nodes[0].lies["eth_getBlockByNumber"] = another_hash  # also of blocks that both had
    three.clock.ahead_s += 2
    assert (await three.chain.head()).hash != "0x" + "ab" * 32
    assert [one.forked for one in pool.endpoints] == [True, False]
    three.nodes[0].lies["eth_chainId"] = lambda _true: "0x1"
    three.clock.ahead_s += 2
    await three.chain.head()
    assert pool.endpoints[0].right_chain is False  # it was asked once more who it is


async def test_who_stays_behind_is_not_asked_about_the_tip(anvil: AnvilNode, three: Three) -> None:
    old = await anvil.rpc("eth_getBlockByNumber", "latest", False)
    await anvil.mine(9)
    three.nodes[0].lies["eth_getBlockByNumber"] = only_when_newer(old)
    assert (await three.chain.head()).number == 9
    assert [one.lag for one in three.endpoints] == [9, 0, 0]
    assert await three.chain.balance(SOMEBODY) == 0
    assert three.nodes[0].calls["eth_getBalance"] == 0
    await three.chain.balance(SOMEBODY, at=0)  # what it has it may be asked for
    assert three.nodes[0].calls["eth_getBalance"] == 1


def only_when_newer(old: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a node's way of not having seen what came after this block."""

    def lie(true: dict[str, Any] | None) -> dict[str, Any] | None:
        newer = true is not None and int(true["number"], 16) > int(old["number"], 16)
        return old if newer else true

    return lie


async def test_of_two_counts_of_transactions_the_higher_is_believed(three: Three) -> None:
    three.nodes[1].lies["eth_getTransactionCount"] = lambda _true: "0x7"
    assert await three.chain.nonce(SOMEBODY) == 7
    assert await three.chain.nonce(SOMEBODY, at="pending") == 7
    assert three.nodes[2].calls["eth_getTransactionCount"] == 0
    assert await three.chain.nonce(SOMEBODY, at=0) == 0  # of an old block there is one


async def test_who_has_a_head_without_the_blocks_below_it_is_not_believed(
    anvil: AnvilNode, three: Three
) -> None:
    await anvil.mine(9)

    def torn(header: dict[str, Any] | None) -> dict[str, Any] | None:
        newest = header is not None and header["number"] in ("0x9", "0x0")
        return header if newest else None

    three.nodes[0].lies["eth_getBlockByNumber"] = torn
    for _ in range(2):  # whether or not heads are compared just now
        head, seven = await three.chain.look("latest", 7)
        assert (head and head.number, seven and seven.number) == (9, 7)
        three.endpoints[0].succeeded()
    alone = chain_of([three.nodes[0].url], anvil.chain_id)
    with pytest.raises(WrongAnswer):
        await alone.look("latest", 7)
    await alone.close()


async def test_a_slow_endpoint_does_not_hold_up_the_head(anvil: AnvilNode, three: Three) -> None:
    await anvil.mine(2)
    three.nodes[1].delay_s = 30
    started = SYSTEM_CLOCK.monotonic()
    assert (await three.chain.head()).number == 2
    assert SYSTEM_CLOCK.monotonic() - started < 2


async def test_heads_far_apart_are_looked_up_where_the_highest_is(
    anvil: AnvilNode, three: Three
) -> None:
    await anvil.mine(10)
    old = await anvil.rpc("eth_getBlockByNumber", hex(5), False)
    for node in three.nodes[:2]:  # both five blocks behind, and on another fork
        node.lies["eth_getBlockByNumber"] = only_when_newer(old | {"hash": "0x" + "ab" * 32})
    found = await three.chain.head()
    assert found.hash == "0x" + "ab" * 32  # two against one
    three.nodes[1].lies.clear()
    three.clock.ahead_s += 2
    assert (await three.chain.head()).number == 10
    assert [one.forked for one in three.endpoints] == [True, False, False]


async def test_a_chain_with_the_same_id_and_another_first_block_is_another_chain(
    three: Three, anvil: AnvilNode
) -> None:
    def other_genesis(header: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if header is None else header | {"hash": "0x" + "99" * 32}

    three.nodes[2].lies["eth_getBlockByNumber"] = other_genesis
    fresh = chain_of([node.url for node in three.nodes], anvil.chain_id)
    for _ in range(2):
        await fresh.balance(SOMEBODY)
    # The first two are known by now; the third is found out when it is asked for the first time.
    fresh.pool.endpoints[0].right_chain = fresh.pool.endpoints[1].right_chain = None
    await fresh.verify()
    assert [one.right_chain for one in fresh.pool.endpoints].count(False) >= 1
    await fresh.close()


async def test_an_answer_that_cannot_be_true_counts_against_its_endpoint(three: Three) -> None:
    def nonsense(_found: list[object]) -> None:
        raise WrongAnswer("broken_chain", "it cannot be")

    with pytest.raises(WrongAnswer):
        await three.chain.pool.batch([("eth_chainId", ())], accept=nonsense)
    for one in report(three.chain.pool):
        shown = {m.method: m for m in one.methods}["eth_chainId"]
        assert shown.failures == {"wrong_broken_chain": 1}
        assert shown.score.points < 100
        assert one.resting_s > 0
