"""Where alerts arrive: a webhook that checks signatures, and a channel that takes Slack's form."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web


@dataclass
class AlertReceiver:
    """What arrived."""

    secret: str
    url: str = ""
    #: Bodies of signed webhooks, each idempotency key once, in their order.
    webhooks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    #: Texts for Slack.
    texts: list[str] = field(default_factory=list[str])
    keys: set[str] = field(default_factory=set[str])
    #: Deliveries that came a second time, or with a wrong signature.
    twice: int = 0
    forged: int = 0

    async def webhook(self, request: web.Request) -> web.Response:
        """Take a notification, if its signature is right."""
        body = await request.read()
        signed = f"{request.headers.get('X-Causeway-Timestamp', '')}.".encode() + body
        wanted = hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest()
        given = request.headers.get("X-Causeway-Signature", "")
        if not hmac.compare_digest(given, f"sha256={wanted}"):
            self.forged += 1
            return web.Response(status=401)
        key = request.headers["Idempotency-Key"]
        if key in self.keys:
            self.twice += 1
            return web.Response()
        self.keys.add(key)
        said = orjson.loads(body)
        self.webhooks += said.get("notifications", [said])
        return web.Response()

    async def slack(self, request: web.Request) -> web.Response:
        """Take a message as Slack's incoming webhooks do."""
        self.texts.append(str(orjson.loads(await request.read())["text"]))
        return web.Response(text="ok")

    def kinds(self, rule: str) -> list[str]:
        """Return what was told of a rule, in order: `firing`, `resolved`, `retracted`."""
        return [
            str(one["kind"]) for one in self.webhooks if one.get("alert", {}).get("name") == rule
        ]


@asynccontextmanager
async def alert_receiver(secret: str) -> AsyncGenerator[AlertReceiver]:
    """Run a receiver on a port of the system's choice."""
    receiver = AlertReceiver(secret)
    app = web.Application()
    app.router.add_post("/webhook", receiver.webhook)
    app.router.add_post("/slack", receiver.slack)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
