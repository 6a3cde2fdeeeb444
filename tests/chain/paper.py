"""A chain on paper: blocks in memory, served over JSON-RPC by endpoints that may differ.

Blocks form a tree; each endpoint has a head of its own and serves the branch below it, with true
hashes of parents, blooms of the logs and receipts. Reorganising is pointing at another block.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web
from eth_hash.auto import keccak

from causeway.chains.evm.bloom import bloom_bits

CHAIN_ID = 77_001
CONTRACT = "0x" + "c0" * 20
OTHER = "0x" + "0f" * 20
#: Makes the contracts after it.
FACTORY = "0x" + "fa" * 20
CHILDREN = tuple("0x" + f"c{number:x}" * 20 for number in range(1, 5))
FIRST_TIME = 1_700_000_000
_MANY = 10_000


@dataclass(frozen=True)
class Event:
    """A transaction of the paper chain: it emits one log, wherever it is mined."""

    hash: str
    topics: tuple[str, ...]
    data: str
    address: str = CONTRACT


@dataclass(frozen=True)
class PaperBlock:
    """One block."""

    number: int
    hash: str
    parent: str
    events: tuple[Event, ...]
    bloom: int = field(repr=False)

    @property
    def header(self) -> dict[str, Any]:
        """The header, with its transactions."""
        return {
            "number": hex(self.number),
            "hash": self.hash,
            "parentHash": self.parent,
            "timestamp": hex(FIRST_TIME + self.number),
            "gasLimit": hex(30_000_000),
            "gasUsed": hex(21_000 * len(self.events)),
            "logsBloom": f"0x{self.bloom:0512x}",
            "transactions": [
                {
                    "hash": one.hash,
                    "from": "0x" + "a1" * 20,
                    "to": one.address,
                    "gas": hex(50_000),
                    "value": "0x0",
                    "input": "0x",
                    "transactionIndex": hex(at),
                }
                for at, one in enumerate(self.events)
            ],
        }

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The logs, in their order."""
        return [
            {
                "address": one.address,
                "topics": list(one.topics),
                "data": one.data,
                "blockNumber": hex(self.number),
                "blockHash": self.hash,
                "transactionHash": one.hash,
                "transactionIndex": hex(at),
                "logIndex": hex(at),
                "removed": False,
            }
            for at, one in enumerate(self.events)
        ]

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """The receipts, in their order."""
        return [
            {
                "transactionHash": log["transactionHash"],
                "blockHash": self.hash,
                "blockNumber": hex(self.number),
                "transactionIndex": hex(at),
                "status": "0x1",
                "gasUsed": hex(21_000),
                "cumulativeGasUsed": hex(21_000 * (at + 1)),
                "effectiveGasPrice": hex(10**9),
                "logs": [log],
            }
            for at, log in enumerate(self.logs)
        ]


