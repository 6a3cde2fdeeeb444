"""Indexing events of Starknet: Causeway, and starknet-py reading the same ones, in the same run.

One node in a process of its own serves blocks with 100 events each, of the registry's `JobCreated`
(two keys, a u256 and a number), in pages of 1,000. Causeway reads every header, checks the chain,
decodes and stores each event in PostgreSQL; starknet-py reads and parses and stores nothing.
Counted is the time from the first request to the last commit (or the last value), without the start
of a process. Rows and their sum are checked.

tables_events_per_s       Causeway, a declared table
handler_events_per_s      Causeway, one awaited Python handler an event, which only adds up
decode_events_per_s       the decoder alone, arguments by name
starknet_py_events_per_s  `get_events` and the event's serializer
ratio_to_starknet_py      events per second of `tables` over theirs

`BLOCKS=200` for a quick look, `ROUNDS=3` for medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import uvloop
from aiohttp import web
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Numeric, Table
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateSchema, CreateTable

from causeway.base import logging
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.pool import ProviderPool
from causeway.chains.starknet.abi import Abi
from causeway.chains.starknet.chain import StarknetChain
from causeway.chains.starknet.wire import WireLog
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import EventTable, Fact, Source
from causeway.store import migrate
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

BLOCKS = int(os.environ.get("BLOCKS", "2000"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
#: Events in a block, and blocks that starknet-py is given.
EACH = 100
THEIR_BLOCKS = min(BLOCKS, 100)
#: Blocks above the last one read, so that all of the workload is final.
ABOVE = 64
CONTRACT = 0x3465F9DD6F9B94DAF51BAACBCF1EEAB963D987B24286934E3C23A1B75C9E8DA
ABI_FILE = Path(__file__).parents[1] / "contracts" / "veriframe" / "veriframe.abi.json"
ABI = Abi.from_json(ABI_FILE)
KEY = ABI.event("JobCreated").topic0

jobs = Table(
    "jobs",
    MetaData(schema="bench"),
    Column("block_number", BigInteger, primary_key=True),
    Column("log_index", Integer, primary_key=True),
    Column("transaction_hash", LargeBinary),
    Column("job_id", Numeric(78, 0)),
    Column("creator", LargeBinary),
    Column("reward", Numeric(78, 0)),
    Column("deadline", BigInteger),
)
COLUMNS = {
    "block_number": "@block_number",
    "log_index": "@log_index",
    "transaction_hash": "@transaction_hash",
    "job_id": "job_id",
    "creator": "creator",
    "reward": "reward_amount",
    "deadline": "deadline",
}


# The node


def block_hash(number: int) -> str:
    """Return a block's hash: nobody checks more of it than that it is another one."""
    return hex(0x5EED << 200 | (number + 1) << 8)


def header(number: int, newest: int) -> dict[str, Any]:
    """Return a block's header."""
    price = {"price_in_fri": "0x1", "price_in_wei": "0x1"}
    return {
        "status": "ACCEPTED_ON_L1" if number <= newest - ABOVE else "ACCEPTED_ON_L2",
        "block_hash": block_hash(number),
        "parent_hash": block_hash(number - 1) if number else "0x0",
        "block_number": number,
        "new_root": "0x1",
        "timestamp": 1_700_000_000 + number,
        "sequencer_address": "0x1",
        "l1_gas_price": price,
        "l2_gas_price": price,
        "l1_data_gas_price": price,
        "l1_da_mode": "BLOB",
        "starknet_version": "0.14.2",
        "event_count": EACH,
        "transactions": [hex(number << 16 | at | 1 << 240) for at in range(4)],
    }


