"""A provider that fails while a chain is indexed: how soon the other one is read, and how fast.

Two endpoints serve one recorded chain; the preferred one is well for a third of the blocks and ill
from then on. For each illness:

switch_s     from its beginning to the next commit
blocks_per_s while it lasts, beside `well_blocks_per_s` of the same run before it

`stale` stays at a block, `incoherent` has a head and lacks blocks below it. Rows are counted at the
end of each. `BLOCKS=300` for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson
from aiohttp import web
from rich.console import Console
from sqlalchemy import text

from bench.chain.blocks import CHAIN_ID, TRANSFERS
from bench.chain.contender import prepare, source
from bench.indexing import node
from causeway.base import logging
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.indexing.indexer import Indexer
from causeway.sandbox.rpc_proxy import other_fork
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

BLOCKS = int(os.environ.get("BLOCKS", "1500"))
ABOVE = 64
FAULTS = (
    "hang",
    "slow_drip",
    "429",
    "429_retry_after",
    "500",
    "wrong_chain",
    "stale",
    "incoherent",
    "forked",
    "truncated",
    "connection_reset",
)
_err = Console(stderr=True)


class Ill:
    """A provider before a node, well until `fault` is set."""

    def __init__(self, target: str, chain_id: int) -> None:
        self.url = ""
        self.fault: str | None = None
        self.requests = 0
        #: The newest block it has when it is stale, and the last true one when it is forked.
        self.at = 0
        self._target = target
        self._chain_id = chain_id
        self.http: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request."""
        if self.http is None or request.transport is None:
            raise RuntimeError("the provider does not run")
        sent = await request.read()
        self.requests += 1
        match self.fault:
            case "hang":
                await asyncio.sleep(3600)
            case "429":
                return web.Response(status=429)
            case "429_retry_after":
                return web.Response(status=429, headers={"retry-after": "5"})
            case "500":
                return web.Response(status=500, text="<html>oh no</html>")
            case "connection_reset":
                request.transport.abort()
                return web.Response()
            case _:
                pass
        if self.fault == "stale":
            sent = sent.replace(b'"latest"', f'"{hex(self.at)}"'.encode())
            sent = sent.replace(b'"finalized"', f'"{hex(max(0, self.at - 64))}"'.encode())
        headers = {"content-type": "application/json"}
        async with self.http.post(self._target, data=sent, headers=headers) as answer:
            body = await answer.read()
        if self.fault == "truncated":
            body = body[: len(body) // 2]
        elif self.fault in ("wrong_chain", "forked", "stale", "incoherent"):
            body = self._false(sent, body)
        if self.fault != "slow_drip":
            return web.Response(body=body, content_type="application/json")
        dripping = web.StreamResponse(headers=headers)
        await dripping.prepare(request)
        for at in range(len(body)):
            await dripping.write(body[at : at + 1])
            await asyncio.sleep(0.05)
        return dripping

    def _false(self, sent: bytes, body: bytes) -> bytes:
        """Return an answer as a node on another chain or fork, or behind, would give it."""
        if self.fault == "forked":
            return orjson.dumps(other_fork(orjson.loads(body), self.at))
        if self.fault == "wrong_chain":
            found = orjson.dumps(other_fork(orjson.loads(body), -1))
            return found.replace(hex(self._chain_id).encode(), b"0x1")
        asked: Any = orjson.loads(sent)
        said: Any = orjson.loads(body)
        calls = cast("list[dict[str, Any]]", asked if isinstance(asked, list) else [asked])
        replies = cast("list[dict[str, Any]]", said if isinstance(said, list) else [said])
        for call, reply in zip(calls, replies, strict=True):
            place = call["params"][0] if call["params"] else None
            if call["method"] == "eth_getLogs":
                reply["result"] = [
                    one for one in reply["result"] if int(one["blockNumber"], 16) <= self.at
                ]
            elif isinstance(place, str) and place[:2] == "0x" and int(place, 16) > self.at:
                reply["result"] = None
        return orjson.dumps(said)


@asynccontextmanager
async def ill(target: str, chain_id: int = CHAIN_ID) -> AsyncGenerator[Ill]:
    """Run a provider before the node."""
    provider = Ill(target, chain_id)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/", provider.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession() as provider.http:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        provider.url = f"http://{host}:{port}/"
        try:
            yield provider
        finally:
            await runner.cleanup()


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("CRITICAL")
    figures: dict[str, Any] = {"blocks": BLOCKS}
    with tempfile.TemporaryDirectory() as folder, node(BLOCKS + ABOVE) as url:
        async with EmbeddedPostgres.open(Path(folder)) as server:
            for fault in FAULTS:
                figures[fault] = await one(fault, url, server.url)
                _err.print(f"{fault}: {figures[fault]}")
    return figures


async def one(fault: str, url: str, database_url: str) -> dict[str, float]:
    """Index the chain while the preferred provider falls ill."""
    database = Database(database_url)
    await prepare(database)
    async with ill(url) as provider:
        endpoints = [
            Endpoint(SecretUrl(provider.url), "ill"),
            Endpoint(SecretUrl(url), "well"),
        ]
        chain = EvmChain("bench", CHAIN_ID, ProviderPool(endpoints, timeout_s=10))
        indexer = Indexer(database, chain, source("tables"), max_range=50)
        indexer.read_ahead()
        began = time.perf_counter()
        applied, fell_ill, switched = 0, 0.0, 0.0
        ill_from = 0
        while applied < BLOCKS:
            if not fell_ill and applied >= BLOCKS // 3:
                provider.at = ill_from = applied
                provider.fault, fell_ill = fault, time.perf_counter()
            try:
                progress = await indexer.step()
            except Exception as error:  # noqa: BLE001 - as the reader itself goes on
                _err.print(f"  {fault}: {error}")
                await asyncio.sleep(0.2)
                continue
            applied = progress.applied_to.number if progress.applied_to else 0
            if fell_ill and not switched and applied > ill_from:
                switched = time.perf_counter() - fell_ill
        ended = time.perf_counter()
        await indexer.rest()
        await chain.close()
    async with database.transaction() as session:
        rows = await session.scalar(
            text("SELECT count(*) FROM bench.transfers WHERE block_number <= :last"),
            {"last": BLOCKS},
        )
    await database.close()
    if rows != BLOCKS * TRANSFERS:
        raise SystemExit(f"{fault}: {rows} rows, wanted {BLOCKS * TRANSFERS}")
    return {
        "switch_s": round(switched, 3),
        "blocks_per_s": round((applied - ill_from) / (ended - fell_ill)),
        "well_blocks_per_s": round(ill_from / (fell_ill - began)),
    }
