"""Readers killed at random moments of a backfill and of following: the rows are the chain's."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from causeway.store.engine import Database
from tests.chain.ledger import Book
from tests.chain.paper import PaperChain, served
from tests.chain.test_indexer_stories import Shelf, Story, nothing_is_told_too_early

_ROOT = Path(__file__).parents[2]


async def killed(chance: random.Random, story: Story, database_url: str, urls: list[str]) -> None:
    """Run readers in a process of their own, have the chain move on, and kill them somewhere."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chain.index_forever", database_url, "7", *urls),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"reading\n"
        for _ in range(chance.randrange(6)):
            await chance.choice((story.blocks, story.blocks, story.reorg, story.back))()
            await asyncio.sleep(chance.uniform(0, 0.1))  # any moment is as good
        await asyncio.sleep(chance.uniform(0, 0.3))
        assert process.returncode is None, "it ended by itself"
    finally:
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def kills(times: int, seed: int, database: Database, database_url: str) -> None:
    """Kill readers so many times, then compare their rows with those of a fresh index."""
    for name in ("shelf", "fresh_shelf"):
        await Shelf(name).create(database)
    for name in ("book", "fresh_book"):
        await Book(name).create(database)
    chance = random.Random(seed)
    paper = PaperChain()
    async with served(paper) as urls:
        story = Story(seed, paper, database, urls)
        story.lead(story.grow(paper.heads[0], 300))  # to be caught up with, seven blocks at a time
        for _ in range(times // 2):
            await killed(chance, story, database_url, urls)
        async with database.transaction() as session:
            applied = "SELECT coalesce(min(number), 0) FROM causeway.checkpoints"
            on_its_way = int(await session.scalar(text(applied)) or 0)
        for one in story.indexers:
            await story.settle(one)
        for _ in range(times - times // 2):
            await killed(chance, story, database_url, urls)
        story.lead(story.grow(paper.heads[0], 1))
        for one in story.indexers:
            await story.settle(one)
        kept = [await Shelf("shelf").rows(database), await Book("book").rows(database)]
        assert kept == await story.fresh()
        await nothing_is_told_too_early(story)
        await story.chain.close()
    assert times > 10 or on_its_way < 300


async def test_readers_killed_a_few_times(database: Database, database_url: str) -> None:
    await kills(6, 1, database, database_url)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_readers_killed_fifty_times(database: Database, database_url: str) -> None:
    await kills(50, 2, database, database_url)
