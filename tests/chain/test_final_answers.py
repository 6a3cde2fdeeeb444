"""What is final is asked of the chain once, by this process and by the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text

from causeway.chains.cache import FinalAnswers
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.chain import EvmChain
from causeway.chains.kept import KeptAnswers
from causeway.chains.pool import ProviderPool
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import transfer
from tests.chain.proxy import FaultProxy, fault_proxy

SOMEBODY = "0x" + "11" * 20


@pytest.fixture
async def proxy(anvil: AnvilNode) -> AsyncGenerator[FaultProxy]:
    async with fault_proxy(anvil.url) as running:
        yield running


def chain_through(proxy: FaultProxy, anvil: AnvilNode, database: Database) -> EvmChain:
    """Return a chain as a new process would make it."""
    pool = ProviderPool([Endpoint(SecretUrl(proxy.url), "node")])
    pool.final_answers = FinalAnswers(KeptAnswers(database, anvil.chain_id))
    return EvmChain("test", anvil.chain_id, pool)


async def test_a_final_receipt_is_asked_for_once(
    anvil: AnvilNode, proxy: FaultProxy, database: Database
) -> None:
    sent = await transfer(anvil)
    await anvil.rpc("eth_sendRawTransaction", "0x" + sent.raw.hex())
    await anvil.mine(3)
    chain = chain_through(proxy, anvil, database)
    first = await chain.receipt(sent.hash)
    await chain.receipt(sent.hash)
    assert proxy.calls["eth_getTransactionReceipt"] == 2  # nothing is known to be final yet
    await chain.look("latest", "finalized")
    chain.pool.final_answers.final = (await chain.head()).number
    for _ in range(3):
        assert await chain.receipt(sent.hash) == first
    assert proxy.calls["eth_getTransactionReceipt"] == 3
    again = chain_through(proxy, anvil, database)
    again.pool.final_answers.final = chain.pool.final_answers.final
    assert await again.receipt(sent.hash) == first
    assert proxy.calls["eth_getTransactionReceipt"] == 3
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT count(*) FROM causeway.final_answers")) == 1
    await chain.close()
    await again.close()


async def test_what_may_change_is_always_asked(
    anvil: AnvilNode, proxy: FaultProxy, database: Database
) -> None:
    await anvil.mine(9)
    chain = chain_through(proxy, anvil, database)
    chain.pool.final_answers.final = 5
    for at, asked in ((5, 1), (6, 2), ("latest", 2)):
        proxy.calls.clear()
        for _ in range(2):
            assert await chain.balance(SOMEBODY, at=at) == 0
        assert proxy.calls["eth_getBalance"] == asked, at
    assert await chain.receipt("0x" + "77" * 32) is None  # perhaps it is mined later
    asked = proxy.calls["eth_getTransactionReceipt"]
    await chain.receipt("0x" + "77" * 32)
    assert proxy.calls["eth_getTransactionReceipt"] == asked + 1
    for _ in range(2):  # by headers a replaced chain is found out, whatever was called final
        await chain.block(3)
    assert proxy.calls["eth_getBlockByNumber"] >= 2
    await chain.close()


async def test_without_a_database_the_chain_is_asked(
    anvil: AnvilNode, proxy: FaultProxy, database: Database
) -> None:
    chain = chain_through(proxy, anvil, database)
    chain.pool.final_answers.final = 0
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE causeway.final_answers RENAME TO away"))
    try:
        assert await chain.balance(SOMEBODY, at=0) == 0
        assert await chain.balance(SOMEBODY, at=0) == 0
        assert proxy.calls["eth_getBalance"] == 1  # memory is enough
    finally:
        async with database.transaction() as session:
            await session.execute(text("ALTER TABLE causeway.away RENAME TO final_answers"))
    await chain.close()


async def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    kept = FinalAnswers(most_bytes=100)
    kept.final = 100
    calls = [("eth_getBalance", (SOMEBODY, hex(n))) for n in range(10)]
    for call in calls:
        await kept.put([call], [b'"' + b"1" * 28 + b'"'])
    found = [await kept.get([call]) is not None for call in calls]
    assert found == [False] * 7 + [True] * 3
    assert await kept.get(calls[7:]) is not None
    assert await kept.get(calls[6:]) is None  # all or none
