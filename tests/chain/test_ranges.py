"""Logs of a range from a node that lies: they are the true ones, or there is an error.

The node is a chain on paper whose answers are changed on their way, as badly kept nodes change
them: logs left out, doubled, out of order, of other blocks, headers with other blooms, null instead
of blocks and receipts. Another endpoint is honest, or there is none.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp import web

from causeway.base.errors import TransientError
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import RpcError, WrongAnswer
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from causeway.chains.report import report
from tests.chain.ledger import put
from tests.chain.paper import CHAIN_ID, CONTRACT, OTHER, Event, PaperChain, served

BLOCKS = 12
Lie = Callable[[str, Any], Any]


def a_chain() -> PaperChain:
    """Return a chain of blocks with none to three logs, the first of them of the contract.

    One, because of several logs of one event in one block a bloom does not tell that one is
    missing: nodes lose blocks of logs, not one of two.
    """
    paper = PaperChain(1)
    head = paper.heads[0]
    number = 0
    for block in range(BLOCKS):
        events: list[Event] = []
        for at in range(block % 4):
            number += 1
            call = put(number, number)
            topics = ("0x" + call[2:66], "0x" + call[66:130])
            where = OTHER if at else CONTRACT
            events.append(Event(f"0x{number:064x}", topics, "0x" + call[130:], where))
        head = paper.mine(events, on=head).hash
    paper.heads = [head]
    return paper


def truth(paper: PaperChain) -> list[tuple[int, int, str]]:
    """Return the true logs of the contract: block, index and data."""
    return [
        (block.number, int(log["logIndex"], 16), log["data"])
        for block in paper.branch(paper.heads[0])
        for log in block.logs
        if log["address"] == CONTRACT
    ]


@asynccontextmanager
async def liar(target: str, lie: Lie) -> AsyncGenerator[str]:
    """Serve a node whose results go through `lie(method, result)`; give its address."""

    async def handle(request: web.Request) -> web.Response:
        sent: Any = orjson.loads(await request.read())
        calls = cast("list[Any]", sent if isinstance(sent, list) else [sent])
        async with http.post(target, json=sent) as answer:
            said: Any = await answer.json()
        replies = cast("list[Any]", said if isinstance(said, list) else [said])
        for call, reply in zip(calls, replies, strict=True):
            if "result" in reply and call["method"] != "eth_chainId":
                reply["result"] = lie(call["method"], reply["result"])
        return web.json_response(said)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession() as http:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
        await runner.cleanup()


@asynccontextmanager
async def chain_through(lie: Lie, *, honest: bool) -> AsyncGenerator[tuple[EvmChain, PaperChain]]:
    """Give a chain that is read from a liar first, and from an honest endpoint or from nobody."""
    paper = a_chain()
    async with served(paper) as urls, liar(urls[0], lie) as lying:
        places = [lying, *(urls if honest else [])]
        endpoints = [Endpoint(SecretUrl(url), f"node{n}") for n, url in enumerate(places)]
        chain = EvmChain("paper", CHAIN_ID, ProviderPool(endpoints, timeout_s=5))
        yield chain, paper
        await chain.close()


async def read(chain: EvmChain) -> list[tuple[int, int, str]]:
    """Return the contract's logs of the whole chain, as the reader of ranges gives them."""
    wanted = LogFilter((CONTRACT,), (put(0, 0)[:66],))
    found = await chain.read_range([wanted], 1, BLOCKS)
    return [
        (number, int(wire.log_index, 16), wire.data)
        for number, wires in found.logs.items()
        for wire in wires
    ]


def is_log_answer(method: str) -> bool:
    return method == "eth_getLogs"


def without_a_log(method: str, result: Any) -> Any:
    return result[1:] if is_log_answer(method) else result


def empty(method: str, result: Any) -> Any:
    return [] if is_log_answer(method) else result


def backwards_and_twice(method: str, result: Any) -> Any:
    return result[::-1] * 2 if is_log_answer(method) else result


def of_another_block(method: str, result: Any) -> Any:
    if is_log_answer(method) and result:
        result[0] = result[0] | {"blockHash": "0x" + "ee" * 32}
    return result


def moved(method: str, result: Any) -> Any:
    """Put a log into another block, its hash included."""
    if is_log_answer(method) and len(result) > 1:
        place = {key: result[-1][key] for key in ("blockNumber", "blockHash")}
        result[0] = result[0] | place | {"logIndex": "0x9"}
    return result


def forged(method: str, result: Any) -> Any:
    """Add a log that never was."""
    if is_log_answer(method) and result:
        topics = [result[0]["topics"][0], "0x" + "77" * 32]
        result.append(result[-1] | {"topics": topics, "logIndex": "0x8"})
    return result


def other_bloom(method: str, result: Any) -> Any:
    return result | {"logsBloom": "0x" + "00" * 256} if "Block" in method and result else result


def null_blocks(method: str, result: Any) -> Any:
    return None if method == "eth_getBlockByNumber" else result


