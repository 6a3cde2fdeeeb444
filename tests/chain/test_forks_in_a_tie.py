"""Two endpoints on two forks, one word against another: what was read and proved decides."""

from __future__ import annotations

import pytest

from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from tests.chain.paper import CHAIN_ID, CONTRACT, Event, PaperChain, served
from tests.chain.test_indexer_stories import FastClock

WANTED = [LogFilter((CONTRACT,), ())]


def grown(paper: PaperChain, on: str, blocks: int) -> str:
    """Mine blocks with an event each; return the newest."""
    for number in range(blocks):
        event = Event(f"0x{len(paper.blocks):064x}", (f"0x{number:064x}",), "0x")
        on = paper.mine([event], on=on).hash
    return on


@pytest.mark.parametrize("ahead", [0, 1, 5])
async def test_who_has_the_block_that_was_proved_is_believed(ahead: int) -> None:
    paper = PaperChain()
    common = grown(paper, paper.heads[0], 10)
    paper.heads = [common, common]
    clock = FastClock()
    async with served(paper) as urls:
        endpoints = [Endpoint(SecretUrl(url), f"node{n}") for n, url in enumerate(urls)]
        chain = EvmChain("paper", CHAIN_ID, ProviderPool(endpoints, timeout_s=5, clock=clock))
        try:
            assert (await chain.head()).hash == common
            # Both go on from there, each by itself; the preferred one is as high, or higher.
            first, second = grown(paper, common, 5 + ahead), grown(paper, common, 5)
            paper.heads = [first, second]
            found = await chain.read_range(WANTED, 1, 15, last_hash=second)
            assert found.proved
            for _ in range(3):
                clock.ahead_s += 2
                assert (await chain.head()).hash == second
            assert [one.forked for one in endpoints] == [True, False]
            # They agree again when it comes back to the chain that was read.
            paper.heads = [second, second]
            clock.ahead_s += 2
            assert (await chain.head()).hash == second
            assert [one.forked for one in endpoints] == [False, False]
        finally:
            await chain.close()


async def test_without_anything_read_the_one_that_was_believed_is_believed() -> None:
    paper = PaperChain()
    common = grown(paper, paper.heads[0], 10)
    paper.heads = [common, common]
    clock = FastClock()
    async with served(paper) as urls:
        endpoints = [Endpoint(SecretUrl(url), f"node{n}") for n, url in enumerate(urls)]
        chain = EvmChain("paper", CHAIN_ID, ProviderPool(endpoints, timeout_s=5, clock=clock))
        try:
            await chain.head()
            assert chain.pool.agreement is not None
            believed = [one.name for one in endpoints].index(chain.pool.agreement.named_by)
            paper.heads = [grown(paper, common, 5), grown(paper, common, 5)]
            clock.ahead_s += 2
            assert (await chain.head()).hash == paper.heads[believed]
        finally:
            await chain.close()
