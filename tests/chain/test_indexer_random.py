"""Whatever a chain does, the rows are those of a fresh index of the chain as it is at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from causeway.base.errors import ChainBehind
from causeway.chains.evm.chain import EvmChain
from causeway.chains.logs import LogChain
from causeway.indexing.indexer import Indexer
from causeway.store.engine import Database
from tests.chain.ledger import Book, Ledger, assert_as_fresh, drop, put, settle


async def together(*doings: Awaitable[object]) -> None:
    """Wait for all, whatever fails; raise the first failure that time does not heal."""
    for outcome in await asyncio.gather(*doings, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, ChainBehind):
            raise outcome


class Story:
    """Random things that happen to a chain and to those who read it; told again by its seed."""

    def __init__(
        self, seed: int, database: Database, chain: LogChain, book: Book, ledger: Ledger, start: int
    ) -> None:
        self.chance = random.Random(seed)
        self.ledger = ledger
        self.start = start
        source = book.source("ledger", ledger.address, start)
        self.indexers = [
            Indexer(database, chain, source, max_range=size, patience_s=0.0) for size in (2, 7, 100)
        ]
        self.told: list[str] = [f"seed {seed}"]

    def call(self) -> str:
        key = self.chance.randrange(5)
        if self.chance.random() < 0.25:
            return drop(key)
        return put(key, self.chance.choice([0, 1, 2**255, self.chance.randrange(1000)]), "n" * key)

    def calls(self, most: int) -> list[str]:
        return [self.call() for _ in range(self.chance.randint(0, most))]

    async def blocks(self) -> None:
        for _ in range(self.chance.randint(1, 4)):
            await self.ledger.block(*self.calls(4))

    async def reorg(self) -> None:
        new = await self.ledger.head() - self.start + 1
        depth = self.chance.randint(1, min(12, new)) if new > 0 else 0
        if depth:
            moved = [(call, self.chance.randrange(depth)) for call in self.calls(5)]
            await self.ledger.reorg(depth, sorted(moved, key=lambda pair: pair[1]))

    async def shrink(self) -> None:
        new = await self.ledger.head() - self.start + 1
        if new > 1:
            await self.ledger.shrink(self.chance.randint(1, min(5, new - 1)))

    async def step(self) -> None:
        await self.chance.choice(self.indexers).step()

    async def steps_at_once(self) -> None:
        await together(*(one.step() for one in self.indexers))

    async def reorg_meanwhile(self) -> None:
        await together(self.reorg(), *(one.step() for one in self.indexers))

    async def crash(self) -> None:
        """Cancel a step somewhere on its way."""
        task = asyncio.create_task(self.chance.choice(self.indexers).step())
        for _ in range(self.chance.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def go(self, length: int) -> None:
        doings: list[Callable[[], Awaitable[None]]] = [
            *[self.blocks] * 4,
            *[self.step] * 5,
            *[self.reorg] * 3,
            self.shrink,
            self.steps_at_once,
            self.reorg_meanwhile,
            self.crash,
        ]
        for _ in range(length):
            doing = self.chance.choice(doings)
            self.told.append(doing.__name__)
            try:
                await doing()
            except ChainBehind as error:
                self.told.append(str(error))
        await together(*(settle(one) for one in self.indexers))


async def forget(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("TRUNCATE book.entries, book.moves"))
        for table in ("checkpoints", "blocks", "undo_log"):
            await session.execute(text(f"DELETE FROM causeway.{table}"))


async def tell(
    stories: range, length: int, database: Database, chain: LogChain, book: Book, ledger: Ledger
) -> None:
    for seed in stories:
        await forget(database)
        start = await ledger.mine(1) + 1
        story = Story(seed, database, chain, book, ledger, start)
        await ledger.block(*story.calls(3))
        try:
            await story.go(length)
            await assert_as_fresh(database, chain, book, ledger.address, start)
        except BaseException as error:
            error.add_note(" -> ".join(story.told))
            raise


async def test_any_story_ends_in_the_rows_of_the_chain(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    await tell(range(8), 25, database, chain, book, ledger)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_any_of_many_long_stories_ends_in_the_rows_of_the_chain(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    await tell(range(1000, 1200), 60, database, chain, book, ledger)
