"""Whole blocks with their call trees, from a node that traces, through reorganisations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.evm.blocks import Frame, FullBlock
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import BlockSource, Undone
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import SENDER, Ledger, chain_at, settle

#: Calls the contract after it, and goes on when that reverts; reverts with all of its call data.
CALLS = "0x" + "cc" * 20
REVERTS = "0x" + "aa" * 20
_CALLS_CODE = "0x60006000600060006000" + "73" + "aa" * 20 + "5af100"


def calls_of(frame: Frame, depth: int = 0) -> list[tuple[int, str, bool]]:
    """Return all calls of a tree: how deep, to whom, and whether they failed."""
    found = [(depth, frame.to or "", frame.error is not None)]
    for one in frame.calls:
        found += calls_of(one, depth + 1)
    return found


class Traced:
    """Keeps every call of every transaction in a table of its own."""

    def __init__(self, schema: str) -> None:
        self.schema = schema

    async def create(self, database: Database) -> None:
        """Make the table."""
        async with database.transaction() as session:
            await session.execute(text(f"CREATE SCHEMA {self.schema}"))
            await session.execute(
                text(
                    f"CREATE TABLE {self.schema}.calls (number bigint, tx integer, place integer, "
                    "hash text NOT NULL, depth integer NOT NULL, callee text NOT NULL, "
                    "failed boolean NOT NULL, PRIMARY KEY (number, tx, place))"
                )
            )

    @property
    def source(self) -> BlockSource:
        """Return the source that fills it."""
        return BlockSource(
            name=self.schema,
            chain="ledger",
            start_block=1,
            apply=self.apply,
            on_undone=self.undone,
            traces=True,
            batch=3,
        )

    async def apply(self, session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        """Write the calls of these blocks."""
        for one in blocks:
            assert len(one.traces) == len(one.transactions)
            for tx, frame in enumerate(one.traces):
                assert frame is not None
                for place, (depth, callee, failed) in enumerate(calls_of(frame)):
                    await session.execute(
                        text(
                            f"INSERT INTO {self.schema}.calls VALUES "
                            "(:number, :tx, :place, :hash, :depth, :callee, :failed)"
                        ),
                        {
                            "number": one.block.number,
                            "tx": tx,
                            "place": place,
                            "hash": one.transactions[tx].hash,
                            "depth": depth,
                            "callee": callee,
                            "failed": failed,
                        },
                    )

    async def undone(self, session: AsyncSession, undone: Undone) -> None:
        """Delete the calls of blocks that are gone."""
        await session.execute(
            text(f"DELETE FROM {self.schema}.calls WHERE number > :above"),
            {"above": undone.fork.number},
        )

    async def rows(self, database: Database) -> list[tuple[Any, ...]]:
        """Return everything in the table."""
        async with database.transaction() as session:
            found = await session.execute(
                text(f"SELECT * FROM {self.schema}.calls ORDER BY number, tx, place")
            )
            return [tuple(row) for row in found]


@pytest.fixture
async def chain(anvil: AnvilNode) -> AsyncGenerator[EvmChain]:
    """The node's chain, with both contracts."""
    await anvil.rpc("anvil_setCode", CALLS, _CALLS_CODE)
    await anvil.rpc("anvil_setCode", REVERTS, "0x366000600037366000fd")
    made = chain_at(anvil.url, anvil.chain_id)
    yield made
    await made.close()


async def test_calls_within_calls_are_kept_and_go_with_their_blocks(
    database: Database, anvil: AnvilNode, chain: EvmChain, ledger: Ledger
) -> None:
    async def block(*callees: str) -> int:
        for to in callees:
            call = {"from": SENDER, "to": to, "gas": hex(200_000), "data": "0x01"}
            await anvil.rpc("eth_sendTransaction", call)
        return await ledger.mine(1)

    traced, fresh = Traced("traced"), Traced("fresh_traced")
    for one in (traced, fresh):
        await one.create(database)
    indexer = Indexer(database, chain, traced.source, patience_s=0.0)
    first = await block(CALLS, REVERTS)
    await ledger.mine(4)  # more than a batch, and blocks without any call
    await settle(indexer)
    of_first = [row[1:3] + row[4:] for row in await traced.rows(database) if row[0] == first]
    assert of_first == [
        (0, 0, 0, CALLS, False),
        (0, 1, 1, REVERTS, True),
        (1, 0, 0, REVERTS, True),
    ]
    last = await block(REVERTS)
    await settle(indexer)
    kept = await traced.rows(database)
    assert [row[0] for row in kept][-1] == last
    again = ledger.transaction("0x02") | {"to": CALLS}
    await anvil.rpc("anvil_reorg", 3, [[again, 0]])
    await settle(indexer)
    rows = await traced.rows(database)
    assert [row[0] for row in rows if row not in kept] == [last - 2, last - 2]
    await settle(Indexer(database, chain, fresh.source))
    assert rows == await fresh.rows(database)
