"""The preferred provider falls ill while a chain is read: another is read, and rows are right.

It is well for some blocks, and ill in one way or another from then on, through many more at once,
a reorganisation and new blocks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import select

from bench.provider_faults import FAULTS, Ill, ill
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.indexing.indexer import Indexer
from causeway.indexing.models import Checkpoint
from causeway.indexing.progress import statuses
from causeway.store.engine import Database
from tests.chain.ledger import Book, chain_at, drop, put, settle
from tests.chain.paper import CHAIN_ID, CONTRACT, Event, PaperChain, served
from tests.chain.test_indexer_stories import Shelf

#: Blocks of the history, how many of them are read before, and how deep the reorganisation is.
HISTORY, WELL, DEPTH = 90, 30, 4
#: The pool's own limit for one request, and for the whole test to have another provider read.
TIMEOUT_S, SWITCH_S, END_S = 2.0, 10.0, 60.0


class Chain:
    """The chain on paper and the events mined so far."""

    def __init__(self) -> None:
        self.paper = PaperChain()
        self.events = 0

    def grow(self, on: str, blocks: int) -> None:
        """Mine blocks with two events each, and have both endpoints follow."""
        for _ in range(blocks):
            made: list[Event] = []
            for call in (put(self.events % 5, self.events), drop(self.events % 3)):
                topics = ("0x" + call[2:66], "0x" + call[66:130])
                made.append(Event(f"0x{self.events:064x}", topics, "0x" + call[130:]))
                self.events += 1
            on = self.paper.mine(made, on=on).hash
        self.paper.heads = [on, on]
        self.paper.final = max(self.paper.final, self.paper.blocks[on].number - 10)


class Reader:
    """Two sources, followed side by side."""

    def __init__(self, database: Database, chain: EvmChain, prefix: str = "") -> None:
        self.database = database
        self.shelf, self.book = Shelf(f"{prefix}shelf"), Book(f"{prefix}book")
        sources = [self.shelf.sources()[0], self.book.source(f"{prefix}book", CONTRACT, 1)]
        self.indexers = [
            Indexer(
                database,
                chain,
                one,
                poll_interval_s=0.05,
                max_range=5,
                patience_s=0.1,
                patience_polls=2,
            )
            for one in sources
        ]

    async def create(self) -> None:
        await self.shelf.create(self.database)
        await self.book.create(self.database)

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[None]:
        """Follow the chain as long as this lasts."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in self.indexers:
                group.create_task(one.run(stop))
            try:
                yield
            finally:
                stop.set()

    async def until(self, reached: Callable[[int, str], bool], within_s: float) -> None:
        """Wait until both have come to such a block."""
        deadline = time.monotonic() + within_s
        while True:
            async with self.database.transaction() as session:
                found = list(await session.scalars(select(Checkpoint)))
            if len(found) == 2 and all(reached(one.number, one.hash) for one in found):
                return
            stand = [(one.source, one.number, one.problem) for one in found]
            assert time.monotonic() < deadline, stand
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "fault",
    # While one of two is on another fork a slow machine may take the truth for a reorganisation
    # that is too deep: it waits for a person then, which is safe and not what is asked for here.
    [pytest.param(f, marks=pytest.mark.long) if f == "forked" else f for f in FAULTS],
)
async def test_the_other_provider_is_read_when_the_preferred_one_is(
    database: Database, fault: str
) -> None:
    world = Chain()
    world.grow(world.paper.heads[0], WELL)
    async with served(world.paper) as urls, ill(urls[0], CHAIN_ID) as provider:
        endpoints = [Endpoint(SecretUrl(provider.url), "ill"), Endpoint(SecretUrl(urls[1]), "well")]
        chain = EvmChain("paper", CHAIN_ID, ProviderPool(endpoints, timeout_s=TIMEOUT_S))
        honest = chain_at(urls[1], CHAIN_ID)
        try:
            reader = Reader(database, chain)
            await reader.create()
            async with reader.following():
                await reader.until(lambda number, _: number >= WELL, END_S)
                assert provider.requests, "the preferred one was not asked"
                await fall_ill(provider, fault, reader, world)
            fresh = Reader(database, honest, "fresh_")
            await fresh.create()
            for one in fresh.indexers:
                await settle(one)
            assert await reader.book.rows(database) == await fresh.book.rows(database)
            rows = [await one.shelf.rows(database) for one in (reader, fresh)]
            assert rows[0] == rows[1]
            assert len(rows[0]) > HISTORY
            async with database.transaction() as session:
                assert [one.problem for one in await statuses(session)] == [None] * 4
        finally:
            await chain.close()
            await honest.close()


async def fall_ill(provider: Ill, fault: str, reader: Reader, world: Chain) -> None:
    """Have the provider be ill while the rest of the chain is read, reorganised and grown."""
    provider.at = WELL
    provider.fault = fault
    before = provider.requests
    world.grow(world.paper.heads[0], HISTORY - WELL)
    await reader.until(lambda number, _: number > provider.at, SWITCH_S)
    head = world.paper.head()
    await reader.until(lambda number, _: number == head.number, END_S)
    fork = world.paper.branch(head.hash)[head.number - DEPTH]
    world.grow(fork.hash, DEPTH + 1)
    await reader.until(lambda _, block_hash: block_hash == world.paper.heads[0], END_S)
    world.grow(world.paper.heads[0], 20)
    await reader.until(lambda _, block_hash: block_hash == world.paper.heads[0], END_S)
    if fault == "429_retry_after":
        # Those that were on their way, and the one that said how long it wants to be left alone.
        assert provider.requests - before < 12