def unlinked(method: str, result: Any) -> Any:
    if method == "eth_getBlockByNumber" and result and result["number"] == "0x5":
        return result | {"parentHash": "0x" + "dd" * 32}
    return result


LIES: list[Lie] = [
    without_a_log,
    empty,
    of_another_block,
    moved,
    forged,
    null_blocks,
    unlinked,
]


def name_of(lie: Lie) -> str:
    return getattr(lie, "__name__", "lie")


@pytest.mark.parametrize("lie", [*LIES, backwards_and_twice, other_bloom], ids=name_of)
async def test_with_an_honest_endpoint_the_true_logs_come(lie: Lie) -> None:
    async with chain_through(lie, honest=True) as (chain, paper):
        assert await read(chain) == truth(paper)


@pytest.mark.parametrize("lie", [*LIES, other_bloom], ids=name_of)
async def test_alone_with_a_liar_there_are_true_logs_or_an_error(lie: Lie) -> None:
    async with chain_through(lie, honest=False) as (chain, paper):
        try:
            found = await read(chain)
        except (TransientError, RpcError):
            return  # nothing was given
        assert found == truth(paper)


async def test_order_and_doubles_are_put_right() -> None:
    async with chain_through(backwards_and_twice, honest=False) as (chain, paper):
        assert await read(chain) == truth(paper)


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (of_another_block, "wrong_another_fork"),
        (forged, "wrong_bloom_denies"),
        (unlinked, "wrong_broken_chain"),
    ],
    ids=lambda one: name_of(one) if callable(one) else one,
)
async def test_the_liar_is_named_with_its_lie(lie: Lie, kind: str) -> None:
    async with chain_through(lie, honest=True) as (chain, _):
        await read(chain)
        first, second = report(chain.pool)
        failures = {kind for one in first.methods for kind in one.failures}
        assert kind in failures
        assert not any(one.failures for one in second.methods)


async def test_a_header_that_promises_nothing_hides_no_log() -> None:
    async with chain_through(other_bloom, honest=False) as (chain, _):
        with pytest.raises(WrongAnswer):
            await read(chain)


def mutilated(seed: int) -> Lie:
    """Return a lie that changes a few things at random, in logs, headers and receipts."""
    chance = random.Random(seed)

    def lie(method: str, result: Any) -> Any:
        if chance.random() < 0.5 or result is None:
            return result
        if isinstance(result, list):
            return mutilated_list(chance, cast("list[Any]", result))
        if result["number"] == "0x0":
            return result  # by its first block an endpoint says whose it is; the first is believed
        field = chance.choice(["logsBloom", "hash", "parentHash", "number"])
        if field not in result or chance.random() < 0.5:
            return None if chance.random() < 0.2 else result
        return result | {field: altered(chance, result[field])}

    return lie


def mutilated_list(chance: random.Random, items: list[Any]) -> Any:
    """Return logs or receipts with something wrong."""
    if not items or chance.random() < 0.1:
        return None if chance.random() < 0.3 else []
    items = [dict(one) for one in items]
    for _ in range(chance.randint(1, 3)):
        if not items:
            break
        at = chance.randrange(len(items))
        match chance.randrange(5):
            case 0:
                del items[at]
            case 1:
                items.insert(at, dict(chance.choice(items)))
            case 2:
                chance.shuffle(items)
            case 3:
                key = chance.choice(["blockHash", "blockNumber", "logIndex", "address"])
                if key in items[at]:
                    items[at][key] = altered(chance, items[at][key])
            case _:
                if items[at].get("topics"):
                    topics = list(items[at]["topics"])
                    topics[-1] = altered(chance, topics[-1])
                    items[at]["topics"] = topics
    return items


def altered(chance: random.Random, text: str) -> str:
    """Return hex text with one digit changed."""
    at = chance.randrange(2, len(text))
    return text[:at] + chance.choice("0123456789abcdef") + text[at + 1 :]


async def lies(seeds: range) -> int:
    """Try random lies, alone and beside an honest endpoint; return how often there were logs."""
    given = 0
    for seed in seeds:
        honest = bool(seed % 2)
        async with chain_through(mutilated(seed), honest=honest) as (chain, paper):
            # A reader comes again; beside an honest endpoint it is not for long.
            found: list[tuple[int, int, str]] | None = None
            for _ in range(20 if honest else 1):
                try:
                    found = await read(chain)
                    break
                except (TransientError, RpcError):
                    continue
            if found is None:
                assert not honest, seed
                continue
            # Where a log stands in its block, and its data, no bloom proves.
            places = [(number, index) for number, index, _ in found]
            assert [number for number, _ in places] == [one[0] for one in truth(paper)], seed
            given += 1
    return given


async def test_no_random_lie_makes_a_log_too_many_or_too_few() -> None:
    assert await lies(range(40)) >= 15


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_no_random_lie_of_thousands_makes_a_log_too_many_or_too_few() -> None:
    assert await lies(range(1000, 4000)) >= 1500
