"""The node: an engine, a ledger, and the server that speaks JSON-RPC and WebSockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import structlog
from aiohttp import WSMsgType, web

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.sandbox.starknet import engine as engines
from causeway.sandbox.starknet import wire
from causeway.sandbox.starknet.engine import Engine
from causeway.sandbox.starknet.ledger import Block, Ledger, Refused
from causeway.sandbox.starknet.methods import Methods, said

_log = structlog.get_logger(__name__)

SN_SEPOLIA = 0x534E5F5345504F4C4941


class StarknetNode:
    """A local Starknet on a port of its own.

    `devnet_createBlock`, `devnet_abortBlocks` and `devnet_setTime` are those of starknet-devnet, so
    that the same tests run on either.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        chain_id: int = SN_SEPOLIA,
        pages: random.Random | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.engine = engine
        self.ledger = Ledger(self.engine, chain_id, clock)
        self.methods = Methods(self.ledger, pages)
        #: Called with the name of each method before it is answered; may wait, or raise `Refused`.
        self.before: Callable[[str], None] = lambda _: None
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._sockets: dict[int, tuple[web.WebSocketResponse, str]] = {}
        self._ids = itertools.count(1)
        self._sending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def ws_url(self) -> str:
        """Where it tells of new heads."""
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self) -> None:
        """Begin a chain and serve it."""
        await self.engine.ask("begin", chain_id=hex(self.ledger.chain_id))
        self.ledger.sealed.append(self._tell_head)
        self.ledger.replaced.append(self._tell_reorg)
        await self.ledger.start()
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/", self._post)
        app.router.add_get("/ws", self._websocket)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving; the engine goes on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def seal(self) -> Block:
        """Close the block that is being made."""
        async with self._turn:
            return await self.ledger.seal()

    async def reorganise(self, depth: int, *, blocks: int | None = None) -> None:
        """Replace the newest `depth` blocks by empty ones: as many, or `blocks`."""
        async with self._turn:
            await self.ledger.abort(self.ledger.newest.number - depth + 1)
            for _ in range(depth if blocks is None else blocks):
                await self.ledger.seal()

    async def answer(self, method: str, params: object) -> Any:
        """Return the result of a call; raises `Refused`."""
        self.before(method)
        async with self._turn:
            if method.startswith("devnet_"):
                return await self._devnet(method, cast("Any", params))
            return await self.methods.answer(method, params)

    async def _devnet(self, method: str, params: Any) -> Any:
        listed = cast("list[Any]", params if isinstance(params, list) else [params or {}])
        given: dict[str, Any] = listed[0] if listed else {}
        if method == "devnet_createBlock":
            return {"block_hash": (await self.ledger.seal()).hash}
        if method == "devnet_abortBlocks":
            block = self.ledger.at(wire.block_id(given["starting_block_id"]))
            gone = [] if block is None else self.ledger.blocks[block.number :]
            if block is not None:
                await self.ledger.abort(block.number)
            return {"aborted": [one.hash for one in reversed(gone)]}
        if method == "devnet_setTime":
            self.ledger.next_time = int(given["time"])
            return {"block_timestamp": self.ledger.next_time}
        raise Refused(-32601, f"Method not found: {method}")

    # HTTP

    async def _post(self, request: web.Request) -> web.Response:
        try:
            asked = json.loads(await request.text())
        except ValueError:
            return web.json_response(_error(None, Refused(-32700, "Parse error")))
        if isinstance(asked, list):
            many = cast("list[Any]", asked)
            if not many:
                return web.json_response(_error(None, Refused(-32600, "Invalid Request")))
            return web.json_response([await self._one(one) for one in many])
        return web.json_response(await self._one(asked))

    async def _one(self, asked: Any) -> dict[str, Any]:
        if not isinstance(asked, dict):
            return _error(None, Refused(-32600, "Invalid Request"))
        request = cast("dict[str, Any]", asked)
        number = request.get("id")
        if request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
            return _error(number, Refused(-32600, "Invalid Request"))
        try:
            result = await self.answer(request["method"], request.get("params", []))
        except Refused as refused:
            return _error(number, refused)
        except Exception as error:  # noqa: BLE001 - a node that fails says so and goes on
            _log.exception("the local Starknet failed", method=request["method"])
            failed = Refused(-32603, f"Internal error: {type(error).__name__}: {error}")
            return _error(number, failed)
        return {"jsonrpc": "2.0", "id": number, "result": result}

    # WebSockets

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=30)
        await socket.prepare(request)
        mine: set[int] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_json(await self._spoken(socket, mine, message.data))
        finally:
            for number in mine:
                self._sockets.pop(number, None)
        return socket

    async def _spoken(
        self, socket: web.WebSocketResponse, mine: set[int], text: str
    ) -> dict[str, Any]:
        try:
            asked = json.loads(text)
        except ValueError:
            return _error(None, Refused(-32700, "Parse error"))
        if not isinstance(asked, dict):
            return _error(None, Refused(-32600, "Invalid Request"))
        request = cast("dict[str, Any]", asked)
        method = request.get("method")
        if method == "starknet_subscribeNewHeads":
            number = next(self._ids)
            self._sockets[number] = (socket, "heads")
            mine.add(number)
            return {"jsonrpc": "2.0", "id": request.get("id"), "result": str(number)}
        if method == "starknet_unsubscribe":
            wanted = str(request.get("params", {}).get("subscription_id"))
            if not wanted.isdigit() or int(wanted) not in mine:
                return _error(request.get("id"), Refused(66, "Invalid subscription id"))
            mine.discard(int(wanted))
            self._sockets.pop(int(wanted), None)
            return {"jsonrpc": "2.0", "id": request.get("id"), "result": True}
        return await self._one(request)

    def _tell_head(self, block: Block) -> None:
        self._tell("starknet_subscriptionNewHeads", said(block.header(), wire.Header))

    def _tell_reorg(self, reorg: wire.Reorg) -> None:
        self._tell("starknet_subscriptionReorg", reorg)

    def _tell(self, method: str, result: Any) -> None:
        for number, (socket, _) in list(self._sockets.items()):
            params = {"subscription_id": str(number), "result": msgspec.to_builtins(result)}
            task = asyncio.create_task(_send(socket, method, params))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


async def _send(socket: web.WebSocketResponse, method: str, params: dict[str, Any]) -> None:
    if not socket.closed:
        await socket.send_json({"jsonrpc": "2.0", "method": method, "params": params})


def _error(number: object, refused: Refused) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.data is not None:
        error["data"] = refused.data
    return {"jsonrpc": "2.0", "id": number, "error": error}


@asynccontextmanager
async def running(
    *,
    engine: Engine | None = None,
    pages: random.Random | None = None,
    chain_id: int = SN_SEPOLIA,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncGenerator[StarknetNode]:
    """Run a node on an engine that is running, or on one of its own.

    The engine is installed first where it is not there; raises `ConfigurationError` when it cannot
    be.
    """
    used = engine
    if used is None:
        used = Engine(await engines.install())
        used.start()
    node = StarknetNode(used, chain_id=chain_id, pages=pages, clock=clock)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
        if engine is None:
            await asyncio.to_thread(used.stop)
