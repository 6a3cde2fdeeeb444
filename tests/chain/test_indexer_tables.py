"""Tables that facts fill, handlers that add rows, factories, and effects that wait for finality."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateSchema

from causeway.base.errors import ConfigurationError
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.indexing import outbox
from causeway.indexing.indexer import Indexer
from causeway.indexing.models import Effect
from causeway.indexing.outbox import Outbox
from causeway.indexing.rows import Rows
from causeway.indexing.source import EventTable, Fact, Factory, Source
from causeway.indexing.undo import attach_undo
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import LEDGER, Ledger, drop, put, settle

metadata = MetaData("shelf")
puts = Table(
    "puts",
    metadata,
    Column("number", BigInteger, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("block_hash", LargeBinary, nullable=False),
    Column("seen", DateTime(timezone=True), nullable=False),
    Column("tx", Text, nullable=False),
    Column("key", Numeric(78, 0), nullable=False),
    Column("amount", Numeric(78, 0), nullable=False),
    Column("note", Text, nullable=False),
)
drops = Table(
    "drops",
    metadata,
    Column("number", BigInteger, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("key", Numeric(78, 0), nullable=False),
)
sums = Table(
    "sums",
    metadata,
    Column("key", Numeric(78, 0), primary_key=True),
    Column("total", Numeric(100, 0), nullable=False),
    Column("times", Integer, nullable=False),
)
PUT_COLUMNS = {
    "number": "@block_number",
    "place": "@log_index",
    "block_hash": "@block_hash",
    "seen": "@block_time",
    "tx": "@transaction_hash",
    "key": "key",
    "amount": "amount",
    "note": "note",
}


@pytest.fixture
async def shelf(database: Database) -> Database:
    """The tables, empty."""
    async with database.engine.begin() as connection:
        await connection.execute(CreateSchema("shelf"))
        await connection.run_sync(metadata.create_all)
        for statement in attach_undo(sums):
            await connection.execute(text(statement))
    return database


async def dropped(rows: Rows, fact: Fact) -> None:
    """Add a row."""
    rows.add(drops, number=fact.block.number, place=fact.log_index, key=fact.args["key"])


async def summed(rows: Rows, fact: Fact) -> None:
    """Read a row, change it, put it back."""
    row = await rows.get(sums, fact.args["key"])
    total, times = (0, 0) if row is None else (int(row["total"]), row["times"])
    rows.put(
        sums,
        {"key": fact.args["key"], "total": total + fact.args["amount"], "times": times + 1},
    )


def declared(address: str, name: str = "shelf") -> Source:
    """Return a source with a table for one event and a handler of the fast kind for the other."""
    return Source(
        name=name,
        chain="ledger",
        abi=LEDGER,
        addresses=(address,),
        start_block=1,
        tables={"Put": EventTable(puts, PUT_COLUMNS)},
        row_handlers={"Drop": dropped},
        by_block={drops: "number"},
    )


def stateful(address: str, *, owned: bool = True) -> Source:
    """Return a source whose handler reads and writes state."""
    return Source(
        name="sums",
        chain="ledger",
        abi=LEDGER,
        addresses=(address,),
        start_block=1,
        row_handlers={"Put": summed},
        derived=(sums,),
        owned=(sums,) if owned else (),
    )


async def contents(database: Database, table: Table) -> list[tuple[Any, ...]]:
    """Return a table's rows in the order of its key."""
    key = ", ".join(column.name for column in table.primary_key)
    async with database.sessions() as session:
        rows = await session.execute(text(f"SELECT * FROM shelf.{table.name} ORDER BY {key}"))
        return [tuple(row) for row in rows]


async def fresh(
    database: Database, chain: EvmChain, source: Source, *tables: Table
) -> list[list[tuple[Any, ...]]]:
    """Return the tables as a first reading of the chain as it is now would fill them."""
    async with database.transaction() as session:
        for table in tables:
            await session.execute(text(f"TRUNCATE shelf.{table.name}"))
    await settle(Indexer(database, chain, replace(source, name="fresh"), patience_s=0.0))
    return [await contents(database, table) for table in tables]


