"""A node that serves the recorded chain over JSON-RPC: a process of its own.

    python -m bench.chain.node BLOCKS

prints its address when it is ready. It holds everything as finished JSON, so that it is never what
is measured. Besides Ethereum's methods it knows `bench_set` (`{"head": 10}` or `{"fork_above": 5}`:
other blocks above that one), `bench_counts` and `bench_totals`.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvloop
from aiohttp import web

from bench.chain.blocks import CHAIN_ID, MIXED, NOTED, TOKEN, TRANSFER, Recorded, make_block

#: Blocks below the head that are final.
FINALITY = 64


class Node:
    """The chain and what was asked of it."""

    def __init__(self, blocks: int) -> None:
        self._blocks: list[Recorded] = []
        self._by_hash: dict[str, Recorded] = {}
        self._forks = 0
        self.extend(blocks)
        self.head = blocks
        self.requests = 0
        self.calls: dict[str, int] = {}

    def extend(self, to: int, fork: int = 0) -> None:
        """Make blocks up to this one."""
        while len(self._blocks) <= to:
            parent = self._blocks[-1].hash if self._blocks else "0x" + "0" * 64
            made = make_block(len(self._blocks), fork, parent)
            self._blocks.append(made)
            self._by_hash[made.hash] = made

    def totals(self, first: int, last: int) -> dict[str, Any]:
        """Return what an index of these blocks must come to."""
        part = self._blocks[first : last + 1]
        return {
            "transfers": sum(b.token_logs.count(b'"address"') for b in part),
            "noted": sum(b.mixed_logs.count(b'"address"') for b in part),
            "value": str(sum(b.total for b in part)),
        }

    def _set(self, change: dict[str, int]) -> bool:
        if "fork_above" in change:
            self._forks += 1
            height = len(self._blocks) - 1
            for old in self._blocks[change["fork_above"] + 1 :]:
                del self._by_hash[old.hash]
            del self._blocks[change["fork_above"] + 1 :]
            self.extend(height, self._forks)
        if "head" in change:
            self.extend(change["head"], self._forks)
            self.head = change["head"]
        return True

    def _at(self, place: str) -> Recorded | None:
        number = {
            "latest": self.head,
            "pending": self.head,
            "safe": max(0, self.head - FINALITY),
            "finalized": max(0, self.head - FINALITY),
            "earliest": 0,
        }.get(place)
        number = int(place, 16) if number is None else number
        return self._blocks[number] if number <= self.head else None

    def answer(self, method: str, params: list[Any]) -> bytes:
        """Return the result as JSON."""
        self.calls[method] = self.calls.get(method, 0) + 1
        match method:
            case "eth_getLogs":
                return self._logs(params[0])
            case "eth_getBlockByNumber" | "eth_getBlockByHash":
                block = (
                    self._by_hash.get(params[0]) if method[-4:] == "Hash" else self._at(params[0])
                )
                if block is None:
                    return b"null"
                return block.full if params[1] else block.header
            case "eth_blockNumber":
                return orjson.dumps(hex(self.head))
            case "eth_chainId":
                return orjson.dumps(hex(CHAIN_ID))
            case "bench_set":
                return orjson.dumps(self._set(params[0]))
            case "bench_counts":
                found = {"requests": self.requests, "calls": self.calls}
                self.requests, self.calls = 0, {}
                return orjson.dumps(found)
            case "bench_totals":
                return orjson.dumps(self.totals(*params))
            case _:
                raise LookupError(method)

    def _logs(self, wanted: dict[str, Any]) -> bytes:
        if "blockHash" in wanted:
            one = self._by_hash.get(wanted["blockHash"])
            if one is None:
                raise LookupError("unknown block")
            blocks = [one]
        else:
            first, last = (self._at(wanted[name]) for name in ("fromBlock", "toBlock"))
            if first is None:
                return b"[]"
            end = last.number if last else self.head
            blocks = self._blocks[first.number : end + 1]
        addresses = wanted.get("address") or [TOKEN, MIXED]
        addresses = [addresses] if isinstance(addresses, str) else addresses
        topics = (wanted.get("topics") or [None])[0] or [TRANSFER, NOTED]
        topics = [topics] if isinstance(topics, str) else topics
        parts: list[bytes] = []
        lower = {address.lower() for address in addresses}
        token = TOKEN in lower and TRANSFER in topics
        mixed = MIXED in lower and NOTED in topics
        for block in blocks:
            if token and block.token_logs:
                parts.append(block.token_logs)
            if mixed and block.mixed_logs:
                parts.append(block.mixed_logs)
        return b"[" + b",".join(parts) + b"]"

    def reply(self, call: dict[str, Any]) -> bytes:
        """Return the whole reply to one call."""
        start = b'{"jsonrpc":"2.0","id":' + orjson.dumps(call.get("id"))
        try:
            result = self.answer(call["method"], call.get("params") or [])
        except LookupError as error:
            text = orjson.dumps({"code": -32601, "message": f"not served: {error}"})
            return start + b',"error":' + text + b"}"
        return start + b',"result":' + result + b"}"

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one HTTP request."""
        self.requests += 1
        body = orjson.loads(await request.read())
        if isinstance(body, list):
            answer = b"[" + b",".join(self.reply(one) for one in body) + b"]"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        else:
            answer = self.reply(body)
        return web.Response(body=answer, content_type="application/json")


async def serve(blocks: int) -> None:
    """Serve until the input ends."""
    node = Node(blocks)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/", node.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    import asyncio

    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
