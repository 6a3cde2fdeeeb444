"""One way of indexing the recorded chain with Causeway, in a process of its own.

    python -m bench.chain.contender HOW RPC_URL DATABASE_URL UP_TO_BLOCK

HOW is `tables`, `handler`, `balances`, `mixed` or `floor`; prints JSON: seconds from the first
request to the last commit, rows, peak memory. `head` follows the chain block by block with the undo
log on, and `reorg` has 64 blocks replaced; both print the seconds of each commit.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.schema import CreateSchema

from bench.chain.blocks import CHAIN_ID, MIXED, NOTED_ABI, TOKEN, TRANSFER, TRANSFER_ABI
from bench.chain.node import FINALITY
from causeway.base import logging
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.words import WordDecoder
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from causeway.indexing.indexer import Indexer
from causeway.indexing.outbox import Outbox
from causeway.indexing.rows import Rows
from causeway.indexing.source import EventTable, Fact, Source
from causeway.indexing.tables import TableWriter
from causeway.indexing.undo import attach_undo
from causeway.store import migrate
from causeway.store.copy import encode_rows
from causeway.store.engine import Database

SCHEMA = "bench"
metadata = MetaData(SCHEMA)
transfers = Table(
    "transfers",
    metadata,
    Column("block_number", BigInteger, primary_key=True, autoincrement=False),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("transaction_hash", LargeBinary, nullable=False),
    Column("sender", LargeBinary, nullable=False),
    Column("receiver", LargeBinary, nullable=False),
    Column("value", Numeric(78, 0), nullable=False),
)
notes = Table(
    "notes",
    metadata,
    Column("block_number", BigInteger, primary_key=True, autoincrement=False),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("who", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
)
balances = Table(
    "balances",
    metadata,
    Column("address", Text, primary_key=True),
    Column("balance", Numeric(78, 0), nullable=False),
)
PLACES = {
    "block_number": "@block_number",
    "log_index": "@log_index",
    "transaction_hash": "@transaction_hash",
}
ABI = Abi.from_json([TRANSFER_ABI, NOTED_ABI])


async def keep(rows: Rows, fact: Fact) -> None:
    """Write a transfer down, as an app's handler would."""
    args = fact.args
    rows.add(
        transfers,
        block_number=fact.block.number,
        log_index=fact.log_index,
        transaction_hash=bytes.fromhex(fact.transaction_hash[2:]),
        sender=bytes.fromhex(args["from"][2:]),
        receiver=bytes.fromhex(args["to"][2:]),
        value=args["value"],
    )


async def move(rows: Rows, fact: Fact) -> None:
    """Read, change and write the balances of both sides of a transfer."""
    value = fact.args["value"]
    for address, change in ((fact.args["from"], -value), (fact.args["to"], value)):
        row = await rows.get(balances, address)
        before = 0 if row is None else int(row["balance"])
        rows.put(balances, {"address": address, "balance": before + change})


def source(how: str) -> Source:
    """Return the source that reads in this way."""
    common: dict[str, Any] = {
        "name": f"bench-{how}",
        "chain": "bench",
        "abi": ABI,
        "start_block": 1,
    }
    match how:
        case "tables":
            columns = PLACES | {"sender": "from", "receiver": "to", "value": "value"}
            tables = {"Transfer": EventTable(transfers, columns)}
            return Source(addresses=(TOKEN,), tables=tables, **common)
        case "handler":
            by_block = {transfers: "block_number"}
            return Source(
                addresses=(TOKEN,), row_handlers={"Transfer": keep}, by_block=by_block, **common
            )
        case "balances":
            return Source(
                addresses=(TOKEN,),
                row_handlers={"Transfer": move},
                derived=(balances,),
                owned=(balances,),
                **common,
            )
        case _:
            columns = {"block_number": "@block_number", "log_index": "@log_index"}
            tables = {"Noted": EventTable(notes, columns | {"who": "who", "note": "note"})}
            return Source(addresses=(MIXED,), tables=tables, **common)


async def prepare(database: Database) -> None:
    """Make the kernel's tables and empty ones of our own."""
    await migrate.upgrade(database, [migrate.kernel_line()])
    async with database.engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
        await connection.execute(CreateSchema(SCHEMA))
        await connection.run_sync(metadata.create_all)
        for statement in attach_undo(balances):
            await connection.execute(text(statement))
        for table in ("checkpoints", "blocks", "undo_log"):
            await connection.execute(text(f"DELETE FROM causeway.{table}"))


def chain_at(url: str) -> EvmChain:
    """Return the recorded chain as the kernel reads it."""
    pool = ProviderPool([Endpoint(SecretUrl(url), "recorded")], timeout_s=60)
    return EvmChain("bench", CHAIN_ID, pool)


async def indexed(how: str, url: str, database: Database, up_to: int) -> float:
    """Index up to that block; return the seconds it took."""
    chain = chain_at(url)
    await chain.verify()
    indexer = Indexer(database, chain, source(how))
    started = time.perf_counter()
    await indexer.catch_up(up_to, 3600)
    seconds = time.perf_counter() - started
    await chain.close()
    return seconds


class Timed(Indexer):
    """Notes how long each commit takes, from the reply in hand until it is durable."""

    commits: list[float]

    async def _apply(self, *args: Any, **more: Any) -> None:
        started = time.perf_counter()
        await super()._apply(*args, **more)
        self.commits.append(time.perf_counter() - started)


async def nothing(_session: Any, _effects: Any) -> None:
    """Do nothing about effects: there are none."""


