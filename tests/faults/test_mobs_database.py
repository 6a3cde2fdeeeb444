"""A database that hangs: connections are there, and nothing comes back over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from causeway.sandbox.anvil import AnvilNode
from tests.mobs_app import running_mobs


class Relay:
    """Passes bytes between an application and PostgreSQL's socket, while it is let."""

    def __init__(self, socket: Path) -> None:
        self.port = 0
        self.open = asyncio.Event()
        self.open.set()
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        from_server, to_server = await asyncio.open_unix_connection(str(self._socket))
        for source, target in ((reader, to_server), (from_server, writer)):
            task = asyncio.create_task(self._pass(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.open.wait()
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()

    async def stop(self) -> None:
        """End what is relayed."""
        self.open.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relayed(database_url: str) -> AsyncGenerator[tuple[str, Relay]]:
    """Give the address of a database through a relay, and the relay."""
    url = make_url(database_url)
    relay = Relay(Path(str(url.query["host"])) / ".s.PGSQL.5432")
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}", relay
    finally:
        await relay.stop()
        server.close()


async def test_health_is_told_within_a_second_and_questions_do_not_hang(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        relayed(database_url) as (url, relay),
        running_mobs(url, anvil, monkeypatch, work=False) as mobs,
    ):
        assert (await mobs.get("/health"))["database"] == "ok"
        relay.open.clear()
        for strict, status in (("false", 200), ("true", 503)):
            started = time.monotonic()
            answer = await mobs.http.get("/health", params={"strict": strict})
            assert time.monotonic() - started < 1.5
            assert answer.status_code == status
            assert answer.json()["database"] == "down"
        started = time.monotonic()
        answers = await asyncio.gather(*(mobs.http.get(path) for path in ("/txs", "/alerts")))
        assert time.monotonic() - started < 12
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
        relay.open.set()

        async def well() -> bool:
            return (await mobs.http.get("/txs")).status_code == 200

        await mobs.until(well, "the database to be back")
