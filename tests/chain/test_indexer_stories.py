"""Random stories of a chain and of its readers, thousands of them: the rows are the chain's.

Blocks, reorganisations (to longer, equal and shorter branches, and back to earlier ones), endpoints
that lag or follow other forks, readers that are killed or lose their database connection in the
middle. There are handlers that update and delete under the undo log, tables that are filled without
Python, whole blocks, and effects that wait for finality. In the end every table is compared, row by
row, with that of a fresh index of the chain as it is.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Numeric, Table, Text
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import ChainBehind, TransientError
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.blocks import FullBlock
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.indexing import outbox
from causeway.indexing.indexer import Indexer
from causeway.indexing.models import Effect
from causeway.indexing.outbox import Outbox
from causeway.indexing.rows import Rows
from causeway.indexing.source import BlockSource, EventTable, Fact, Factory, Source, Undone
from causeway.store.engine import Database
from tests.chain.ledger import LEDGER, Book, drop, made, put, settle
from tests.chain.paper import (
    CHAIN_ID,
    CHILDREN,
    CONTRACT,
    FACTORY,
    OTHER,
    Event,
    PaperChain,
    served,
)

#: Blocks below the highest head that a story never replaces.
DEEPEST = 10

SHELF = """
    CREATE SCHEMA {s};
    CREATE TABLE {s}.puts (number bigint, place integer, hash bytea NOT NULL, tx text NOT NULL,
        key numeric(78, 0) NOT NULL, amount numeric(78, 0) NOT NULL, note text NOT NULL,
        PRIMARY KEY (number, place));
    CREATE TABLE {s}.plain (number bigint, place integer, key numeric(78, 0) NOT NULL,
        PRIMARY KEY (number, place));
    CREATE TABLE {s}.family (number bigint, place integer, child text NOT NULL,
        amount numeric(78, 0) NOT NULL, PRIMARY KEY (number, place));
    CREATE TABLE {s}.blocks (number bigint PRIMARY KEY, hash text NOT NULL, txs text NOT NULL,
        calls text NOT NULL);
    CREATE TABLE {s}.told (key text, what text, UNIQUE (key, what));
