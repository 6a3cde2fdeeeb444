"""An RPC provider that stands before a node: honest, or lying.

A liar names other hashes for blocks above a height, as a node on another fork does, or alters
receipts: less gas than was used, and without their logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import orjson
from aiohttp import web


class RpcProxy:
    """Passes calls on to a node. Set `lies` and `alters` at any time."""

    def __init__(self, target: str) -> None:
        self.url = ""
        #: Whether it names other hashes, for all blocks above `true_up_to`.
        self.lies = False
        self.true_up_to = 0
        #: Whether it alters the first receipt of each block.
        self.alters = False
        self.requests = 0
        self._target = target
        self._http: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one HTTP request."""
        if self._http is None:
            raise RuntimeError("the proxy does not run")
        self.requests += 1
        sent = await request.read()
        headers = {"content-type": "application/json"}
        async with self._http.post(self._target, data=sent, headers=headers) as answer:
            body = await answer.read()
        if self.lies:
            body = orjson.dumps(other_fork(orjson.loads(body), self.true_up_to))
        if self.alters and b"cumulativeGasUsed" in body:
            body = orjson.dumps(altered(orjson.loads(body)))
        return web.Response(body=body, content_type="application/json", status=answer.status)


def other_fork(said: Any, true_up_to: int) -> Any:
    """Return an answer (or several) as a node gives it whose blocks above a height are others."""
    if isinstance(said, list):
        return [other_fork(one, true_up_to) for one in cast("list[Any]", said)]
    if not isinstance(said, dict):
        return said
    known = cast("dict[str, Any]", said)
    found = {key: other_fork(value, true_up_to) for key, value in known.items()}
    number = found.get("number")
    if isinstance(number, str) and "parentHash" in found:
        height = int(number, 16)
        if height > true_up_to:
            found["hash"] = _other(height)
            if height - 1 > true_up_to:
                found["parentHash"] = _other(height - 1)
    return found


def altered(said: Any) -> Any:
    """Return an answer (or several) with the first receipt of each block altered."""
    if isinstance(said, list):
        return [altered(one) for one in cast("list[Any]", said)]
    if not isinstance(said, dict):
        return said
    found = {key: altered(value) for key, value in cast("dict[str, Any]", said).items()}
    if "cumulativeGasUsed" in found and found.get("transactionIndex") == "0x0":
        found |= {"gasUsed": hex(int(found["gasUsed"], 16) // 2), "logs": []}
    return found


def _other(number: int) -> str:
    return "0x" + hashlib.sha256(f"another fork {number}".encode()).hexdigest()


@asynccontextmanager
async def rpc_proxy(target: str) -> AsyncGenerator[RpcProxy]:
    """Run a provider before the node at `target`, on a port of the system's choice."""
    proxy = RpcProxy(target)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{rest:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as proxy._http:  # pyright: ignore[reportPrivateUsage]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://{host}:{port}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
