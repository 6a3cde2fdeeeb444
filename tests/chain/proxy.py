"""A real JSON-RPC server in front of a node that behaves as badly as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any, cast

import aiohttp
from aiohttp import web

#: What vendors say to too large a range, one lie, and things nobody ever said.
REFUSALS: tuple[tuple[int, str], ...] = (
    (-32602, "Log response size exceeded. this block range should work: [0x0, 0xffff]"),
    (-32005, "query returned more than 10000 results"),
    (-32614, "eth_getLogs is limited to a 10,000 range"),
    (-32000, "block range is too wide"),
    (-32600, "up to a 10 block range"),
    (-32000, "zwölf Boxkämpfer"),
    (1, ""),
)


class FaultProxy:
    """Passes calls on to a node, unless told otherwise. Set the attributes at any time."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.target = target
        #: Blocks in one `eth_getLogs` it allows.
        self.max_range: int | None = None
        #: HTTP status it answers everything with, and its Retry-After.
        self.status: int | None = None
        self.retry_after: str | None = None
        #: Seconds it keeps everything waiting.
        self.delay_s = 0.0
        self.takes_batches = True
        #: Replaces results: method to function of the true result.
        self.lies: dict[str, Callable[[Any], Any]] = {}
        #: Errors instead of results: method to code, message, data.
        self.errors: dict[str, tuple[int, str, Any]] = {}
        #: Breaks the connection after passing the call on, or before.
        self.breaks: str | None = None
        #: Done when the next answers are known and before they are sent, one for each; or None.
        self.meanwhile: list[Callable[[], Awaitable[object]] | None] = []
        self.calls: Counter[str] = Counter()
        self.requests = 0
        self._texts = cycle(REFUSALS)
        self._http: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request."""
        self.requests += 1
        body: Any = await request.json()
        calls = cast("list[dict[str, Any]]", body if isinstance(body, list) else [body])
        for call in calls:
            self.calls[call["method"]] += 1
        if self.breaks == "before":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        await asyncio.sleep(self.delay_s)
        if self.status is not None:
            headers = {"retry-after": self.retry_after} if self.retry_after else {}
            return web.Response(status=self.status, headers=headers, text="<html>no</html>")
        if isinstance(body, list):
            if not self.takes_batches:
                error = {"code": -32600, "message": "batches are not supported"}
                return web.json_response({"jsonrpc": "2.0", "id": None, "error": error})
            answer: Any = [await self._answer(call) for call in reversed(calls)]
        else:
            answer = await self._answer(body)
        doing = self.meanwhile.pop(0) if self.meanwhile else None
        if doing is not None:
            await doing()
        if self.breaks == "after":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(answer)

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        method = call["method"]
        error = self.errors.get(method)
        if method == "eth_getLogs" and self.max_range is not None:
            query = call["params"][0]
            blocks = int(query.get("toBlock", "0x0"), 16) - int(query.get("fromBlock", "0x0"), 16)
            if blocks + 1 > self.max_range:
                error = (*next(self._texts), None)
        if error is not None:
            code, message, data = error
            failure = {"code": code, "message": message, "data": data}
            return {"jsonrpc": "2.0", "id": call["id"], "error": failure}
        assert self._http is not None
        async with self._http.post(self.target, json=call) as response:
            reply: dict[str, Any] = await response.json()
        if method in self.lies and "result" in reply:
            reply["result"] = self.lies[method](reply["result"])
        return reply


@asynccontextmanager
async def fault_proxy(target: str) -> AsyncGenerator[FaultProxy]:
    """Run a proxy in front of the node at `target`."""
    proxy = FaultProxy(target)
    app = web.Application()
    app.router.add_post("/{rest:.*}", proxy.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.url = f"http://{host}:{port}/v2/secret-key"
    async with aiohttp.ClientSession() as proxy._http:
        yield proxy
    await runner.cleanup()