async def at_the_head(how: str, url: str, database: Database, up_to: int, ask: Any) -> Any:
    """Return the seconds of 200 single blocks' commits, or of a reorg of 64 blocks."""
    chain = chain_at(url)
    found = replace(source("handler"), name=f"bench-{how}", outbox=Outbox(nothing, nothing))
    if how == "head":
        async with database.engine.begin() as connection:
            for statement in attach_undo(transfers):
                await connection.execute(text(statement))
        found = replace(found, by_block={}, derived=(transfers,))
    indexer = Timed(database, chain, found)
    indexer.commits = []
    await ask("bench_set", {"head": up_to})
    await indexer.catch_up(up_to, 3600)
    indexer.commits.clear()
    if how == "head":
        for number in range(up_to + 1, up_to + 201):
            await ask("bench_set", {"head": number})
            await indexer.step()
        seconds: Any = indexer.commits
    else:
        await ask("bench_set", {"fork_above": up_to - 64, "head": up_to})
        started = time.perf_counter()
        while (await indexer.step()).behind:
            pass
        progress = await indexer.step()
        seconds = time.perf_counter() - started
        if progress.applied_to is None or progress.applied_to.number != up_to:
            raise SystemExit(f"the reorg ended at {progress}")
    await chain.close()
    return seconds


async def floor(url: str, database: Database, up_to: int) -> float:
    """Fetch the logs four ranges at a time, then COPY ready rows: no decoding, no duties."""
    rows = await _ready(url, up_to)
    started = time.perf_counter()
    gate = asyncio.Semaphore(4)
    async with aiohttp.ClientSession() as http:

        async def fetch(first: int) -> None:
            query = {
                "fromBlock": hex(first),
                "toBlock": hex(min(first + 49, up_to)),
                "address": TOKEN,
                "topics": [[TRANSFER]],
            }
            body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [query]}
            async with gate, http.post(url, json=body) as response:
                await response.read()

        await asyncio.gather(*(fetch(first) for first in range(1, up_to + 1, 50)))
    async with database.transaction() as session:
        names = [column.name for column in transfers.columns]
        await _copy_ready(session, names, rows)
    return time.perf_counter() - started


async def _ready(url: str, up_to: int) -> list[bytes]:
    """Return every row, encoded beforehand: what COPY alone costs."""
    chain = chain_at(url)
    columns_of = PLACES | {"sender": "from", "receiver": "to", "value": "value"}
    names = [column.name for column in transfers.columns]
    writer = TableWriter(
        EventTable(transfers, {n: columns_of[n] for n in names}),
        WordDecoder(ABI.event("Transfer")),
    )
    pieces: list[list[Any]] = [[] for _ in names]
    for first in range(1, up_to + 1, 100):
        last = min(first + 99, up_to)
        found = await chain.read_range([LogFilter((TOKEN,), (TRANSFER,))], first, last)
        logs = [w for wires in found.logs.values() for w in wires]
        blocks = [found.headers[n] for n, wires in found.logs.items() for _ in wires]
        made = writer.columns(CHAIN_ID, logs, blocks, strict=True)
        for column, more in zip(pieces, made, strict=True):
            column.extend(more)
    await chain.close()
    return list(encode_rows(transfers, names, pieces))


async def _copy_ready(session: Any, names: list[str], pieces: list[bytes]) -> None:
    connection = await session.connection()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    listed = ", ".join(names)
    statement = f"COPY {SCHEMA}.transfers ({listed}) FROM STDIN (FORMAT binary)"
    async with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for piece in pieces:
            await copy.write(piece)


def kept_waiting_s() -> float:
    """Return for how long this process was ready to run while the cores were others'."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


async def main() -> None:
    """Run one contender."""
    logging.configure("ERROR")
    gc.set_threshold(200_000, 20, 50)
    how, url, database_url, up_to = *sys.argv[1:4], int(sys.argv[4])
    database = Database(database_url)
    await prepare(database)
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, *params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            async with session.post(url, data=orjson.dumps(body)) as response:
                return orjson.loads(await response.read())["result"]

        if how in ("head", "reorg"):
            print(json.dumps(await at_the_head(how, url, database, up_to, ask)))
            await database.close()
            return
        wanted = await ask("bench_totals", 1, up_to)
        await ask("bench_set", {"head": up_to + FINALITY})  # no reader goes further
        await ask("bench_counts")
        began, kept = time.process_time(), kept_waiting_s()
        if how == "floor":
            seconds = await floor(url, database, up_to)
        else:
            seconds = await indexed(how, url, database, up_to)
        counts = await ask("bench_counts")
    async with database.sessions() as db:
        table = {"mixed": "notes", "balances": "balances"}.get(how, "transfers")
        column = {"mixed": "0", "balances": "balance"}.get(how, "value")
        rows, total = (
            await db.execute(text(f"SELECT count(*), sum({column}) FROM {SCHEMA}.{table}"))
        ).one()
    events = wanted["noted"] if how == "mixed" else wanted["transfers"]
    if how == "mixed":
        right = rows == events
    elif how == "balances":
        right = total == 0
    else:
        right = rows == events and str(total) == wanted["value"]
    if not right:
        sys.exit(f"{how}: {rows} rows and a sum of {total}, wanted {wanted}")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "seconds": seconds,
        "cpu_s": time.process_time() - began,
        #: Ready to run, and others ran: what a busy machine took.
        "kept_waiting_s": kept_waiting_s() - kept,
        "events": events,
        "requests": counts["requests"] - 1,
        "peak_mib": peak_kib / 1024,
    }
    print(json.dumps(result))
    await database.close()


if __name__ == "__main__":
    uvloop.run(main())
