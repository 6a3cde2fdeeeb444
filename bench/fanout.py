"""From a commit to every client that follows: one process, many WebSockets, one message a second.

The server is a process of its own; the clients are in this one, so on two cores they compete with
it for the second. Counted is the time from before the transaction that publishes to the moment each
client has read its frame.

told_p50_ms, told_p99_ms         over all clients and messages
last_p50_ms                      to the last client of a message
one_p50_ms                       the same with a single client

`CLIENTS=200 MESSAGES=10` for a quick look.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from causeway.base import logging
from causeway.live.publishing import publish
from causeway.store import migrate
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

CLIENTS = int(os.environ.get("CLIENTS", "1000"))
MESSAGES = int(os.environ.get("MESSAGES", "20"))
FRAME = {"t": 190.4, "s": 628.3, "lat": 45.00001, "lng": 7.0, "pace": 303.0}
SERVER = Path(__file__).with_name("fanout_server.py")


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedPostgres.open(Path(folder)) as server:
            database = Database(server.url)
            await migrate.upgrade(database, [migrate.kernel_line()])
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(SERVER), server.url, stdout=PIPE
            )
            try:
                assert process.stdout is not None
                address = (await process.stdout.readline()).decode().strip()
                one = await follow(database, address, 1)
                many = await follow(database, address, CLIENTS)
            finally:
                process.terminate()
                await process.wait()
                await database.close()
    told = [seconds for message in many for seconds in message]
    return {
        "clients": CLIENTS,
        "messages": MESSAGES,
        "told_p50_ms": statistics.median(told) * 1000,
        "told_p99_ms": statistics.quantiles(told, n=100)[98] * 1000,
        "last_p50_ms": statistics.median(max(message) for message in many) * 1000,
        "one_p50_ms": statistics.median(max(message) for message in one) * 1000,
    }


async def follow(database: Database, address: str, clients: int) -> list[list[float]]:
    """Return, for each message, the seconds until each client had it."""
    channel = f"bench:{clients}"
    heard: list[list[float]] = []
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connect(address, compression=None, max_size=None))
            for _ in range(clients)
        ]
        for socket in sockets:
            await socket.send(json.dumps({"type": "subscribe", "channel": channel}))
        await asyncio.gather(*(until(socket, "subscribed") for socket in sockets))
        for _ in range(MESSAGES):
            reading = [asyncio.create_task(until(socket, "pos")) for socket in sockets]
            await asyncio.sleep(0.5)  # readers are waiting, and nobody is busy
            began = time.perf_counter()
            async with database.transaction() as session:
                await publish(session, channel, "pos", FRAME)
            heard.append([at - began for at in await asyncio.gather(*reading)])
    return heard


async def until(socket: ClientConnection, kind: str) -> float:
    """Read up to a frame of that type; return when it came."""
    while json.loads(await socket.recv())["type"] != kind:
        pass
    return time.perf_counter()