class PaperChain:
    """The tree of blocks and what each endpoint sees of it."""

    def __init__(self, endpoints: int = 2) -> None:
        self._salts = count()
        self.blocks: dict[str, PaperBlock] = {}
        genesis = self._made(-1, "0x" + "0" * 64, ())
        self.heads = [genesis.hash] * endpoints
        #: Nothing up to this block is ever replaced.
        self.final = 0
        self.requests = 0
        #: What happens once, right before (or after) the next question for logs is answered.
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.answer_first = False
        #: Endpoints and blocks whose logs they do not give.
        self.hidden: set[tuple[int, int]] = set()

    def branch(self, head: str) -> list[PaperBlock]:
        """Return the blocks from the first to this one."""
        found: list[PaperBlock] = []
        at: PaperBlock | None = self.blocks[head]
        while at is not None:
            found.append(at)
            at = self.blocks.get(at.parent)
        return found[::-1]

    def head(self, endpoint: int = 0) -> PaperBlock:
        """Return the newest block of an endpoint."""
        return self.blocks[self.heads[endpoint]]

    def mine(self, events: Sequence[Event], *, on: str | None = None) -> PaperBlock:
        """Make a block on top of a block, of the first endpoint's head when none is given."""
        parent = self.blocks[on or self.heads[0]]
        return self._made(parent.number, parent.hash, tuple(events))

    def _made(self, number: int, parent: str, events: tuple[Event, ...]) -> PaperBlock:
        salt = next(self._salts)
        bloom = 0
        for event in events:
            for item in (event.address, *event.topics):
                bloom |= bloom_bits(bytes.fromhex(item[2:]))
        block_hash = "0x" + keccak(f"{parent} {salt}".encode()).hex()
        made = PaperBlock(number + 1, block_hash, parent, events, bloom)
        self.blocks[made.hash] = made
        return made

    # JSON-RPC

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one HTTP request; the path says which endpoint."""
        self.requests += 1
        endpoint = int(request.path.strip("/"))
        body: Any = json.loads(await request.read())
        happens = self.meanwhile if b"eth_getLogs" in await request.read() else None
        if happens is not None:
            self.meanwhile = None
        if happens is not None and not self.answer_first:
            await happens()
        view = self.branch(self.heads[endpoint])
        if isinstance(body, list):
            answer: Any = [self._reply(endpoint, view, call) for call in body]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        else:
            answer = self._reply(endpoint, view, body)
        if happens is not None and self.answer_first:
            await happens()
        return web.json_response(answer)

    def _reply(self, endpoint: int, view: list[PaperBlock], call: dict[str, Any]) -> dict[str, Any]:
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            result = self._result(view, call["method"], call["params"])
            if call["method"] == "eth_getLogs":
                result = [
                    log
                    for log in self._logs(view, call["params"][0])
                    if (endpoint, int(log["blockNumber"], 16)) not in self.hidden
                ]
            return reply | {"result": result}
        except LookupError as error:
            return reply | {"error": {"code": -32000, "message": str(error.args[0])}}

    def _result(self, view: list[PaperBlock], method: str, params: list[Any]) -> object:
        match method:
            case "eth_chainId":
                return hex(CHAIN_ID)
            case "eth_getBlockByNumber":
                block = self._at(view, params[0])
                return None if block is None else self._header(block, whole=params[1])
            case "eth_getBlockByHash":
                block = self._at(view, params[0])
                return None if block is None else self._header(block, whole=params[1])
            case "eth_getBlockReceipts":
                block = self._at(view, params[0])
                return None if block is None else block.receipts
            case "eth_getLogs":
                return []  # see above
            case "debug_traceBlockByHash":
                block = self._at(view, params[0])
                if block is None:
                    raise LookupError("block not found")
                return [self._traced(one) for one in block.events]
            case _:
                raise LookupError(f"the method {method} does not exist")

    @staticmethod
    def _header(block: PaperBlock, *, whole: bool) -> dict[str, Any]:
        header = block.header
        if not whole:
            header["transactions"] = [one["hash"] for one in header["transactions"]]
        return header

    @staticmethod
    def _traced(event: Event) -> dict[str, Any]:
        frame = {"type": "CALL", "from": "0x" + "a1" * 20, "to": event.address, "input": event.data}
        return {"txHash": event.hash, "result": frame}

    def _at(self, view: list[PaperBlock], place: str) -> PaperBlock | None:
        if place in ("latest", "pending"):
            return view[-1]
        if place in ("safe", "finalized"):
            return view[min(self.final, len(view) - 1)]
        if len(place) == 66:
            return next((one for one in view if one.hash == place), None)
        number = int(place, 16)
        return view[number] if number < len(view) else None

    def _logs(self, view: list[PaperBlock], wanted: dict[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in wanted:
            blocks = [one for one in view if one.hash == wanted["blockHash"]]
            if not blocks:
                raise LookupError("unknown block")
        else:
            first, last = (int(wanted[name], 16) for name in ("fromBlock", "toBlock"))
            blocks = view[first : last + 1]
        addresses = wanted.get("address") or [CONTRACT, OTHER]
        topics = (wanted.get("topics") or [None])[0]
        found = [
            log
            for block in blocks
            for log in block.logs
            if log["address"] in addresses and (topics is None or log["topics"][0] in topics)
        ]
        if len(found) > _MANY:
            raise LookupError("query returned more than 10000 results")
        return found


@asynccontextmanager
async def served(chain: PaperChain) -> AsyncGenerator[list[str]]:
    """Serve a chain; give the addresses of its endpoints."""
    app = web.Application()
    app.router.add_post("/{endpoint}", chain.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield [f"http://{host}:{port}/{number}" for number in range(len(chain.heads))]
    finally:
        await runner.cleanup()
