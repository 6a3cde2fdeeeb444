"""M-OBS with millions of stored transactions: how long each endpoint takes, warm, over HTTP.

The API runs in a process of its own; 5,000 contracts are watched, 500 rules have 20 events each.

p95_ms                 95th percentile by endpoint, milliseconds
page_1_ms/page_10000_ms  the first page of a list and its ten-thousandth, by cursor
rollup_100k_ms         a minute of 100,000 transactions computed anew
drop_day_ms            a day of transactions dropped
block_5000_s           a block of 5,000 transactions written down

`ROWS=1000000 make bench NAME=mobs_queries` for another size than ten million.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import text

from bench.mobs_rows import fill_contracts, fill_day, fill_rules, fill_samples
from causeway.apps.mobs import pages, partitions
from causeway.apps.mobs.partitions import DAY_S
from causeway.apps.mobs.rollup import compute_hours, compute_minutes
from causeway.apps.mobs.scanner import Scanner, note
from causeway.apps.mobs.watched import Watched
from causeway.base import logging
from causeway.base.settings import KernelSettings, load
from causeway.chains.evm.blocks import FullBlock, Header, Receipt, Transaction
from causeway.runtime.discover import find_apps
from causeway.runtime.installation import Installation, open_installation
from causeway.store.embedded import EmbeddedPostgres

ROWS = int(os.environ.get("ROWS", "10000000"))
DAYS = 30
REPEATS = 60
_err = Console(file=sys.stderr)


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("ERROR")
    folder = tempfile.TemporaryDirectory()
    with folder:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(EmbeddedPostgres.open(Path(folder.name)))
            os.environ |= {
                "DATABASE_URL": server.url,
                "MANTLE_RPC_ENDPOINTS": "http://127.0.0.1:9",
                "WORKER_ENABLED_PIPELINES": "metrics_rollup",
            }
            apps = find_apps(["mobs"])
            installation = await stack.enter_async_context(
                open_installation(apps, load(KernelSettings))
            )
            now = int(time.time())
            await _fill(installation, now)
            figures = await _queries(installation, stack, now)
            figures |= await _writes(installation, now)
    return figures


async def _fill(installation: Installation, now: int) -> None:
    database = installation.database
    await fill_contracts(database)
    await fill_samples(database, now)
    await fill_rules(database, now)
    today = now // DAY_S
    number = 1_000_000
    with Progress(console=_err) as progress:
        task = progress.add_task(f"{ROWS:,} transactions", total=DAYS)
        for at in range(DAYS):
            async with database.transaction() as session:
                rows = ROWS // DAYS
                number += await fill_day(session, today - DAYS + at, rows, at * rows, number)
            progress.advance(task)
        through = today * DAY_S - 1
        task = progress.add_task("minutes", total=DAYS * 24)
        for hour in range(DAYS * 24):
            start = (today - DAYS) * DAY_S + hour * 3600
            async with database.transaction() as session:
                await compute_minutes(session, range(start, start + 3600, 60))
                await compute_hours(session, [start])
            progress.advance(task)
    async with database.transaction() as session:
        await note(
            session,
            "last_scanned_block",
            {"block_number": number - 1, "block_hash": "0x" + "00" * 32, "timestamp": through},
        )
    async with database.engine.connect() as connection:
        raw = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await raw.execute(text("VACUUM (ANALYZE)"))


@asynccontextmanager
async def _served() -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve M-OBS in a process of its own, as an operator does; give a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("causeway")), "serve", "mobs"),
        env={**os.environ, "CAUSEWAY_PORT": str(port), "CAUSEWAY_LOG_LEVEL": "WARNING"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            end = time.monotonic() + 60
            while True:
                try:
                    await http.get("/livez")
                    break
                except httpx2.TransportError:
                    if process.returncode is not None or time.monotonic() > end:
                        raise
                    await asyncio.sleep(0.1)
            yield http
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _queries(installation: Installation, stack: AsyncExitStack, now: int) -> dict[str, Any]:
    http = await stack.enter_async_context(_served())
    end = now // DAY_S * DAY_S - 60
    month = end - 29 * DAY_S
    async with installation.database.sessions() as session:
        row = (
            await session.execute(
                text(
                    "SELECT hash, from_address, error_signature, block_timestamp, block_number, "
                    "tx_index FROM mobs.txs WHERE status = 0 AND block_timestamp < :at "
                    "ORDER BY block_timestamp DESC LIMIT 1"
                ),
                {"at": end - 5 * DAY_S},
            )
        ).one()
        deep = (
            await session.execute(
                text(
                    "SELECT block_timestamp, block_number, tx_index FROM mobs.txs "
                    "WHERE block_timestamp >= :month "
                    "ORDER BY block_timestamp DESC, block_number DESC, tx_index DESC "
                    "OFFSET :offset LIMIT 1"
                ),
                {"offset": min(10_000 * 50, ROWS // 2), "month": month},
            )
        ).one()
    tx_hash, sender, signature = ("0x" + bytes(value).hex() for value in row[:3])
    asked = {
        "status": "all",
        "contract_id": None,
        "address": None,
        "start_ts": month,
        "end_ts": None,
        "error_signature": None,
        "sort": "time_desc",
        "method_id": None,
        "q": None,
        "system": False,
    }
    cursor = pages.encode(pages.Place(deep[0], deep[1], deep[2], month), asked)
    since = {"start_ts": month}
    questions: dict[str, tuple[str, dict[str, Any]]] = {
        "/health": ("/health", {}),
        "/txs": ("/txs", since),
        "/txs page 10000": ("/txs", since | {"cursor": cursor}),
        "/txs failed": ("/txs", since | {"status": "failed"}),
        "/txs by address": ("/txs", since | {"address": sender}),
        "/txs by contract": ("/txs", since | {"contract_id": 3}),
        "/txs by error": ("/txs", since | {"error_signature": signature}),
        "/txs by fee": ("/txs", since | {"sort": "gas_desc"}),
        "/txs by method": ("/txs", since | {"method_id": "0xa9059cbb"}),
        "/txs no such method": ("/txs", since | {"method_id": "0x00000001"}),
        "/txs by start of a hash": ("/txs", since | {"q": tx_hash[:14]}),
        "/txs by start of an address": ("/txs", since | {"q": sender[:14]}),
        "/txs failed of an address": ("/txs", since | {"status": "failed", "address": sender}),
        "/txs of a rare address": ("/txs", since | {"address": "0x" + "12" * 20}),
        "/txs/{hash}": (f"/txs/{tx_hash}", {}),
        "/metrics/overview 24 h": (
            "/metrics/overview",
            {"start_ts": end - DAY_S, "end_ts": end},
        ),
        "/metrics/overview 30 d by hour": (
            "/metrics/overview",
            {"start_ts": end - 30 * DAY_S + 60, "end_ts": end, "resolution": "hour"},
        ),
        "/providers/health": ("/providers/health", {"hours": 24}),
        "/contracts": ("/contracts", {}),
        "/alerts": ("/alerts", {"include_events": True}),
        "/blocks": ("/blocks", {}),
    }
    p95: dict[str, float] = {}
    for name, (path, query) in questions.items():

        async def once(path: str = path, query: dict[str, Any] = query) -> None:
            answer = await http.get(path, params=query)
            if answer.status_code != 200:
                raise RuntimeError(f"{path} {query}: {answer.text}")

        p95[name] = await _p95(once)
        _err.print(f"{name}: {p95[name]:.1f} ms")
    return {
        "rows": ROWS,
        "p95_ms": p95,
        "worst_p95_ms": max(p95.values()),
        "page_1_ms": p95["/txs"],
        "page_10000_ms": p95["/txs page 10000"],
    }


async def _p95(once: Callable[[], Awaitable[None]]) -> float:
    for _ in range(8):  # prepared statements and the caches warm up
        await once()
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await once()
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.quantiles(times, n=20)[18], 2)


async def _writes(installation: Installation, now: int) -> dict[str, Any]:
    database = installation.database
    tomorrow = now // DAY_S + 3
    async with database.transaction() as session:
        await fill_day(session, tomorrow, 100_000, 10**9, 10**8, span_s=60)
    async with database.engine.connect() as connection:
        raw = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await raw.execute(text("VACUUM (ANALYZE) mobs.txs"))
    rollups: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        async with database.transaction() as session:
            await compute_minutes(session, [tomorrow * DAY_S])
        rollups.append((time.perf_counter() - started) * 1000)
    blocks: list[float] = []
    scanner = Scanner(
        installation.contexts["mobs"].settings, Watched(), installation.contexts["mobs"].clock
    )
    for at in range(5):
        block = _block(10**9 + at, (tomorrow + 1) * DAY_S + 2 * at, 5000)
        started = time.perf_counter()
        async with database.transaction() as session:
            await scanner.apply(session, [block])
        blocks.append(time.perf_counter() - started)
    started = time.perf_counter()
    day = now // DAY_S - DAYS
    for table in ("txs_ok", "txs_failed"):
        async with database.transaction() as session:
            await partitions.drop(session, table, day)
    dropped = (time.perf_counter() - started) * 1000
    return {
        "rollup_100k_ms": round(statistics.median(rollups), 1),
        "block_5000_s": round(statistics.median(blocks), 3),
        "drop_day_ms": round(dropped, 1),
    }


def _block(number: int, timestamp: int, count: int) -> FullBlock:
    """Return a block of so many transactions, one in twenty of which failed."""
    block_hash = f"0x{number:064x}"
    transactions = [
        Transaction(
            hash=f"0x{number:032x}{index:032x}",
            from_=f"0x{index % 977:040x}",
            to=f"0x{index % 53:040x}",
            gas="0x7a120",
            value=hex(index),
            input="0xa9059cbb" + "00" * 64,
            transaction_index=hex(index),
            gas_price="0x1312d00",
        )
        for index in range(count)
    ]
    receipts = tuple(
        Receipt(
            transaction_hash=one.hash,
            block_hash=block_hash,
            block_number=hex(number),
            gas_used="0xc350",
            cumulative_gas_used=hex(50_000 * (index + 1)),
            logs=[],
            transaction_index=hex(index),
            status="0x0" if index % 20 == 0 else "0x1",
            effective_gas_price="0x1312d00",
        )
        for index, one in enumerate(transactions)
    )
    header = Header(
        number=hex(number),
        hash=block_hash,
        parent_hash=f"0x{number - 1:064x}",
        timestamp=hex(timestamp),
        gas_used=hex(50_000 * count),
        gas_limit="0x1c9c380",
        transactions=transactions,
    )
    return FullBlock(header, receipts)
