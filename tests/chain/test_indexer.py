"""Facts are applied in order, each once, whatever the provider and the other processes do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import (
    ChainBehind,
    ConfigurationError,
    ProviderUnavailable,
    TransientError,
)
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import Fact, Source
from causeway.indexing.undo import detach_undo
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import LEDGER, Book, Ledger, assert_as_fresh, chain_at, drop, put, settle
from tests.chain.proxy import fault_proxy
from tests.postgres_fixtures import PostgresServer, migrated_template


@asynccontextmanager
async def running(one: Indexer) -> AsyncGenerator[None]:
    """Run the indexer's loop until the block is left."""
    stop = asyncio.Event()
    task = asyncio.create_task(one.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def entries(database: Database) -> int:
    async with database.transaction() as session:
        return int(await session.scalar(text("SELECT count(*) FROM book.entries")) or 0)


async def until(database: Database, count: int, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while await entries(database) != count:
            await asyncio.sleep(0.02)


async def test_history_is_read_through_a_provider_that_takes_three_blocks(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger, chain: EvmChain
) -> None:
    for n in range(25):
        await ledger.block(put(n % 7, n), *([drop((n + 3) % 7)] if n % 4 == 0 else []))
        await ledger.mine(3)
    await ledger.mine(100)
    async with fault_proxy(anvil.url) as proxy:
        proxy.max_range = 3
        limited = chain_at(proxy.url, anvil.chain_id)
        one = Indexer(database, limited, book.source("ledger", ledger.address, 0))
        facts = 0
        while (progress := await one.step()).behind:
            facts += progress.facts
        assert facts + progress.facts == 32
        blocks = await ledger.head() + 1
        # Above finality the newest blocks are asked for by hash, sixteen at a time.
        assert proxy.calls["eth_getLogs"] < blocks / 3 * 1.5 + 20
        await limited.close()
    await assert_as_fresh(database, chain, book, ledger.address, 0)


async def test_the_tip_is_followed_block_by_block(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = Indexer(database, chain, book.source("ledger", ledger.address, 1))
    for n in range(5):
        number = await ledger.block(put(n, n), put(n, n + 1))
        progress = await one.step()
        assert progress.applied_to == progress.head == await chain.block(number)
        assert progress.facts == 2
        assert (await one.step()).facts == 0
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_a_fact_says_where_and_when_it_happened(
    database: Database, chain: EvmChain, ledger: Ledger
) -> None:
    seen: list[Fact] = []

    async def note(_session: AsyncSession, fact: Fact) -> None:
        seen.append(fact)

    await ledger.block(put(7, 8, "x"))
    await ledger.mine(100)
    last = await ledger.block(put(9, 10))
    source = Source(
        name="s",
        chain="ledger",
        abi=LEDGER,
        addresses=(ledger.address.upper().replace("0X", "0x"),),
        start_block=1,
        handlers={"Put": note},
    )
    await settle(Indexer(database, chain, source))
    assert [(f.event, dict(f.args)) for f in seen] == [
        ("Put", {"key": 7, "amount": 8, "note": "x"}),
        ("Put", {"key": 9, "amount": 10, "note": ""}),
    ]
    for fact in seen:
        block = await chain.block(fact.block.number)
        assert block is not None
        assert (fact.block.hash, fact.block.timestamp) == (block.hash, block.timestamp)
        assert fact.chain_id == chain.chain_id
        assert fact.block.timestamp.utcoffset() == timedelta(0)
    assert seen[1].block.number == last


async def test_two_at_once_apply_each_fact_once(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    for n in range(30):
        await ledger.block(put(n % 5, n))
    await ledger.mine(90)
    source = book.source("ledger", ledger.address, 1)
    several = [Indexer(database, chain, source, max_range=4) for _ in range(3)]
    await asyncio.gather(*(settle(one) for one in several))
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_a_handler_that_fails_leaves_nothing_behind(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    fails = True

    async def refuse(session: AsyncSession, fact: Fact) -> None:
        await book.put(session, fact)
        if fails and fact.args["key"] == 2:
            raise RuntimeError("not this one")

    source = book.source("ledger", ledger.address, 1)
    handlers = {**source.handlers, "Put": refuse}
    broken = Source(
        name="ledger",
        chain="ledger",
        abi=LEDGER,
        addresses=source.addresses,
        start_block=1,
        handlers=handlers,
    )
    await ledger.block(put(1, 1), put(2, 2))
    one = Indexer(database, chain, broken, poll_interval_s=0.02)
    with pytest.raises(RuntimeError):
        await one.step()
    assert await book.rows(database) == []
    async with running(one):
        async with asyncio.timeout(10):
            while True:
                async with database.transaction() as session:
                    problem = await session.scalar(text("SELECT problem FROM causeway.checkpoints"))
                if problem:
                    break
                await asyncio.sleep(0.02)
        assert problem == "RuntimeError"
        fails = False
        one.wake()
        await until(database, 2)
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT problem FROM causeway.checkpoints")) is None


async def test_the_loop_is_woken_by_a_hint(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    source = book.source("ledger", ledger.address, 1)
    one = Indexer(database, chain, source, poll_interval_s=3600)
    await ledger.block(put(1, 1))
    async with running(one):
        await until(database, 1)
        await ledger.block(put(2, 2))
        one.wake()
        await until(database, 2, 5)


async def test_the_loop_outlives_providers_and_databases(
    postgres_server: PostgresServer, anvil: AnvilNode, ledger: Ledger
) -> None:
    name = await asyncio.to_thread(migrated_template, postgres_server)
    database, book = Database(postgres_server.url(name)), Book("book")
    await book.create(database)
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        source = book.source("ledger", ledger.address, 1)
        one = Indexer(database, chain, source, poll_interval_s=0.02)
        await ledger.block(put(1, 1))
        async with running(one):
            await until(database, 1)
            proxy.status = 503
            await ledger.block(put(2, 2))
            asked = proxy.requests
            async with asyncio.timeout(10):
                while proxy.requests < asked + 2:
                    await asyncio.sleep(0.01)
            proxy.status = None
            await until(database, 2)
            await asyncio.to_thread(postgres_server.restart)
            await ledger.block(put(3, 3))
            await until(database, 3)
        await chain.close()
    await database.close()


async def test_a_webhook_waits_until_its_block_is_applied(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = Indexer(database, chain, book.source("ledger", ledger.address, 1))
    number = await ledger.block(put(1, 1))
    applied = await one.catch_up(number, deadline_s=10)
    assert applied.number == number
    assert await entries(database) == 1
    waiting = asyncio.create_task(one.catch_up(number + 2, deadline_s=10))
    await ledger.block(put(2, 2))
    await ledger.block(put(3, 3))
    assert (await waiting).number == number + 2
    with pytest.raises(ChainBehind, match=f"block {number + 3} is not applied"):
        await one.catch_up(number + 3, deadline_s=0.3)


async def test_a_webhook_does_not_wait_for_a_provider_that_hangs(
    database: Database, book: Book, ledger: Ledger, anvil: AnvilNode
) -> None:
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        one = Indexer(database, chain, book.source("ledger", ledger.address, 1))
        await one.step()
        proxy.delay_s = 30
        with pytest.raises(TransientError):
            await one.catch_up(10**9, deadline_s=0.3)
        await chain.close()


async def test_nothing_happens_before_the_chain_reaches_the_start(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    start = await ledger.head() + 3
    one = Indexer(database, chain, book.source("ledger", ledger.address, start))
    await ledger.block(put(1, 1))
    progress = await one.step()
    assert (progress.applied_to, progress.facts) == (None, 0)
    await ledger.block()
    await settle(one)
    await ledger.block(put(2, 2))
    await settle(one)
    assert (await book.rows(database))[0][0] == 2
    assert await entries(database) == 1


async def test_logs_of_another_branch_are_never_applied(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger
) -> None:
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        one = Indexer(database, chain, book.source("ledger", ledger.address, 1))
        await ledger.block(put(1, 1))
        false = "0x" + "ab" * 32
        proxy.lies["eth_getLogs"] = lambda logs: [{**log, "blockHash": false} for log in logs]
        with pytest.raises(ChainBehind):
            await one.step()
        assert await entries(database) == 0
        proxy.lies.clear()
        await settle(one)
        assert await entries(database) == 1
        await chain.close()


async def test_a_log_that_is_sent_twice_is_one_fact(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger, chain: EvmChain
) -> None:
    await ledger.block(put(1, 1), put(2, 2))
    async with fault_proxy(anvil.url) as proxy:
        proxy.lies["eth_getLogs"] = lambda logs: [*logs, *logs]
        twice = chain_at(proxy.url, anvil.chain_id)
        await settle(Indexer(database, twice, book.source("ledger", ledger.address, 1)))
        await twice.close()
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_a_provider_that_ignores_the_filter_adds_nothing(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger, chain: EvmChain
) -> None:
    stranger = Ledger(anvil)
    await stranger.deploy()
    await ledger.block(put(1, 1))
    await stranger.block(put(2, 2))
    async with fault_proxy(anvil.url) as proxy:
        everything = await anvil.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
        proxy.errors["eth_getLogs"] = (-32601, "by hash is not offered", None)
        lying = chain_at(proxy.url, anvil.chain_id)
        one = Indexer(database, lying, book.source("ledger", ledger.address, 1))
        with pytest.raises(Exception, match="not offered"):
            await one.step()
        proxy.errors.clear()
        proxy.lies["eth_getLogs"] = lambda _logs: everything
        await settle(one)
        await lying.close()
    assert await entries(database) == 1


async def test_a_table_without_undo_is_found_at_the_start(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    async with database.transaction() as session:
        for statement in detach_undo("book.moves"):
            await session.execute(text(statement))
    one = Indexer(database, chain, book.source("ledger", ledger.address, 1))
    with pytest.raises(ConfigurationError, match=r"book\.moves is derived") as refused:
        await one.step()
    assert len(refused.value.problems) == 1


async def test_a_checkpoint_of_another_chain_is_refused(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    source = book.source("ledger", ledger.address, 1)
    await Indexer(database, chain, source).step()
    async with AnvilNode.start() as other:
        elsewhere = chain_at(other.url, other.chain_id)
        await other.mine(3)
        with pytest.raises(ConfigurationError, match="was read from chain"):
            await Indexer(database, elsewhere, source).step()
        await elsewhere.close()


async def test_a_failing_provider_is_asked_for_less(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger
) -> None:
    await ledger.block(put(1, 1))
    await ledger.mine(150)
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        one = Indexer(database, chain, book.source("ledger", ledger.address, 1), max_range=64)
        proxy.errors["eth_getLogs"] = (-32603, "internal error", None)
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await one.step()
            chain.pool.endpoints[0].succeeded()
        proxy.errors.clear()
        progress = await one.step()
        assert progress.applied_to is not None
        assert progress.applied_to.number == 8
        await settle(one)
        assert await entries(database) == 1
        await chain.close()
