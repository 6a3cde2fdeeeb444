"""A real JSON-RPC server before a node that does what providers do to sent transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import aiohttp
from aiohttp import web
from eth_utils.crypto import keccak

#: What happens to `eth_sendRawTransaction`: passed on; passed on and answered 500; passed on and
#: the connection cut; cut before; answered with a hash and thrown away; answered with an error.
Sends = Literal["pass", "500_after", "cut_after", "cut_before", "swallow", "error"]


class SendProxy:
    """Passes everything on, but for sends, which go as told. Set the attributes at any time."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.target = target
        self.sends: Sends = "pass"
        self.error: dict[str, Any] = {"code": -32603, "message": "internal error"}
        #: All calls are refused with 503 while this is set.
        self.down = False
        self.refused = 0
        #: Seconds before each answer.
        self.lag_s = 0.0
        #: Methods that are answered with null.
        self.blank: set[str] = set()
        #: That many requests are answered, the next one never: `reached` is set instead.
        self.countdown: int | None = None
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        #: Every raw transaction that came, in order.
        self.raw: list[str] = []
        self._http: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request."""
        body: Any = await request.json()
        await asyncio.sleep(self.lag_s)
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.reached.set()
                await self.let_go.wait()
                return web.Response(status=503)
        if self.down:
            self.refused += 1
            return web.Response(status=503)
        calls = cast("list[dict[str, Any]]", body if isinstance(body, list) else [body])
        answers = [await self._answer(request, call) for call in calls]
        if None in answers:
            return web.Response(status=500)
        return web.json_response(answers if isinstance(body, list) else answers[0])

    async def _answer(self, request: web.Request, call: dict[str, Any]) -> dict[str, Any] | None:
        made: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] in self.blank:
            return made | {"result": None}
        if call["method"] != "eth_sendRawTransaction":
            return await self._pass(call)
        raw = str(call["params"][0])
        self.raw.append(raw)
        match self.sends:
            case "pass":
                return await self._pass(call)
            case "error":
                return made | {"error": self.error}
            case "swallow":
                return made | {"result": "0x" + keccak(hexstr=raw).hex()}
            case "500_after":
                await self._pass(call)
                return None
            case "cut_before":
                self._cut(request)
            case "cut_after":
                await self._pass(call)
                self._cut(request)
        return made

    async def _pass(self, call: dict[str, Any]) -> dict[str, Any]:
        assert self._http is not None
        async with self._http.post(self.target, json=call) as response:
            return cast("dict[str, Any]", await response.json())

    def _cut(self, request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()


@asynccontextmanager
async def send_proxy(target: str) -> AsyncGenerator[SendProxy]:
    """Run a proxy in front of the node at `target`."""
    proxy = SendProxy(target)
    app = web.Application()
    app.router.add_post("/", proxy.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    proxy.url = f"http://{host}:{port}/"
    async with aiohttp.ClientSession() as proxy._http:
        yield proxy
    await runner.cleanup()
