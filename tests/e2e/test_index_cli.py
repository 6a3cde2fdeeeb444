"""`causeway index`: where sources are, rows that are not the chain's, and mending them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Numeric, Table, Text, text

from causeway.base.errors import InvalidInput, NotFound
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.progress import statuses, time_left_s
from causeway.indexing.rows import Rows
from causeway.indexing.source import EventTable, Fact, Source
from causeway.indexing.verifying import Comparison, Difference, verify
from causeway.store.engine import Database
from tests.chain.ledger import LEDGER, Book, chain_at, drop, put, settle
from tests.chain.paper import CHAIN_ID, CONTRACT, Event, PaperChain, served
from tests.chain.test_indexer_stories import Shelf

#: Nothing differs in the blocks of `indexed`.
SAME = Comparison([], 40)


async def differing(
    database: Database, chain: EvmChain, source: Source, first: int, last: int
) -> set[Difference]:
    """Return what differs in these blocks, all of which could be compared."""
    found = await verify(database, chain, source, first, last)
    assert (found.compared_to, found.left_out) == (last, None)
    return set(found.differences)


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
        try:
            await settle(Indexer(database, chain, source))
            yield chain, source, paper
        finally:
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
        assert await verify(database, chain, source, 1, 40) == SAME
        await change(database, "DELETE FROM shelf.puts WHERE number = 4")
        await change(database, "UPDATE shelf.puts SET amount = amount + 1 WHERE number = 8")
        await change(database, "INSERT INTO shelf.plain VALUES (9, 7, 1)")
        wanted = [
            Difference("shelf.puts", 4, 1, 0),
            Difference("shelf.puts", 8, 1, 1),
            Difference("shelf.plain", 9, 0, 1),
        ]
        assert await differing(database, chain, source, 1, 40) == set(wanted)
        assert await differing(database, chain, source, 10, 40) == set()
        assert await differing(database, chain, source, 5, 8) == {wanted[1]}
        with pytest.raises(InvalidInput, match="only final blocks can be mended, up to 30"):
            await verify(database, chain, source, 1, 31, repair=True)
        mended = await verify(database, chain, source, 1, 30, repair=True)
        assert set(mended.differences) == set(wanted)
        assert await verify(database, chain, source, 1, 40) == SAME
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
        assert await verify(database, chain, source, 1, 40) == SAME


async def test_a_provider_on_another_fork_makes_no_row_wrong(database: Database) -> None:
    async with indexed(database) as (chain, source, paper):
        fork = paper.branch(paper.heads[0])[33].hash
        head = paper.mine([event(900, put(1, 900))], on=fork).hash
        for number in range(9):
            head = paper.mine([event(901 + number, put(1, number))], on=head).hash
        paper.heads[1] = head
        await change(database, "DELETE FROM shelf.puts WHERE number IN (4, 38)")
        # Asked of both, the one that has the applied blocks is found.
        both = await verify(database, chain, source, 1, 40)
        assert [one.block for one in both.differences] == [4, 38]
        chain.pool.arrange(chain.pool.endpoints[1:])
        other = await verify(database, chain, source, 1, 40)
        assert [one.block for one in other.differences] == [4]
        assert other.compared_to == paper.final
        assert "block 40 is another one" in (other.left_out or "")


@pytest.mark.parametrize("answer_first", [True, False])
async def test_a_reorganisation_in_the_middle_makes_no_row_wrong(
    database: Database, answer_first: bool
) -> None:
    async with indexed(database) as (chain, source, paper):
        other = paper.mine([event(900, put(1, 900))], on=paper.branch(paper.heads[0])[35].hash)
        indexer = Indexer(database, chain, source, patience_s=0.0, patience_polls=1)

        async def moved() -> None:
            paper.heads = [other.hash, other.hash]
            await settle(indexer)

        def told(block: int) -> None:
            if block == paper.final:  # the next question is for blocks that can be replaced
                paper.meanwhile, paper.answer_first = moved, answer_first

        found = await verify(database, chain, source, 1, 40, told=told)
        assert found == Comparison([], other.number)


async def test_every_row_is_compared_by_the_columns_it_was_given(database: Database) -> None:
    """One table, filled by a declared event and by a row handler, each with its own columns."""
    async with database.transaction() as session:
        await session.execute(text("CREATE SCHEMA mixed"))
        await session.execute(
            text(
                "CREATE TABLE mixed.moves (number bigint, place integer, key numeric(78, 0), "
                "amount numeric(78, 0) NOT NULL DEFAULT 7, note text, "
                "kept timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (number, place))"
            )
        )
    moves = Table(
        "moves",
        MetaData("mixed"),
        Column("number", BigInteger, primary_key=True),
        Column("place", Integer, primary_key=True),
        Column("key", Numeric(78, 0)),
        Column("amount", Numeric(78, 0), nullable=False),
        Column("note", Text),
        Column("kept", DateTime(timezone=True), nullable=False),
    )

    async def dropped(rows: Rows, fact: Fact) -> None:
        rows.add(
            moves,
            number=fact.block.number,
            place=fact.log_index,
            note="gone",
            kept=datetime(2026, 1, 1, tzinfo=UTC),
        )

    columns = {"number": "@block_number", "place": "@log_index", "key": "key", "amount": "amount"}
    source = Source(
        name="mixed",
        chain="paper",
        abi=LEDGER,
        addresses=(CONTRACT,),
        start_block=1,
        tables={"Put": EventTable(moves, columns)},
        row_handlers={"Drop": dropped},
        by_block={moves: "number"},
    )
    async with indexed(database) as (chain, _, _):
        await settle(Indexer(database, chain, source))
        assert await verify(database, chain, source, 1, 40) == SAME
        await change(
            database, "UPDATE mixed.moves SET note = 'here' WHERE number = 4 AND place = 1"
        )
        await change(database, "UPDATE mixed.moves SET amount = 8 WHERE number = 6 AND place = 1")
        await change(database, "UPDATE mixed.moves SET key = 2 WHERE number = 8 AND place = 0")
        await change(database, "DELETE FROM mixed.moves WHERE number = 10")
        wanted = {Difference("mixed.moves", number, 1, 1) for number in (4, 6, 8)}
        wanted.add(Difference("mixed.moves", 10, 2, 0))
        assert await differing(database, chain, source, 1, 40) == wanted
        await verify(database, chain, source, 1, 30, repair=True)
        assert await verify(database, chain, source, 1, 40) == SAME
        async with database.transaction() as session:
            rows = await session.execute(
                text("SELECT key, amount, note FROM mixed.moves WHERE number = 10 ORDER BY place")
            )
            assert [tuple(row) for row in rows] == [(1, 9, None), (None, 7, "gone")]


async def test_where_sources_are_is_shown(database: Database) -> None:
    async with indexed(database) as (_, source, _):
        async with database.transaction() as session:
            (one,) = await statuses(session)
        assert (one.source, one.chain_id, one.applied) == (source.name, CHAIN_ID, 40)
        assert (one.head, one.final, one.behind, one.problem) == (40, 30, 0, None)
        assert one.waiting == 5  # of blocks above the final one
        assert time_left_s(one, one, 1.0) == 0


#: An app in somebody else's package, with the source of these tests.
PACKAGE = {
    "shelf_app/__init__.py": """
