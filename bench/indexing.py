"""Indexing one recorded chain: Causeway, Ponder, web3.py, and what the machine could do at best.

One node serves 2,000 blocks with 200,000 ERC-20 transfers and 20,000 logs with dynamic arguments;
everybody writes into the same PostgreSQL. Counted is the time from the first request to the last
commit, without the start of the process. Rows and their sum are checked for each.

handler_events_per_s     Causeway, one awaited Python handler an event
set_based_events_per_s   Causeway, a declared table
ratio_to_…               the peer's time over the handler's
times_floor              the set-based time over fetching the bytes and COPY of ready rows
handler_times_floor      the same with the handler
head_commit_p95_ms       reply in hand to durable commit of 100 events, undo log and outbox on
reorg_64_s               64 blocks of 100 events undone and applied again
http_requests            of Causeway for the workload

`BLOCKS=500` for a quick look, `PEERS=0` without the peers, `ROUNDS=3` for medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from causeway.base import logging
from causeway.store.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
BLOCKS = int(os.environ.get("BLOCKS", "2000"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
PEERS = os.environ.get("PEERS", "1") != "0"
#: Blocks above the last one read, so that all of the workload is final.
ABOVE = 64
_err = Console(file=sys.stderr)


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("ERROR")
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, node(BLOCKS + ABOVE) as url:
        async with EmbeddedPostgres.open(Path(folder)) as server:
            if PEERS:
                await asyncio.to_thread(prepare_peers)
            for _ in range(ROUNDS):
                rounds.append(await asyncio.to_thread(one_round, url, server.url))
            figures = _figures(rounds)
            figures |= await asyncio.to_thread(at_the_head, server.url)
            figures |= await asyncio.to_thread(memory, server.url)
    return figures


@contextmanager
def node(blocks: int) -> Generator[str]:
    """Serve the recorded chain from a process of its own; give its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.chain.node", str(blocks)],
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


