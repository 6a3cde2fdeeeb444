"""A receiver of webhooks: what came, as it came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web


@dataclass
class Receiver:
    """What was delivered."""

    url: str = ""
    deliveries: list[tuple[Mapping[str, str], bytes]] = field(
        default_factory=list[tuple[Mapping[str, str], bytes]]
    )

    def heard(self) -> list[tuple[str, str]]:
        """Return kind and wallet of every delivery."""
        bodies: list[dict[str, Any]] = [orjson.loads(body) for _, body in self.deliveries]
        return [(str(b["type"]).removeprefix("motify."), str(b["data"]["wallet"])) for b in bodies]

    async def take(self, request: web.Request) -> web.Response:
        """Take one."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.deliveries.append((headers, await request.read()))
        return web.Response(status=204)


@asynccontextmanager
async def webhook_receiver() -> AsyncGenerator[Receiver]:
    """Receive until the block is left."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
