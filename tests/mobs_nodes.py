"""Stand-ins for RPC providers over real HTTP, each well or ill in a way of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from aiohttp import web

CHAIN_ID = 5000


@dataclass
class Node:
    """A provider; `how` names what is wrong with it."""

    clock: Any
    how: str = "well"
    height: int = 1000
    #: Makes other blocks of the same numbers, above `common`.
    branch: int = 0
    common: int = 900
    #: What of the receipts it gives is not true: `gas` or `status`.
    alters: str = ""
    traces: str = "real"
    url: str = ""
    calls: list[str] = field(default_factory=list[str])
    #: Blocks asked for, by number or tag.
    tags: list[str] = field(default_factory=list[str])
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def block(self, number: int, *, whole: bool) -> dict[str, Any] | None:
        """Return a block of its chain, which all share unless `branch` differs."""
        if number > self.height:
            return None
        age_s = 3600 if self.how == "stale" else (self.height - number) * 2
        transaction = "0x" + hashlib.sha256(f"tx {number}".encode()).hexdigest()
        sent = {"hash": transaction, "from": "0x" + "01" * 20, "gas": "0x1", "value": "0x0"}
        branch = self.branch if number > self.common else 0
        return {
            "number": hex(number),
            "hash": "0x" + hashlib.sha256(f"{number} {branch}".encode()).hexdigest(),
            "parentHash": "0x" + "00" * 32,
            "timestamp": hex(self.clock.at - age_s),
            "gasLimit": "0x1",
            "gasUsed": "0x1",
            "transactions": [sent | {"input": "0x"}] if whole else [transaction],
        }

    def receipts(self, number: int) -> list[dict[str, Any]] | None:
        """Return the receipts of a block."""
        block = self.block(number, whole=False)
        if block is None:
            return None
        return [
            {
                "transactionHash": block["transactions"][0],
                "transactionIndex": "0x0",
                "blockHash": block["hash"],
                "blockNumber": block["number"],
                "gasUsed": "0x2" if self.alters == "gas" else "0x1",
                "cumulativeGasUsed": "0x1",
                "status": "0x0" if self.alters == "status" else "0x1",
                "logs": [],
            }
        ]

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one call."""
        method, params = call["method"], call.get("params", [])
        self.calls.append(method)
        result: Any = None
        match method:
            case "eth_chainId":
                result = hex(1 if self.how == "wrong_chain" else CHAIN_ID)
            case "eth_blockNumber":
                result = hex(self.height)
            case "eth_getBlockByNumber":
                tag = params[0]
                self.tags.append(tag)
                depth = {"safe": 10, "finalized": 20}.get(tag, 0)
                number = self.height - depth if not tag.startswith("0x") else int(tag, 16)
                result = self.block(number, whole=params[1])
            case "eth_getBlockReceipts":
                result = self.receipts(int(params[0], 16))
            case "debug_traceBlockByNumber":
                result = [{}]
            case "eth_syncing":
                result = False
            case "eth_getBalance":
                result = "0x0"
            case "debug_traceTransaction" if self.traces == "real":
                result = {"type": "CALL", "from": "0x" + "01" * 20, "gasUsed": "0x1"}
            case "debug_traceTransaction" if self.traces == "empty":
                result = {"gas": 0, "failed": False, "returnValue": "", "structLogs": []}
            case _:
                error = {"code": -32601, "message": "the method does not exist"}
                return {"jsonrpc": "2.0", "id": call["id"], "error": error}
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, or do not."""
        body: Any = orjson.loads(await request.read())
        match self.how:
            case "hang":
                await self.released.wait()
                return web.Response(status=503)
            case "limit":
                return web.Response(status=429, headers={"Retry-After": "7"})
            case "limit_in_words":
                error = {"code": -32005, "message": "limit exceeded"}
                return web.json_response({"jsonrpc": "2.0", "id": 1, "error": error})
            case "broken":
                return web.Response(status=502, text="<html>")
            case "words":
                return web.Response(text="welcome")
            case "shape":
                return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}})
            case "refused":
                error = {"code": -32099, "message": "not for you"}
                return web.json_response({"jsonrpc": "2.0", "id": 1, "error": error})
            case _:
                pass
        calls = cast("list[dict[str, Any]]", body if isinstance(body, list) else [body])
        answers = [self.answer(one) for one in calls]
        found: Any = answers if isinstance(body, list) else answers[0]
        return web.Response(body=orjson.dumps(found), content_type="application/json")


@asynccontextmanager
async def nodes(clock: Any, *hows: str) -> AsyncGenerator[list[Node]]:
    """Run so many providers."""
    made = [Node(clock, how) for how in hows]
    runners: list[web.AppRunner] = []
    try:
        for node in made:
            served = web.Application()
            served.router.add_post("/", node.serve)
            runner = web.AppRunner(served, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            node.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield made
    finally:
        for node in made:
            node.released.set()
        for runner in runners:
            await runner.cleanup()
