"""Hints by Redis, where the machine has one: `redis-server` on the path, or CAUSEWAY_TEST_REDIS."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

import pytest
from sqlalchemy import make_url

from causeway.live.publishing import publish, recheck
from causeway.live.redis_hints import RedisHints
from causeway.store.engine import Database
from tests.e2e.test_live import client, tell
from tests.live_server import live_server

PROGRAM = os.environ.get("CAUSEWAY_TEST_REDIS") or shutil.which("redis-server")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server here")


async def start(socket: Path) -> Process:
    """Start a Redis on a socket and wait until it answers."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "--port", "0", "--unixsocket", str(socket), "--save", "", stdout=DEVNULL
    )
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(str(socket))
            except OSError:
                assert process.returncode is None
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return process


async def test_redis_hints_where_listen_does_not_work(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """Looked for only every minute, a message comes at once; without Redis it comes, too."""
    socket = tmp_path / "redis.sock"
    address_of_redis = f"unix://{socket}"
    pooled = make_url(database_url).update_query_dict({"pgbouncer": "true"})
    shown = pooled.render_as_string(hide_password=False)
    redis = await start(socket)
    try:
        async with (
            live_server(shown, poll_s=60, sweep_s=60) as (address, hub),
            RedisHints.open(address_of_redis, hub),
            RedisHints.open(address_of_redis),  # a process that only publishes
            client(address, "ann:60", "a") as ann,
        ):
            async with asyncio.timeout(20):
                while not hub._hints_by:
                    await asyncio.sleep(0.01)
            for number in (1, 2, 3):
                await tell(database, "a")
                assert await ann.numbers(number) == [number]
            redis.kill()
            await redis.wait()
            socket.unlink(missing_ok=True)
            await tell(database, "a")
            redis = await start(socket)
            assert await ann.numbers(4) == [4]
            async with database.transaction() as session:
                await publish(session, "a", "told", {})
                await recheck(session, "a")
            assert await ann.numbers(5) == [5]
    finally:
        if redis.returncode is None:
            redis.kill()
        await redis.wait()
