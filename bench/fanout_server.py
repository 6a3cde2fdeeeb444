"""The server of `bench.fanout`: everybody may follow everything; prints its address."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from fastapi import FastAPI, WebSocket

from causeway.base import logging
from causeway.live.connection import Rules, serve
from causeway.live.hub import Hub
from causeway.live.tickets import Viewer
from causeway.runtime.process import listen
from causeway.store.engine import Database


async def authenticate(token: str) -> Viewer:
    """Take anybody at their word."""
    return Viewer(token)


async def may_follow(_viewer: Viewer | None, _channel: str) -> bool:
    """Allow everything."""
    return True


async def main(url: str) -> None:
    """Serve until the process is ended."""
    logging.configure("ERROR")
    rules = Rules(authenticate, may_follow, must_authenticate=False)
    api = FastAPI()
    async with Hub.open(Database(url)) as hub:

        async def follow(websocket: WebSocket) -> None:
            await serve(websocket, hub, rules)

        api.websocket("/live")(follow)
        listening = listen("127.0.0.1", 0)
        listening.listen(2048)
        print(f"ws://127.0.0.1:{listening.getsockname()[1]}/live", flush=True)
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off")
        await uvicorn.Server(config)._serve([listening])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