async def test_a_declared_table_holds_what_the_chain_told(
    shelf: Database, chain: EvmChain, ledger: Ledger
) -> None:
    number = await ledger.block(put(1, 5, "é"), drop(1), put(2, 2**255, ""))
    await ledger.mine(3)
    await settle(Indexer(shelf, chain, declared(ledger.address)))
    block = await chain.block(number)
    assert block is not None
    rows = await contents(shelf, puts)
    assert [(r[0], r[1], r[5], r[6], r[7]) for r in rows] == [
        (number, 0, 1, 5, "é"),
        (number, 2, 2, 2**255, ""),
    ]
    assert {(bytes(r[2]), r[3]) for r in rows} == {(bytes.fromhex(block.hash[2:]), block.timestamp)}
    assert await contents(shelf, drops) == [(number, 1, 1)]


@pytest.mark.parametrize("seed", range(6))
async def test_reorgs_leave_the_rows_of_the_chain_that_stayed(
    shelf: Database, chain: EvmChain, ledger: Ledger, seed: int
) -> None:
    chance = random.Random(seed)

    def call() -> str:
        key = chance.randrange(4)
        return drop(key) if chance.random() < 0.3 else put(key, chance.randrange(100), "n")

    sources = [declared(ledger.address), stateful(ledger.address, owned=seed % 2 == 0)]
    indexers = [
        Indexer(shelf, chain, source, max_range=size, patience_s=0.0)
        for source in sources
        for size in (3, 100)
    ]
    for _ in range(12):
        doing = chance.randrange(4)
        if doing == 0 and await ledger.head() > 8:
            depth = chance.randint(1, 6)
            await ledger.reorg(depth, [(call(), chance.randrange(depth)) for _ in range(2)])
        else:
            await ledger.block(*(call() for _ in range(chance.randint(0, 4))))
        await chance.choice(indexers).step()
    for one in indexers:
        await settle(one)
    found = [await contents(shelf, table) for table in (puts, drops)]
    assert found == await fresh(shelf, chain, sources[0], puts, drops)
    state = await contents(shelf, sums)
    async with shelf.transaction() as session:
        await session.execute(text("DELETE FROM causeway.checkpoints WHERE source = 'fresh'"))
        await session.execute(text("DELETE FROM causeway.blocks WHERE source = 'fresh'"))
    assert [state] == await fresh(shelf, chain, sources[1], sums)


MADE = Abi.from_json(
    [
        {
            "type": "event",
            "name": "Made",
            "inputs": [{"name": "child", "type": "address", "indexed": True}],
        },
        {
            "type": "event",
            "name": "Put",
            "inputs": [
                {"name": "key", "type": "uint256", "indexed": True},
                {"name": "amount", "type": "uint256"},
                {"name": "note", "type": "string"},
            ],
        },
    ]
)


def made(child: str) -> str:
    """Return call data that emits `Made`."""
    return MADE.event("Made").topic0 + encode(["address"], [child]).hex()


async def test_contracts_that_a_factory_makes_are_read_from_their_first_block(
    shelf: Database, anvil: AnvilNode, chain: EvmChain, ledger: Ledger
) -> None:
    child, stranger = Ledger(anvil), Ledger(anvil)
    await child.deploy()
    await stranger.deploy()
    await child.block(put(7, 7))  # before the factory told of it: its events count all the same
    told = await ledger.block(made(child.address))
    await child.block(put(1, 1), put(2, 2))
    await stranger.block(put(9, 9))
    source = Source(
        name="family",
        chain="ledger",
        abi=MADE,
        addresses=(),
        factory=Factory((ledger.address,), "Made", "child"),
        start_block=1,
        tables={"Put": EventTable(puts, PUT_COLUMNS)},
    )
    one = Indexer(shelf, chain, source, patience_s=0.0)
    await settle(one)
    # A range that holds the birth holds what came before it in the same range.
    assert [row[5] for row in await contents(shelf, puts)][-2:] == [1, 2]
    assert 9 not in [row[5] for row in await contents(shelf, puts)]
    # Another process knows what this one found.
    await child.block(put(3, 3))
    await settle(Indexer(shelf, chain, source, patience_s=0.0))
    assert [row[5] for row in await contents(shelf, puts)][-3:] == [1, 2, 3]
    # A reorg that takes the birth away takes the child away.
    await anvil.rpc("anvil_reorg", await ledger.head() - told + 1, [])
    await child.block(put(4, 4))
    await settle(one)
    async with shelf.sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM causeway.discovered")) == 0
    assert 4 not in [row[5] for row in await contents(shelf, puts)]


