"""New heads over WebSocket: told at once, connected again, and never needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from causeway.chains.endpoint import SecretUrl
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.heads import HeadFeed
from causeway.indexing.indexer import Indexer
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import Book, Ledger, put, settle


def feed_of(anvil: AnvilNode) -> HeadFeed:
    """Return the feed of a node."""
    return HeadFeed(SecretUrl(anvil.url.replace("http", "ws"), ("ws", "wss")), "anvil")


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a function says true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        await asyncio.sleep(0.005)


async def test_each_new_head_is_told(anvil: AnvilNode, ledger: Ledger) -> None:
    told: list[float] = []
    task = asyncio.create_task(feed_of(anvil).run(lambda: told.append(time.monotonic())))
    await until(lambda: told)
    for _ in range(3):
        before = len(told)
        await ledger.mine(1)
        await until(lambda before=before: len(told) > before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_that_is_told_does_not_wait_for_its_next_look(
    database: Database, anvil: AnvilNode, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    await ledger.block(put(1, 1))
    source = book.source("ledger", ledger.address, 1)
    # It looks by itself once an hour.
    one = Indexer(database, chain, source, poll_interval_s=3600)
    await settle(one)
    facts: list[float] = []

    async def noted() -> None:
        facts.append(time.monotonic())

    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(one.run(stop, on_facts=noted)),
        asyncio.create_task(feed_of(anvil).run(one.wake)),
    ]
    try:
        await ledger.block(put(2, 2))
        await until(lambda: facts)
        for key in range(3, 6):
            before = len(facts)
            await ledger.block(put(key, key))
            await until(lambda before=before: len(facts) > before)
    finally:
        stop.set()
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(facts) == 4


async def test_a_feed_that_breaks_is_connected_again(anvil: AnvilNode) -> None:
    seen: list[int] = []
    hits = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hits
        hits += 1
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    feed = HeadFeed(SecretUrl(f"ws://127.0.0.1:{port}/?key=sesame", ("ws",)), "broken")
    assert "sesame" not in repr(feed)
    task = asyncio.create_task(feed.run(lambda: seen.append(1)))
    await until(lambda: hits >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
    await server.wait_closed()
    assert seen == []
