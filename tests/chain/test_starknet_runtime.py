"""An installation opens a Starknet chain as its configuration says, its feeds included."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from causeway.app import ChainConfig
from causeway.base.errors import ConfigurationError
from causeway.base.settings import KernelSettings, load
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl
from causeway.chains.starknet.chain import StarknetChain, named, number_of
from causeway.chains.starknet.felts import from_short_string
from causeway.indexing.indexer import Indexer
from causeway.pipelines.bells import Bells
from causeway.runtime.installation import Installation, _chain
from causeway.store.engine import Database
from tests.chain.ledger import put, settle
from tests.starknet_world import StarknetBook, StarknetLedger, starknet


async def test_a_configured_chain_is_read_and_told_of_new_heads(database: Database) -> None:
    async with starknet() as node, AsyncExitStack() as stack:
        ledger = StarknetLedger(node)
        await ledger.deploy()
        bells = await stack.enter_async_context(Bells.open(database))
        installation = Installation(load(KernelSettings), database, [], bells)
        network = from_short_string("SN_SEPOLIA")
        urls = (SecretStr(node.url), SecretStr(node.ws_url))
        config = ChainConfig("local", number_of(network), urls, opens=named("SN_SEPOLIA"))
        chain = await _chain(stack, config, installation)
        assert isinstance(chain, StarknetChain)
        book = StarknetBook("book")
        await book.create(database)
        one = Indexer(database, chain, book.source("ledger", ledger.address, 1), patience_s=0.0)
        (feed,) = chain.feeds
        heard = asyncio.Event()
        following = asyncio.create_task(feed.run(heard.set))
        try:
            async with asyncio.timeout(20):
                await heard.wait()
                heard.clear()
                await ledger.block(put(1, 2))
                await heard.wait()
            await settle(one)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert len(await book.rows(database)) == 2


def test_an_id_of_another_network_is_refused() -> None:
    pool = ProviderPool([Endpoint(SecretUrl("http://127.0.0.1:1"), "none")])
    with pytest.raises(ConfigurationError, match="the id of SN_MAIN is"):
        named("SN_MAIN")("main", number_of(from_short_string("SN_SEPOLIA")), pool)
    assert number_of(from_short_string("SN_MAIN")).bit_length() == 63
