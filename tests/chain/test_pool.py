"""The provider pool against real servers: one that is away, one that lies, one that is slow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from functools import partial

import pytest
from structlog.testing import capture_logs

from causeway.base.errors import ChainBehind, ConfigurationError, ProviderUnavailable, RateLimited
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import AlreadyKnown, RangeTooLarge, RpcError
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from causeway.sandbox.anvil import AnvilNode
from tests.chain.ledger import chain_at, transfer
from tests.chain.proxy import FaultProxy, fault_proxy

EVERYTHING = LogFilter((), ())


@pytest.fixture
async def proxy(anvil: AnvilNode) -> AsyncGenerator[FaultProxy]:
    async with fault_proxy(anvil.url) as running:
        yield running


@pytest.fixture
async def pair(anvil: AnvilNode, proxy: FaultProxy) -> AsyncGenerator[EvmChain]:
    """A chain read through the proxy first and the node second."""
    chain = chain_at(proxy.url, anvil.chain_id, anvil.url)
    yield chain
    await chain.close()


def dead_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://user:secret-key@127.0.0.1:{taken.getsockname()[1]}/secret-key"


async def test_the_next_endpoint_answers_when_the_first_is_away(anvil: AnvilNode) -> None:
    chain = chain_at(dead_url(), anvil.chain_id, anvil.url)
    await chain.verify()
    await anvil.mine(3)
    assert (await chain.head()).number == 3
    assert [e.right_chain for e in chain.pool.endpoints] == [None, True]
    await chain.close()


async def test_no_answer_at_all_is_said_without_the_key() -> None:
    chain = chain_at(dead_url(), 1)
    with pytest.raises(ProviderUnavailable) as failure:
        await chain.head()
    shown = f"{failure.value!r} {failure.value.context} {chain.pool!r} {chain.pool.endpoints}"
    assert "secret-key" not in shown
    assert "127.0.0.1" in shown
    await chain.close()


@pytest.mark.parametrize("status", [429, 500, 502, 401, 404])
async def test_the_next_endpoint_answers_when_the_first_refuses(
    pair: EvmChain, proxy: FaultProxy, status: int
) -> None:
    assert (await pair.head()).number == 0
    proxy.status = status
    assert (await pair.head()).number == 0
    asked = proxy.requests
    assert (await pair.head()).number == 0
    assert proxy.requests == asked  # it rests
    assert pair.pool.endpoints[0].failures_in_a_row == 1


async def test_retry_after_reaches_the_caller(anvil: AnvilNode, proxy: FaultProxy) -> None:
    chain = chain_at(proxy.url, anvil.chain_id)
    await chain.verify()
    proxy.status, proxy.retry_after = 429, "7"
    with pytest.raises(RateLimited) as refused:
        await chain.head()
    assert refused.value.retry_after_s == 7
    assert "secret-key" not in str(refused.value)
    await chain.close()


async def test_an_endpoint_that_hangs_is_left_after_the_timeout(
    anvil: AnvilNode, proxy: FaultProxy
) -> None:
    proxy.delay_s = 30
    pool = ProviderPool(
        [Endpoint(SecretUrl(proxy.url), "slow"), Endpoint(SecretUrl(anvil.url), "quick")],
        timeout_s=0.3,
    )
    chain = EvmChain("test", anvil.chain_id, pool)
    assert (await chain.head()).number == 0
    await chain.close()


async def test_an_endpoint_of_another_chain_is_never_used(
    anvil: AnvilNode, proxy: FaultProxy
) -> None:
    proxy.lies["eth_chainId"] = lambda _true: "0x1"
    alone = chain_at(proxy.url, anvil.chain_id)
    with pytest.raises(ConfigurationError, match="serves chain 1, not"):
        await alone.verify()
    with pytest.raises(ProviderUnavailable):
        await alone.head()
    with pytest.raises(ProviderUnavailable):
        await alone.send_raw(b"\x02")
    await alone.close()
    chain = chain_at(proxy.url, anvil.chain_id, anvil.url)
    asked = proxy.calls.copy()
    await chain.head()  # without verify(): found at the first use
    assert proxy.calls - asked == {"eth_chainId": 1, "eth_getBlockByNumber": 1}  # who it is
    asked = proxy.calls.copy()
    assert (await chain.head()).number == 0
    assert not proxy.calls - asked
    await chain.close()


async def test_batches_shrink_to_what_an_endpoint_takes(
    anvil: AnvilNode, proxy: FaultProxy
) -> None:
    chain = chain_at(proxy.url, anvil.chain_id)
    await anvil.mine(20)
    proxy.takes_batches = False
    blocks = await chain.blocks(0, 20)
    assert [block.number for block in blocks] == list(range(21))
    assert chain.pool.endpoints[0].max_batch == 1
    proxy.takes_batches = True
    asked = proxy.requests
    await chain.blocks(0, 20)
    assert proxy.requests == asked + 21
    await chain.close()


async def test_replies_of_a_batch_are_put_in_order(anvil: AnvilNode, proxy: FaultProxy) -> None:
    chain = chain_at(proxy.url, anvil.chain_id)
    await anvil.mine(8)  # the proxy answers batches backwards
    asked = proxy.requests
    assert [block.number for block in await chain.blocks(2, 8)] == list(range(2, 9))
    assert proxy.requests == asked + 2  # chain id, one batch
    await chain.close()


async def test_an_endpoint_behind_the_block_is_passed_over(
    pair: EvmChain, proxy: FaultProxy, anvil: AnvilNode
) -> None:
    await anvil.mine(5)
    proxy.lies["eth_getBlockByNumber"] = lambda _true: None
    block = await pair.look(5)
    assert block == [None]  # a value, from the first
    assert [b.number for b in await pair.blocks(4, 5)] == [4, 5]
    assert await pair.logs(EVERYTHING, 1, 5) == []
    alone = chain_at(proxy.url, anvil.chain_id)
    with pytest.raises(ChainBehind):
        await alone.logs(EVERYTHING, 1, 5)
    await alone.close()


async def test_a_range_goes_to_the_endpoint_that_takes_it(
    pair: EvmChain, proxy: FaultProxy, anvil: AnvilNode
) -> None:
    await anvil.mine(20)
    proxy.max_range = 3
    assert await pair.logs(EVERYTHING, 1, 20) == []
    asked = proxy.calls["eth_getLogs"]
    assert pair.pool.endpoints[0].max_log_range == 10
    assert await pair.logs(EVERYTHING, 1, 20) == []
    assert proxy.calls["eth_getLogs"] == asked  # it is known to refuse
    alone = chain_at(proxy.url, anvil.chain_id)
    with pytest.raises(RangeTooLarge):
        await alone.logs(EVERYTHING, 1, 4)
    assert await alone.logs(EVERYTHING, 1, 3) == []
    await alone.close()


def instead(lie: object, _true: object) -> object:
    return lie


async def test_a_reply_of_another_shape_is_a_failure_of_the_endpoint(
    pair: EvmChain, proxy: FaultProxy
) -> None:
    lies: tuple[object, ...] = ({"number": "0x0"}, [1], "0x1", 7)
    for lie in lies:
        proxy.lies["eth_getBlockByNumber"] = partial(instead, lie)
        assert (await pair.head()).number == 0
        pair.pool.endpoints[0].succeeded()


async def test_a_read_survives_a_connection_that_was_closed_meanwhile(
    anvil: AnvilNode, proxy: FaultProxy
) -> None:
    chain = chain_at(proxy.url, anvil.chain_id)
    await chain.head()
    proxy.breaks = "before"
    asked = proxy.requests
    with pytest.raises(ProviderUnavailable):
        await chain.head()
    assert proxy.requests == asked + 2  # once more, then given up
    proxy.breaks = None
    assert (await chain.head()).number == 0
    await chain.close()


async def test_a_send_is_made_once_however_it_ends(anvil: AnvilNode, proxy: FaultProxy) -> None:
    chain = chain_at(proxy.url, anvil.chain_id)
    await chain.head()
    for proxy.breaks in ("before", "after"):
        with pytest.raises(ProviderUnavailable):
            await chain.send_raw(b"\x02\x01")
    assert proxy.calls["eth_sendRawTransaction"] == 2
    await chain.close()


async def test_a_send_goes_to_all_and_the_first_acceptance_wins(
    pair: EvmChain, proxy: FaultProxy, anvil: AnvilNode
) -> None:
    proxy.errors["eth_sendRawTransaction"] = (-32000, "nonce too low", None)
    transaction = await transfer(anvil)
    assert await pair.send_raw(transaction.raw) == transaction.hash
    async with asyncio.timeout(5):  # nobody waited for the slower one, but it is asked
        while proxy.calls["eth_sendRawTransaction"] != 1:
            await asyncio.sleep(0.01)
    assert await pair.receipt(transaction.hash) is not None


async def test_without_acceptance_the_error_that_says_most_wins(
    pair: EvmChain, proxy: FaultProxy, anvil: AnvilNode
) -> None:
    for error, wanted in (
        ((-32000, "already known", None), AlreadyKnown),
        ((-32603, "internal error", None), RpcError),
    ):
        proxy.errors["eth_sendRawTransaction"] = error
        with pytest.raises(wanted):
            await pair.send_raw(b"\x02\x01")  # no transaction at all: the node refuses it


async def test_nothing_that_is_logged_holds_a_key(pair: EvmChain, proxy: FaultProxy) -> None:
    with capture_logs() as lines:
        proxy.lies["eth_chainId"] = lambda _true: "0x1"
        await pair.verify()
    assert lines
    assert "secret-key" not in repr(lines)