"""


class FastClock:
    """A clock whose waits are over at once; each look at the chain is seconds after the last."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Shelf:
    """Tables in a schema of their own, filled by everything but the undo log."""

    schema: str

    async def create(self, database: Database) -> None:
        async with database.transaction() as session:
            for statement in filter(str.strip, SHELF.format(s=self.schema).split(";")):
                await session.execute(sql(statement))

    def sources(self) -> list[Source | BlockSource]:
        metadata = MetaData(self.schema)

        def place() -> list[Column[Any]]:
            return [
                Column("number", BigInteger, primary_key=True),
                Column("place", Integer, primary_key=True),
                Column("key", Numeric(78, 0), nullable=False),
            ]

        puts = Table(
            "puts",
            metadata,
            *place(),
            Column("hash", LargeBinary, nullable=False),
            Column("tx", Text, nullable=False),
            Column("amount", Numeric(78, 0), nullable=False),
            Column("note", Text, nullable=False),
        )
        plain = Table("plain", metadata, *place())
        columns = {"number": "@block_number", "place": "@log_index", "hash": "@block_hash"}
        columns |= {"tx": "@transaction_hash", "key": "key", "amount": "amount", "note": "note"}

        async def dropped(rows: Rows, fact: Fact) -> None:
            rows.add(plain, number=fact.block.number, place=fact.log_index, key=fact.args["key"])
            source, payload = f"{self.schema}.events", {"key": str(fact.args["key"])}
            await outbox.file(rows.session, source, fact, "at once", payload, finality=0)
            await outbox.file(rows.session, source, fact, "final", payload)

        events = Source(
            name=f"{self.schema}.events",
            chain="paper",
            abi=LEDGER,
            addresses=(CONTRACT,),
            start_block=1,
            tables={"Put": EventTable(puts, columns)},
            row_handlers={"Drop": dropped},
            by_block={plain: "number"},
            outbox=Outbox(self.note("released"), self.note("undone"), self.note("restored")),
        )
        family = Table(
            "family",
            metadata,
            Column("number", BigInteger, primary_key=True),
            Column("place", Integer, primary_key=True),
            Column("child", Text, nullable=False),
            Column("amount", Numeric(78, 0), nullable=False),
        )
        of_family = {"number": "@block_number", "place": "@log_index", "child": "@address"}
        made_by_factory = Source(
            name=f"{self.schema}.family",
            chain="paper",
            abi=LEDGER,
            addresses=(),
            factory=Factory((FACTORY,), "Made", "child"),
            start_block=1,
            tables={"Put": EventTable(family, of_family | {"amount": "amount"})},
        )
        whole = BlockSource(
            name=f"{self.schema}.blocks",
            chain="paper",
            start_block=1,
            apply=self.keep_blocks,
            on_undone=self.undo_blocks,
            traces=True,
            batch=3,
        )
        return [events, whole, made_by_factory]

    def note(self, what: str) -> Callable[[AsyncSession, Sequence[Effect]], Awaitable[None]]:
        """Return what is called with effects that are released, undone or restored."""

        async def noted(session: AsyncSession, effects: Sequence[Effect]) -> None:
            for one in effects:
                if what != "released":
                    statement = f"DELETE FROM {self.schema}.told WHERE key = :key"
                    await session.execute(sql(statement), {"key": one.key})
                # The same thing told twice is refused by the table.
                await session.execute(
                    sql(f"INSERT INTO {self.schema}.told VALUES (:key, :what)"),
                    {"key": one.key, "what": what},
                )

        return noted

    async def keep_blocks(self, session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        for one in blocks:
            await session.execute(
                sql(f"INSERT INTO {self.schema}.blocks VALUES (:number, :hash, :txs, :calls)"),
                {
                    "number": one.block.number,
                    "hash": one.block.hash,
                    "txs": ",".join(r.transaction_hash for r in one.receipts),
                    "calls": ",".join(f.to or "" for f in one.traces if f is not None),
                },
            )

    async def undo_blocks(self, session: AsyncSession, undone: Undone) -> None:
        await session.execute(
            sql(f"DELETE FROM {self.schema}.blocks WHERE number > :above"),
            {"above": undone.fork.number},
        )

    async def rows(self, database: Database) -> list[tuple[Any, ...]]:
        """Return all rows, and which final effects were released."""
        found: list[tuple[Any, ...]] = []
        async with database.transaction() as session:
            for table in ("puts", "plain", "family", "blocks"):
                rows = await session.execute(sql(f"SELECT * FROM {self.schema}.{table}"))
                found += sorted((table, *row) for row in rows)
            told = await session.execute(
                sql(
                    f"SELECT key FROM {self.schema}.told WHERE what IN ('released', 'restored') "
                    "ORDER BY key"
                )
            )
            return found + [tuple(row) for row in told]


def child_of(event: Event) -> str | None:
    """Return the contract that a factory's event tells of; None for another event."""
    return "0x" + event.topics[1][-40:] if event.address == FACTORY else None


class Story:
    """What happens, told again by its seed."""

    def __init__(self, seed: int, paper: PaperChain, database: Database, urls: list[str]) -> None:
        self.chance = random.Random(seed)
        self.paper = paper
        self.database = database
        self.told = [f"seed {seed}"]
        self.clock = FastClock()
        endpoints = [Endpoint(SecretUrl(url), f"node{n}") for n, url in enumerate(urls)]
        self.chain = EvmChain(
            "paper", CHAIN_ID, ProviderPool(endpoints, timeout_s=5, clock=self.clock)
        )
        self.sources = [*Shelf("shelf").sources(), Book("book").source("book", CONTRACT, 1)]
        self.events: list[Event] = []
        self.number = 0
        self.tips: list[str] = [paper.heads[0]]
        self.indexers = [self._indexer(source) for source in self.sources for _ in range(2)]

    def _indexer(self, source: Source | BlockSource) -> Indexer:
        size = self.chance.choice((2, 5, 100))
        return Indexer(
            self.database,
            self.chain,
            source,
            max_range=size,
            patience_s=0.0,
            patience_polls=1,
            clock=self.clock,
        )

    def event(self) -> Event:
        """Return a transaction, sometimes one that other branches have, too."""
        if self.events and self.chance.random() < 0.3:
            return self.chance.choice(self.events)
        self.number += 1
        key = self.chance.randrange(4)
        address = self.chance.choice((*[CONTRACT] * 5, OTHER, *[FACTORY] * 2, *CHILDREN))
        if address == FACTORY:
            call = made(self.chance.choice(CHILDREN))
        elif self.chance.random() < 0.3:
            call = drop(key)
        else:
            call = put(key, self.number, "n" * key)
        topics = ("0x" + call[2:66], "0x" + call[66:130])
        event = Event("0x" + f"{self.number:064x}", topics, "0x" + call[130:], address)
        self.events.append(event)
        return event

    def grow(self, on: str, blocks: int) -> str:
        """Mine blocks on a block; return the new head.

        No transaction is twice in a branch, and of a contract that has been called the factory
        tells no more: what it did before counts only where it is read in the same range.
        """
        before = [event for block in self.paper.branch(on) for event in block.events]
        mined = {event.hash for event in before}
        there: set[str] = set()
        strangers: set[str] = set()
        for event in before:
            self.meet(event, there, strangers)
        for _ in range(blocks):
            events: list[Event] = []
            for _ in range(self.chance.choice((0, 0, 1, 2, 3))):
                event = self.event()
                if event.hash not in mined and child_of(event) not in strangers:
                    mined.add(event.hash)
                    self.meet(event, there, strangers)
                    events.append(event)
            on = self.paper.mine(events, on=on).hash
        self.tips.append(on)
        return on

    @staticmethod
    def meet(event: Event, there: set[str], strangers: set[str]) -> None:
        """Note which contracts the factory has made, and which did something without it."""
        child = child_of(event)
        if child is not None:
            there.add(child)
        elif event.address in CHILDREN and event.address not in there:
            strangers.add(event.address)

    def lead(self, head: str) -> None:
        """Have all endpoints follow this head; what is deep below it is final from now on."""
        self.paper.heads = [head] * len(self.paper.heads)
        number = self.paper.blocks[head].number
        self.paper.final = max(self.paper.final, number - DEEPEST)

    def replaceable(self, head: str) -> bool:
        """Say whether a branch has all blocks that are final."""
        now = self.paper.branch(self.paper.heads[0])
        branch = self.paper.branch(head)
        final = self.paper.final
        return len(branch) > final and len(now) > final and branch[final] == now[final]

    async def blocks(self) -> None:
        self.lead(self.grow(self.paper.heads[0], self.chance.randint(1, 4)))

    async def reorg(self) -> None:
        head = self.paper.head()
        depth = self.chance.randint(1, max(1, min(DEEPEST, head.number - self.paper.final)))
        if head.number - depth < self.paper.final:
            return
        fork = self.paper.branch(head.hash)[head.number - depth]
        # Shorter, as long, longer.
        self.lead(self.grow(fork.hash, max(1, depth + self.chance.randint(-2, 2))))

    async def back(self) -> None:
        """Return to a branch that was left."""
        tip = self.chance.choice(self.tips[-8:])
        if self.replaceable(tip):
            self.lead(tip)

    async def endpoint_apart(self) -> None:
        """Have one endpoint lag, or follow another fork, until the next thing happens."""
        one = self.chance.randrange(len(self.paper.heads))
        head = self.paper.heads[one]
        branch = self.paper.branch(head)
        lowest = max(self.paper.final, len(branch) - 5)
        at = branch[min(self.chance.randint(lowest, len(branch)), len(branch) - 1)].hash
        fork = self.chance.random() < 0.5
        self.paper.heads[one] = self.grow(at, self.chance.randint(1, 3)) if fork else at

    async def step(self) -> None:
        self.clock.ahead_s += self.chance.choice((0.1, 2.0, 40.0))
        await self.chance.choice(self.indexers).step()

    async def steps_at_once(self) -> None:
        self.clock.ahead_s += 2.0
        done = await asyncio.gather(*(one.step() for one in self.indexers), return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ChainBehind):
                raise outcome

    async def step_while_it_moves(self) -> None:
        """Change the chain between two requests of a step."""
        task = asyncio.create_task(self.step())
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)
        await self.chance.choice((self.blocks, self.reorg, self.back, self.endpoint_apart))()
        await task

    async def crash(self) -> None:
        """Give a reader up somewhere on its way, and start it anew."""
        at = self.chance.randrange(len(self.indexers))
        task = asyncio.create_task(self.indexers[at].step())
        for _ in range(self.chance.randrange(120)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.indexers[at] = self._indexer(self.sources[at // 2])

    async def lose_connections(self) -> None:
        """Have the database end everybody's connection in the middle of a step."""
        task = asyncio.create_task(self.steps_at_once())
        for _ in range(self.chance.randrange(120)):
            await asyncio.sleep(0)
        async with self.database.transaction() as session:
            await session.execute(
                sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        await asyncio.gather(task, return_exceptions=True)

    async def go(self, length: int) -> None:
        doings: list[Callable[[], Awaitable[None]]] = [
            *[self.blocks] * 4,
            *[self.step] * 6,
            *[self.reorg] * 3,
            *[self.back] * 2,
            *[self.endpoint_apart] * 2,
            self.steps_at_once,
            *[self.step_while_it_moves] * 2,
            *[self.crash] * 2,
            self.lose_connections,
        ]
        for _ in range(length):
            doing = self.chance.choice(doings)
            self.told.append(doing.__name__)
            try:
                await doing()
            except (TransientError, DBAPIError) as error:
                self.told.append(type(error).__name__)
        self.lead(self.grow(self.paper.heads[0], 1))
        for one in self.indexers:
            await self.settle(one)

    async def settle(self, one: Indexer) -> None:
        """Step until there is nothing left to do."""
        for _ in range(50):
            self.clock.ahead_s += 60.0
            try:
                await settle(one)
                return
            except (TransientError, DBAPIError) as error:
                self.told.append(str(error))
        raise AssertionError("it never ends")

    async def fresh(self) -> list[list[tuple[Any, ...]]]:
        """Return the rows of an index that sees only the chain as it is now."""
        shelf, book = Shelf("fresh_shelf"), Book("fresh_book")
        for source in (*shelf.sources(), book.source("fresh_book", CONTRACT, 1)):
            await self.settle(self._indexer(source))
        return [await shelf.rows(self.database), await book.rows(self.database)]


async def forget(database: Database) -> None:
    """Have the database as it was before any story."""
    async with database.transaction() as session:
        for schema in ("book", "fresh_book"):
            await session.execute(sql(f"DELETE FROM {schema}.entries"))  # and their moves
        for schema in ("shelf", "fresh_shelf"):
            for table in ("puts", "plain", "family", "blocks", "told"):
                await session.execute(sql(f"DELETE FROM {schema}.{table}"))
        for table in ("checkpoints", "blocks", "undo_log", "outbox", "discovered"):
            await session.execute(sql(f"DELETE FROM causeway.{table}"))


async def tell(database: Database, seeds: range, length: int) -> int:
    """Tell stories; return how many requests they made."""
    requests = 0
    for name in ("shelf", "fresh_shelf"):
        await Shelf(name).create(database)
    for name in ("book", "fresh_book"):
        await Book(name).create(database)
    for seed in seeds:
        await forget(database)
        paper = PaperChain()
        async with served(paper) as urls:
            story = Story(seed, paper, database, urls)
            try:
                await story.go(length)
                kept = [await Shelf("shelf").rows(database), await Book("book").rows(database)]
                assert kept == await story.fresh()
                await nothing_is_told_too_early(story)
            except BaseException as error:
                error.add_note(" -> ".join(story.told))
                raise
            finally:
                await story.chain.close()
        requests += paper.requests
    return requests


async def nothing_is_told_too_early(story: Story) -> None:
    """Effects that wait for finality were told of final blocks only, and never taken back."""
    final = story.paper.branch(story.paper.heads[0])[: story.paper.final + 1]
    mined = {event.hash for block in final for event in block.events}
    async with story.database.transaction() as session:
        rows = await session.execute(
            sql("SELECT key, what FROM shelf.told WHERE key LIKE '%:final:%'")
        )
        for key, what in rows:
            assert what == "released", key
            assert key.split(":")[1] in mined, key


async def test_an_effect_whose_very_block_comes_back_is_not_told_twice(
    database: Database,
) -> None:
    await Shelf("shelf").create(database)
    await Book("book").create(database)
    paper = PaperChain()
    async with served(paper) as urls:
        story = Story(0, paper, database, urls)
        call = drop(1)
        event = Event("0x" + "01" * 32, ("0x" + call[2:66], "0x" + call[66:130]), "0x")
        first = paper.mine([event]).hash
        for head in (first, paper.mine([]).hash, first):
            story.lead(head)
            await story.settle(story.indexers[0])
        async with database.transaction() as session:
            told = await session.execute(sql("SELECT key, what FROM shelf.told"))
            assert [tuple(row) for row in told] == [
                (f"{CHAIN_ID}:{event.hash}:at once:0", "restored")
            ]
        await story.chain.close()


SEEDS = int(os.environ.get("STORIES", "2000"))


@pytest.mark.timeout(120)
async def test_any_story_ends_in_the_rows_of_the_chain(database: Database) -> None:
    await tell(database, range(6), 30)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_any_of_thousands_of_stories_ends_in_the_rows_of_the_chain(
    database: Database,
) -> None:
    await tell(database, range(10_000, 10_000 + SEEDS), 30)