def event(number: int, at: int) -> dict[str, Any]:
    """Return an event of a block."""
    job = number * EACH + at
    creator = hex((job % 997 + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A1)
    return {
        "from_address": hex(CONTRACT),
        "keys": [KEY, hex(job), creator],
        "data": [hex(10**21 + job * 10**9), "0x0", hex(1_700_000_000 + job)],
        "block_hash": block_hash(number),
        "block_number": number,
        "transaction_hash": hex(number << 16 | at % 4 | 1 << 240),
        "transaction_index": at % 4,
        "event_index": at // 4,
    }


class Node:
    """Serves the chain; what was encoded once is kept."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.headers = [json.dumps(header(n, newest)).encode() for n in range(newest + 1)]
        self.events = [
            b",".join(json.dumps(event(n, at)).encode() for at in range(EACH)) if n else b""
            for n in range(newest + 1)
        ]

    def answer(self, method: str, params: Any) -> bytes:
        """Return the result of a call, as JSON."""
        given = cast("list[Any]", params) if isinstance(params, list) else [*params.values()]
        match method:
            case "starknet_chainId":
                return b'"0x534e5f5345504f4c4941"'
            case "starknet_specVersion":
                return b'"0.10.2"'
            case "starknet_getBlockWithTxHashes":
                place = given[0]
                tag = {"latest": self.newest, "l1_accepted": self.newest - ABOVE}
                number = tag[place] if isinstance(place, str) else place["block_number"]
                return self.headers[number]
            case "starknet_getEvents":
                return self.page(given[0])
            case _:
                raise LookupError(method)

    def page(self, asked: dict[str, Any]) -> bytes:
        """Return a page: whole blocks, as many as fit."""
        first, last = (asked[end]["block_number"] for end in ("from_block", "to_block"))
        first = int(asked.get("continuation_token") or first)
        up_to = min(last, first + asked["chunk_size"] // EACH - 1)
        events = b",".join(one for one in self.events[first : up_to + 1] if one)
        token = b"" if up_to == last else b',"continuation_token":"%d"' % (up_to + 1)
        return b'{"events":[' + events + b"]" + token + b"}"

    async def post(self, request: web.Request) -> web.Response:
        """Answer a call or a batch."""
        asked = json.loads(await request.read())
        calls = cast("list[dict[str, Any]]", asked if isinstance(asked, list) else [asked])
        told = [
            b'{"jsonrpc":"2.0","id":%d,"result":%b}'
            % (one["id"], self.answer(one["method"], one.get("params", [])))
            for one in calls
        ]
        body = b"[" + b",".join(told) + b"]" if isinstance(asked, list) else told[0]
        return web.Response(body=body, content_type="application/json")


async def serve(newest: int) -> None:
    """Serve until standard input ends; the address is the first line of the output."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/", Node(newest).post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@contextmanager
def node() -> Generator[str]:
    """Serve the chain from a process of its own; give its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.starknet", "serve", str(BLOCKS + ABOVE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the node has no pipes")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


# The contenders


async def ours(how: str, url: str, address: str) -> dict[str, Any]:
    """Index everything; return seconds and what was stored."""
    logging.configure("ERROR")
    database = Database(address)
    await migrate.upgrade(database, [migrate.kernel_line()])
    async with database.transaction() as session:
        await session.execute(sql("DROP SCHEMA IF EXISTS bench CASCADE"))
        await session.execute(sql("DELETE FROM causeway.checkpoints"))
        await session.execute(sql("DELETE FROM causeway.blocks"))
        await session.execute(CreateSchema("bench"))
        await session.execute(CreateTable(jobs))
    done = 0

    async def handle(session: AsyncSession, fact: Fact) -> None:
        nonlocal done
        done += int(fact.args["reward_amount"])

    source = Source(
        name="bench",
        chain="bench",
        abi=ABI,
        addresses=(hex(CONTRACT),),
        start_block=1,
        handlers={"JobCreated": handle} if how == "handler" else {},
        tables={"JobCreated": EventTable(jobs, COLUMNS)} if how == "tables" else {},
    )
    chain = StarknetChain(
        "bench", "SN_SEPOLIA", ProviderPool([Endpoint(SecretUrl(url), "node")], timeout_s=30)
    )
    one = Indexer(database, chain, source)
    started = perf_counter()
    await one.catch_up(BLOCKS, 600)
    seconds = perf_counter() - started
    async with database.transaction() as session:
        found = await session.execute(
            sql("SELECT count(*), sum(reward) FROM bench.jobs WHERE block_number <= :last"),
            {"last": BLOCKS},
        )
        rows, total = found.one()
    await chain.close()
    await database.close()
    return {"seconds": seconds, "rows": rows, "sum": str(done or total)}


async def theirs(url: str) -> dict[str, Any]:
    """Read and parse events with starknet-py; return seconds and how many."""
    from starknet_py.abi.v2.parser import AbiParser
    from starknet_py.net.full_node_client import FullNodeClient
    from starknet_py.serialization.factory import serializer_for_event

    parsed = AbiParser(json.loads(ABI_FILE.read_text())).parse()
    (kind,) = (one for name, one in parsed.events.items() if name.endswith("::JobCreated"))
    serializer = serializer_for_event(kind)
    client = FullNodeClient(url)
    await client.spec_version()
    started = perf_counter()
    found = await client.get_events(
        address=CONTRACT,
        keys=[[int(KEY, 16)]],
        from_block_number=1,
        to_block_number=THEIR_BLOCKS,
        follow_continuation_token=True,
        chunk_size=1000,
    )
    total = 0
    for one in found.events:
        values: Any = serializer.deserialize([*one.keys[1:], *one.data])
        total += values.as_dict()["reward_amount"]
    return {
        "seconds": perf_counter() - started,
        "events": len(found.events),
        "sum": str(total),
    }


def decoding() -> float:
    """Return how many events per second the decoder alone turns into arguments by name."""
    from causeway.chains.starknet.decoder import EventDecoder

    wires: list[WireLog] = []
    for at in range(20_000):
        made = event(at // EACH + 1, at % EACH)
        wires.append(
            WireLog("0x0", tuple(made["keys"]), tuple(made["data"]), 1, "0x0", "0x0", "0x0", "0x0")
        )
    decoder = EventDecoder(ABI.event("JobCreated"))
    taken: list[float] = []
    for _ in range(5):
        started = perf_counter()
        found = decoder.arguments_of(wires)
        taken.append(perf_counter() - started)
        assert found is not None
    return len(wires) / min(taken)


def expected(blocks: int) -> str:
    """Return the sum of all rewards up to a block."""
    ids = range(EACH, (blocks + 1) * EACH)
    return str(sum(10**21 + job * 10**9 for job in ids))


def contender(*arguments: str) -> dict[str, Any]:
    """Run one in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.starknet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


async def run() -> dict[str, Any]:
    """Return the figures."""
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, node() as url:
        async with EmbeddedPostgres.open(Path(folder)) as server:
            for _ in range(ROUNDS):
                rounds.append(await asyncio.to_thread(one_round, url, server.url))
    rates = {how: statistics.median(one[how] for one in rounds) for how in rounds[0]}
    return {
        "events": BLOCKS * EACH,
        "tables_events_per_s": rates["tables"],
        "handler_events_per_s": rates["handler"],
        "decode_events_per_s": rates["decode"],
        "starknet_py_events_per_s": rates["starknet_py"],
        "ratio_to_starknet_py": rates["tables"] / rates["starknet_py"],
        "handler_ratio_to_starknet_py": rates["handler"] / rates["starknet_py"],
    }


def one_round(url: str, address: str) -> dict[str, float]:
    """Run everybody once, one after the other; return events per second."""
    rates: dict[str, float] = {"decode": decoding()}
    for how in ("tables", "handler"):
        found = contender("ours", how, url, address)
        if found["sum"] != expected(BLOCKS):
            raise RuntimeError(f"{how} ended with {found}")
        rates[how] = BLOCKS * EACH / found["seconds"]
    found = contender("theirs", url)
    if found["sum"] != expected(THEIR_BLOCKS):
        raise RuntimeError(f"starknet-py ended with {found}")
    rates["starknet_py"] = found["events"] / found["seconds"]
    return rates


def main(arguments: Sequence[str]) -> None:
    """Be the node or one of the contenders."""
    match arguments:
        case ["serve", newest]:
            uvloop.run(serve(int(newest)))
        case ["ours", how, url, address]:
            print(json.dumps(uvloop.run(ours(how, url, address))))
        case ["theirs", url]:
            print(json.dumps(uvloop.run(theirs(url))))
        case _:
            sys.exit("make bench NAME=starknet")


if __name__ == "__main__":
    main(sys.argv[1:])