class Payouts:
    """An app that pays for each fact, three blocks later."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    async def put(self, session: AsyncSession, fact: Fact) -> None:
        """File a payout."""
        await outbox.file(session, "payouts", fact, "pay", {"to": fact.args["key"]}, finality=3)

    async def released(self, _session: AsyncSession, effects: Sequence[Effect]) -> None:
        """Note what is due."""
        self.told += [("pay", effect.payload["to"]) for effect in effects]

    async def undone(self, _session: AsyncSession, effects: Sequence[Effect]) -> None:
        """Note what should not have been."""
        self.told += [("compensate", effect.payload["to"]) for effect in effects]

    async def restored(self, _session: AsyncSession, effects: Sequence[Effect]) -> None:
        """Note what was right after all."""
        self.told += [("restored", effect.payload["to"]) for effect in effects]

    def source(self, address: str) -> Source:
        """Return the source."""
        return Source(
            name="payouts",
            chain="ledger",
            abi=LEDGER,
            addresses=(address,),
            start_block=1,
            handlers={"Put": self.put},
            outbox=Outbox(self.released, self.undone, self.restored),
        )


async def test_an_effect_waits_for_its_finality_and_goes_with_its_block(
    database: Database, chain: EvmChain, ledger: Ledger
) -> None:
    app = Payouts()
    one = Indexer(database, chain, app.source(ledger.address), patience_s=0.0)
    await ledger.block(put(1, 1), put(2, 2))
    await settle(one)
    await ledger.mine(2)
    await settle(one)
    assert app.told == []
    await ledger.reorg(3, [(ledger_call, 0) for ledger_call in (put(2, 2),)])
    await settle(one)
    await ledger.mine(1)
    await settle(one)
    assert app.told == [("pay", 2)]


async def test_an_effect_that_was_too_early_is_never_passed_over(
    database: Database, anvil: AnvilNode, chain: EvmChain, ledger: Ledger
) -> None:
    app = Payouts()
    one = Indexer(database, chain, app.source(ledger.address), patience_s=0.0)
    sent = await anvil.rpc("eth_sendTransaction", ledger.transaction(put(5, 5)))
    await anvil.rpc("evm_mine")
    raw = await anvil.rpc("eth_getRawTransactionByHash", sent)
    await ledger.mine(3)
    await settle(one)
    assert app.told == [("pay", 5)]
    await anvil.rpc("anvil_reorg", 4, [])
    await settle(one)
    assert app.told == [("pay", 5), ("compensate", 5)]
    # The very same transaction is mined again: it was paid for already.
    await anvil.rpc("eth_sendRawTransaction", raw)
    await anvil.rpc("evm_mine")
    await ledger.mine(5)
    await settle(one)
    assert app.told == [("pay", 5), ("compensate", 5), ("restored", 5)]


def test_a_table_that_does_not_fit_its_event_is_refused() -> None:
    table = EventTable(puts, PUT_COLUMNS | {"note": "wrong"})
    with pytest.raises(ConfigurationError, match="no argument wrong"):
        replace(declared("0x" + "11" * 20), tables={"Put": table})
    with pytest.raises(ConfigurationError, match="no column missing"):
        EventTable(puts, {"number": "@block_number", "missing": "key"})
    with pytest.raises(ConfigurationError, match="@block_number"):
        EventTable(puts, {"key": "key"})
    with pytest.raises(ConfigurationError, match="more than one"):
        replace(declared("0x" + "11" * 20), row_handlers={"Put": dropped})