from contextlib import nullcontext
from pydantic import SecretStr
from sqlalchemy import MetaData
from causeway.app import App, ChainConfig
from causeway.base.settings import Settings
from tests.chain.paper import CHAIN_ID
from tests.chain.test_indexer_stories import Shelf

class ShelfSettings(Settings):
    shelf_rpc: str

def chains(settings):
    return [ChainConfig("paper", CHAIN_ID, tuple(map(SecretStr, settings.shelf_rpc.split(","))))]

async def sources(ctx):
    return Shelf("shelf").sources()

app = App(name="shelf", title="Shelf", settings=ShelfSettings, metadata=MetaData("shelf"),
    migrations="shelf_app:migrations", services=nullcontext, chains=chains, sources=sources)
""",
    "shelf_app/migrations/versions/s0001.py": """
revision, down_revision, branch_labels, depends_on = "s0001", None, None, None

def upgrade():
    pass

def downgrade():
    pass
""",
    "shelf_app-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: shelf-app\nVersion: 1\n",
    "shelf_app-1.dist-info/entry_points.txt": "[causeway.apps]\nshelf = shelf_app:app\n",
}


async def run(database_url: str, *arguments: str, **more: str) -> tuple[int, str]:
    """Run `causeway index` as an operator does; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("causeway")),
        "index",
        *arguments,
        env=os.environ | {"DATABASE_URL": database_url, "COLUMNS": "150"} | more,
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
    assert (code, said.startswith("causeway: there is no source 'nothing'")) == (4, True)


async def test_the_exit_code_says_what_was_found(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    for name, content in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    async with indexed(database) as (chain, source, paper):
        rpc = ",".join(one.url.reveal() for one in chain.pool.endpoints)
        path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"

        async def asked(*arguments: str) -> tuple[int, str]:
            return await run(database_url, *arguments, SHELF_RPC=rpc, PYTHONPATH=path)

        await change(database, "DELETE FROM shelf.puts WHERE number = 4")
        code, said = await asked("verify", source.name, "--json")
        assert (code, json.loads(said)["differences"][0]["block"]) == (3, 4)
        assert await asked("repair", source.name) == (
            0,
            "shelf.puts block 4: 1 missing, 0 too many\n1 blocks mended\n",
        )
        assert await asked("verify", source.name) == (0, "all rows are the chain's\n")
        paper.heads[1] = paper.branch(paper.heads[0])[35].hash
        code, said = await asked("verify", source.name, "--provider", "paper-2")
        assert code == 2
        assert "all rows are the chain's\ncompared up to block 30 only" in said
        assert (await asked("verify", source.name, "--to", "41"))[0] == 1


async def test_a_database_nobody_has_used_has_no_sources(empty_database_url: str) -> None:
    assert await run(empty_database_url, "status", "--json") == (0, "[]\n")
