"""`causeway index`: where sources are, rows that are not the chain's, and mending them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from causeway.base.errors import InvalidInput, NotFound
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.progress import statuses, time_left_s
from causeway.indexing.source import Source
from causeway.indexing.verifying import Difference, verify
from causeway.store.engine import Database
from tests.chain.ledger import Book, chain_at, drop, put, settle
from tests.chain.paper import CHAIN_ID, CONTRACT, Event, PaperChain, served
from tests.chain.test_indexer_stories import Shelf


def event(number: int, call: str) -> Event:
    """Return a transaction with this call."""
    topics = ("0x" + call[2:66], "0x" + call[66:130])
    return Event("0x" + f"{number:064x}", topics, "0x" + call[130:], CONTRACT)


@asynccontextmanager
async def indexed(database: Database) -> AsyncGenerator[tuple[EvmChain, Source, PaperChain]]:
    """Give a chain of 40 blocks whose events are all in the tables."""
    await Shelf("shelf").create(database)
    paper = PaperChain()
    head = paper.heads[0]
    for number in range(40):
        calls = [put(1, number), drop(2)] if number % 2 else []
        head = paper.mine([event(2 * number + n, c) for n, c in enumerate(calls)], on=head).hash
    paper.heads, paper.final = [head, head], 30
    source = Shelf("shelf").sources()[0]
    assert isinstance(source, Source)
    async with served(paper) as urls:
        chain = chain_at(urls[0], CHAIN_ID, urls[1])
        await settle(Indexer(database, chain, source))
        yield chain, source, paper
        await chain.close()


async def change(database: Database, statement: str) -> None:
    async with database.transaction() as session:
        await session.execute(text(statement))


async def told(database: Database) -> list[Any]:
    """Return everything that effects have come to."""
    async with database.transaction() as session:
        waiting = await session.execute(text("SELECT key, state FROM causeway.outbox ORDER BY key"))
        done = await session.execute(text("SELECT * FROM shelf.told ORDER BY key, what"))
        return [tuple(row) for row in (*waiting, *done)]


async def test_rows_that_are_not_the_chains_are_named_and_mended(database: Database) -> None:
    async with indexed(database) as (chain, source, _):
        rows, effects = await Shelf("shelf").rows(database), await told(database)
        assert await verify(database, chain, source, 1, 40) == []
        await change(database, "DELETE FROM shelf.puts WHERE number = 4")
        await change(database, "UPDATE shelf.puts SET amount = amount + 1 WHERE number = 8")
        await change(database, "INSERT INTO shelf.plain VALUES (9, 7, 1)")
        wanted = [
            Difference("shelf.puts", 4, 1, 0),
            Difference("shelf.puts", 8, 1, 1),
            Difference("shelf.plain", 9, 0, 1),
        ]
        assert set(await verify(database, chain, source, 1, 40)) == set(wanted)
        assert await verify(database, chain, source, 10, 40) == []
        assert await verify(database, chain, source, 5, 8) == [wanted[1]]
        with pytest.raises(InvalidInput, match="only final blocks can be mended, up to 30"):
            await verify(database, chain, source, 1, 31, repair=True)
        assert set(await verify(database, chain, source, 1, 30, repair=True)) == set(wanted)
        assert await verify(database, chain, source, 1, 40) == []
        assert await Shelf("shelf").rows(database) == rows
        assert await told(database) == effects  # nothing is done twice


async def test_what_cannot_be_compared_is_said(database: Database) -> None:
    async with indexed(database) as (chain, source, _):
        for first, last in ((0, 40), (1, 41), (9, 8)):
            with pytest.raises(InvalidInput, match="1 to 40 can be compared"):
                await verify(database, chain, source, first, last)
        book = Book("book").source("book", CONTRACT, 1)
        with pytest.raises(InvalidInput, match="no rows that belong to one block"):
            await verify(database, chain, book, 1, 40)
        other = Shelf("other").sources()[0]
        assert isinstance(other, Source)
        with pytest.raises(NotFound, match="has not begun"):
            await verify(database, chain, other, 1, 40)


async def test_a_provider_that_hides_logs_makes_no_row_wrong(database: Database) -> None:
    async with indexed(database) as (chain, source, paper):
        paper.hidden = {(0, 4), (0, 6)}  # of the first endpoint, logs of these blocks
        chain.pool.arrange(chain.pool.endpoints[:1])
        assert await verify(database, chain, source, 1, 40) == []


async def test_where_sources_are_is_shown(database: Database) -> None:
    async with indexed(database) as (_, source, _):
        async with database.transaction() as session:
            (one,) = await statuses(session)
        assert (one.source, one.chain_id, one.applied) == (source.name, CHAIN_ID, 40)
        assert (one.head, one.final, one.behind, one.problem) == (40, 30, 0, None)
        assert one.waiting == 5  # of blocks above the final one
        assert time_left_s(one, one, 1.0) == 0


async def run(database_url: str, *arguments: str) -> tuple[int, str]:
    """Run `causeway index` as an operator does; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("causeway")),
        "index",
        *arguments,
        env=os.environ | {"DATABASE_URL": database_url, "COLUMNS": "150"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    return process.returncode or 0, said


async def test_an_operator_asks(database: Database, database_url: str) -> None:
    async with indexed(database) as (_, source, _):
        code, said = await run(database_url, "status", "--json")
        assert (code, [one["applied"] for one in json.loads(said)]) == (0, [40])
        code, said = await run(database_url, "status")
        assert code == 0
        assert source.name in said
    code, said = await run(database_url, "verify", "nothing")
    assert (code, said.startswith("causeway: there is no source 'nothing'")) == (1, True)


async def test_a_database_nobody_has_used_has_no_sources(empty_database_url: str) -> None:
    assert await run(empty_database_url, "status", "--json") == (0, "[]\n")
