"""A process that serves channels: `python -m tests.live_server DATABASE_URL`; prints its port.

Tokens are `subject:seconds`, good for so long. Nobody may follow `secret:…` but `boss`, and what is
in the table `live_test_denied` nobody may.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import uvicorn
from fastapi import FastAPI, WebSocket
from sqlalchemy import text

from causeway.auth.claims import TokenRefused
from causeway.base.clock import SYSTEM_CLOCK
from causeway.live.connection import Limits, Rules, serve
from causeway.live.hub import Hub
from causeway.live.tickets import Viewer
from causeway.runtime.process import listen
from causeway.store.engine import Database


async def authenticate(token: str) -> Viewer:
    subject, colon, seconds = token.partition(":")
    if not colon:
        raise TokenRefused("BAD_SIGNATURE", "that is no token")
    return Viewer(subject, SYSTEM_CLOCK.now() + timedelta(seconds=float(seconds)))


def rules_on(database: Database, limits: Limits) -> Rules:
    async def may_follow(viewer: Viewer | None, channel: str) -> bool:
        if channel.startswith("secret:"):
            return viewer is not None and viewer.subject == "boss"
        async with database.transaction() as session:
            if await session.scalar(text("SELECT to_regclass('public.live_test_denied')")) is None:
                return True
            denied = text("SELECT count(*) FROM public.live_test_denied WHERE channel = :channel")
            return not await session.scalar(denied, {"channel": channel})

    return Rules(authenticate, may_follow, limits=limits)


@asynccontextmanager
async def live_server(
    url: str, limits: Limits | None = None, *, sweep_s: float = 5.0, poll_s: float = 0.2
) -> AsyncGenerator[tuple[str, Hub]]:
    """Serve until the block is left; yields the address and the hub."""
    database = Database(url)
    api = FastAPI()
    rules = rules_on(database, limits or Limits())
    async with Hub.open(database, sweep_s=sweep_s, poll_s=poll_s) as hub:

        async def follow(websocket: WebSocket) -> None:
            await serve(websocket, hub, rules)

        api.websocket("/live")(follow)
        listening = listen("127.0.0.1", 0)
        listening.listen()  # whoever comes before the server is ready waits
        config = uvicorn.Config(
            api, log_config=None, lifespan="off", timeout_graceful_shutdown=5, access_log=False
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listening]))
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/live", hub
        finally:
            hub.stop()
            server.should_exit = True
            await task
            await database.close()


async def main(url: str) -> None:
    """Serve until the process is killed."""
    async with live_server(url, replace(Limits(), frames_per_s=1000)) as (address, _hub):
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