def contender(how: str, url: str, database: str, up_to: int = BLOCKS) -> Any:
    """Run one of Causeway's ways in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.chain.contender", how, url, database, str(up_to)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{how}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def one_round(url: str, database: str) -> dict[str, Any]:
    """Run everybody once, one after the other."""
    found: dict[str, Any] = {}
    for how in ("floor", "tables", "handler", "balances", "mixed"):
        found[how] = contender(how, url, database)
        _err.print(f"{how}: {found[how]['seconds']:.2f} s, {found[how]['events']:,} events")
    if PEERS:
        schema = f"p{os.getpid()}"
        _forget_ponder(database)
        for how in ("cold", "warm"):
            found[f"ponder_{how}"] = {"seconds": ponder(url, database, f"{schema}{how}")}
            _err.print(f"ponder {how}: {found[f'ponder_{how}']['seconds']:.2f} s")
        found["web3py"] = web3py(url, database)
        _err.print(f"web3.py: {found['web3py']['seconds']:.2f} s")
    return found


def _figures(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    def seconds(how: str) -> float:
        return statistics.median(one[how]["seconds"] for one in rounds)

    events = rounds[0]["handler"]["events"]
    handler = seconds("handler")
    figures: dict[str, Any] = {
        "events": events,
        "handler_events_per_s": events / handler,
        "set_based_events_per_s": events / seconds("tables"),
        "balances_events_per_s": events / seconds("balances"),
        "mixed_events_per_s": rounds[0]["mixed"]["events"] / seconds("mixed"),
        "times_floor": seconds("tables") / seconds("floor"),
        "handler_times_floor": handler / seconds("floor"),
        "http_requests": rounds[0]["handler"]["requests"],
    }
    if PEERS:
        figures |= {
            "ratio_to_ponder_cold": seconds("ponder_cold") / handler,
            "ratio_to_ponder_warm": seconds("ponder_warm") / handler,
            "ratio_to_web3py": seconds("web3py") / handler,
        }
    return figures | {"seconds": {how: round(seconds(how), 3) for how in rounds[0]}}


def at_the_head(database: str) -> dict[str, Any]:
    """Measure single blocks at the head, and a reorg, on a chain of their own."""
    with node(300) as url:
        commits = contender("head", url, database, 100)
    with node(300) as url:
        reorg = contender("reorg", url, database, 200)
    return {
        "head_commit_p50_ms": statistics.median(commits) * 1000,
        "head_commit_p95_ms": statistics.quantiles(commits, n=20)[18] * 1000,
        "reorg_64_s": reorg,
    }


def memory(database: str) -> dict[str, Any]:
    """Compare the peak memory of a backfill with that of one ten times as long."""
    short = max(200, BLOCKS // 2)
    with node(10 * short + ABOVE) as url:
        little = contender("tables", url, database, short)["peak_mib"]
        much = contender("tables", url, database, 10 * short)["peak_mib"]
    return {"peak_mib": little, "peak_mib_ten_times": much, "memory_ratio": much / little}


# The peers


def prepare_peers() -> None:
    """Install Ponder and web3.py where they are not yet, each apart from Causeway's packages."""
    here = HERE / "ponder"
    if not (here / "node_modules" / "ponder").exists():
        subprocess.run(
            [sys.executable, str(HERE.parent / "scripts" / "node.py"), "npm", "ci", "--silent"],
            cwd=here,
            check=True,
        )
    # Its limiter begins at 20 requests a second and rises slowly: what is compared is the engine.
    limits = here / "node_modules/ponder/dist/esm/rpc/index.js"
    source = limits.read_text()
    lifted = re.sub(r"const (INITIAL_MAX_RPS|MAX_RPS) = \d+;", r"const \1 = 100000;", source)
    if lifted != source:
        limits.write_text(lifted)
    python = HERE.parent / ".causeway" / "bench-venv" / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "-q", python.parent.parent], check=True)
        lock = str(HERE / "requirements.lock")
        command = [uv, "pip", "install", "-q", "--python", python, "--require-hashes", "-r", lock]
        subprocess.run(command, check=True)


def _plain(database: str) -> str:
    return database.replace("postgresql+psycopg", "postgresql")


def _forget_ponder(database: str) -> None:
    with psycopg.connect(_plain(database), autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS ponder_sync CASCADE")


def ponder(url: str, database: str, schema: str) -> float:
    """Index with Ponder; return its own count of seconds, from the first fetch to the end."""
    environment = os.environ | {
        "BENCH_RPC": url,
        "BENCH_DATABASE": _plain(database),
        "BENCH_LAST": str(BLOCKS),
        "PONDER_TELEMETRY_DISABLED": "1",
    }
    command = ["node_modules/.bin/ponder", "--log-format", "json", "start", "--port", "0"]
    with subprocess.Popen(
        [*command, "--schema", schema],
        cwd=HERE / "ponder",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        seconds = 0.0
        for line in process.stdout or ():
            if '"Completed backfill indexing across all chains"' in line:
                seconds = json.loads(line)["duration"] / 1000
                break
        process.kill()  # it is through, and takes its time to leave
    with psycopg.connect(_plain(database)) as connection:
        rows = connection.execute(f"SELECT count(*) FROM {schema}.transfers".encode()).fetchone()
    if not seconds or rows is None or rows[0] != 100 * BLOCKS:
        raise RuntimeError(f"ponder ended with {rows}")
    return seconds


def web3py(url: str, database: str) -> dict[str, Any]:
    """Index with web3.py and SQLAlchemy."""
    python = HERE.parent / ".causeway" / "bench-venv" / "bin" / "python"
    address = _plain(database).replace("postgresql://", "postgresql+psycopg://")
    done = subprocess.run(
        [python, str(HERE / "web3py.py"), url, address, str(BLOCKS)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    if found["rows"] != 100 * BLOCKS:
        raise RuntimeError(f"web3.py ended with {found}")
    return found
