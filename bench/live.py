"""From a block that is mined to a client that is told: a local node, one event a block.

The node tells of its head over WebSocket, the indexer reads the block and commits its row, and a
client that listens on another connection of the same PostgreSQL hears of it. Counted is the time
from the node's reply that the block is mined; the node's own answers are in it.

mined_to_told_p50_ms, _p95_ms    block mined to client told
mined_to_row_p50_ms              block mined to row committed, as another connection sees it
without_feed_p50_ms              the same to client told, by looking every half second only

`BLOCKS=50` for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import BigInteger, Column, Integer, MetaData, Numeric, Table, text
from sqlalchemy.schema import CreateSchema, CreateTable

from causeway.base import logging
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.heads import HeadFeed
from causeway.chains.pool import ProviderPool
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import EventTable, Source
from causeway.sandbox.anvil import AnvilNode
from causeway.store import migrate
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

BLOCKS = int(os.environ.get("BLOCKS", "200"))
ABI = Abi.from_json(
    [
        {
            "type": "event",
            "name": "Put",
            "inputs": [
                {"name": "key", "type": "uint256", "indexed": True},
                {"name": "amount", "type": "uint256"},
            ],
        }
    ]
)
#: Deploys code that emits LOG2(calldata[0:32], calldata[32:64]) with the rest as the log's data.
EMITTER = "0x601480600b6000396000f3602035600035604036038060406000376000a200"
metadata = MetaData("bench")
puts = Table(
    "puts",
    metadata,
    Column("block_number", BigInteger, primary_key=True, autoincrement=False),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("key", BigInteger, nullable=False),
    Column("amount", Numeric(78, 0), nullable=False),
)
COLUMNS = {
    "block_number": "@block_number",
    "log_index": "@log_index",
    "key": "key",
    "amount": "amount",
}


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedPostgres.open(Path(folder)) as server, AnvilNode.start() as node:
            database = Database(server.url)
            await migrate.upgrade(database, [migrate.kernel_line()])
            async with database.transaction() as session:
                await session.execute(CreateSchema("bench"))
                await session.execute(CreateTable(puts))
            contract = await deploy(node)
            rows, told = await follow(node, database, server.url, contract, BLOCKS, feed=True)
            _, late = await follow(node, database, server.url, contract, 20, feed=False)
            await database.close()
    return {
        "blocks": BLOCKS,
        "mined_to_told_p50_ms": statistics.median(told) * 1000,
        "mined_to_told_p95_ms": statistics.quantiles(told, n=20)[18] * 1000,
        "mined_to_row_p50_ms": statistics.median(rows) * 1000,
        "without_feed_p50_ms": statistics.median(late) * 1000,
    }


async def deploy(node: AnvilNode) -> str:
    """Deploy the emitter; return its address."""
    owner = node.accounts[0].address
    made = await node.rpc("eth_sendTransaction", {"from": owner, "data": EMITTER})
    await node.mine()
    return str((await node.rpc("eth_getTransactionReceipt", made))["contractAddress"])


async def follow(
    node: AnvilNode, database: Database, url: str, contract: str, blocks: int, *, feed: bool
) -> tuple[list[float], list[float]]:
    """Return the seconds from each block mined to its row, and to the client told."""
    name = f"bench-{feed}"
    pool = ProviderPool([Endpoint(SecretUrl(node.url), "node")])
    chain = EvmChain("bench", node.chain_id, pool)
    source = Source(
        name=name,
        chain="bench",
        abi=ABI,
        addresses=(contract,),
        start_block=(await chain.head()).number + 1,
        tables={"Put": EventTable(puts, COLUMNS)},
    )
    indexer = Indexer(database, chain, source, poll_interval_s=0.5)
    listener = await psycopg.AsyncConnection.connect(plain(url), autocommit=True)
    teller = await psycopg.AsyncConnection.connect(plain(url), autocommit=True)
    await listener.execute("LISTEN bench_live")

    async def tell() -> None:
        await teller.execute("NOTIFY bench_live")

    stop = asyncio.Event()
    working = [asyncio.create_task(indexer.run(stop, on_facts=tell))]
    if feed:
        told_by = HeadFeed(SecretUrl(node.ws_url, ("ws", "wss")), "node")
        working.append(asyncio.create_task(told_by.run(indexer.wake)))
    heard = aiter(listener.notifies())
    rows: list[float] = []
    told: list[float] = []
    await node.rpc("evm_setAutomine", False)
    try:
        await warm(node, contract, heard)
        for number in range(blocks):
            await put(node, contract, number)
            await node.rpc("evm_mine")
            mined = time.perf_counter()
            await anext(heard)
            told.append(time.perf_counter() - mined)
            async with database.transaction() as session:
                count = await session.scalar(text("SELECT count(*) FROM bench.puts"))
            rows.append(time.perf_counter() - mined)
            if not count:
                raise SystemExit("a client was told of a row that is not there")
    finally:
        await node.rpc("evm_setAutomine", True)
        stop.set()
        indexer.wake()
        for task in working[1:]:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await listener.close()
        await teller.close()
        await chain.close()
    return rows, told


async def warm(node: AnvilNode, contract: str, heard: Any) -> None:
    """Have a few blocks followed that are not counted."""
    for number in range(5):
        await put(node, contract, number)
        await node.rpc("evm_mine")
        await anext(heard)


async def put(node: AnvilNode, contract: str, key: int) -> None:
    """Have the next block emit one event."""
    data = ABI.event("Put").topic0 + key.to_bytes(32, "big").hex() + (7).to_bytes(32, "big").hex()
    sender = node.accounts[0].address
    await node.rpc("eth_sendTransaction", {"from": sender, "to": contract, "data": data})


def plain(url: str) -> str:
    """Return the address as psycopg takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")
