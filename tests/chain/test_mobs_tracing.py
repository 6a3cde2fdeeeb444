"""Failed transactions of a real node: read, stored, and explained in every way there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from eth_abi.abi import encode
from sqlalchemy import text

from causeway.apps.mobs.context import CHAIN, MobsContext, Services
from causeway.apps.mobs.packing import unpack
from causeway.apps.mobs.tracing import SUCCEEDS, request, step
from causeway.base.settings import KernelSettings
from causeway.chains.evm.blocks import full_blocks
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import SENDER, chain_at
from tests.chain.proxy import fault_proxy
from tests.mobs_blocks import scanner, settings

#: Code at an address: each fails in its way.
REVERTS, RUNS_OUT, INVALID, PASSES_ON, CATCHES, ONCE = ("0x" + f"{n:02x}" * 20 for n in range(1, 7))

CODES = {
    #: Reverts with all of its call data.
    REVERTS: "366000600037366000fd",
    #: Jumps for ever.
    RUNS_OUT: "5b600056",
    INVALID: "fe",
    #: Calls REVERTS with its own call data and reverts with what comes back.
    PASSES_ON: "3660006000376000600036600060007301010101010101010101010101010101010101015af1"
    "503d600060003e3d6000fd",
    #: The same, and then reverts without data.
    CATCHES: "3660006000376000600036600060007301010101010101010101010101010101010101015af1"
    "5060006000fd",
    #: Succeeds the first time; reverts afterwards.
    ONCE: "600054600a576001600055005b60006000fd",
}


def message(words: str) -> str:
    return "0x08c379a0" + encode(["string"], [words]).hex()


@pytest.fixture
async def node(anvil: AnvilNode) -> AnvilNode:
    for address, code in CODES.items():
        await anvil.rpc("anvil_setCode", address, "0x" + code)
    return anvil


async def fail(node: AnvilNode, *calls: tuple[str | None, str]) -> None:
    """Send transactions into one block."""
    await node.rpc("evm_setAutomine", False)
    for to, data in calls:
        call = {"from": SENDER, "gas": hex(200_000), "data": data}
        await node.rpc("eth_sendTransaction", call | ({"to": to} if to else {}))
    await node.mine(1)
    await node.rpc("evm_setAutomine", True)


@asynccontextmanager
async def context(
    database: Database, url: str, chain_id: int, **changed: Any
) -> AsyncGenerator[MobsContext]:
    chain = chain_at(url, chain_id)
    async with aiohttp.ClientSession() as http:
        made = settings(**{"max_traces_per_minute": 1000, **changed})
        yield MobsContext(
            "mobs",
            made,
            KernelSettings.model_construct(),
            database,
            Services(http),
            chains={CHAIN: chain},
        )
    await chain.close()


async def read(ctx: MobsContext, first: int, last: int) -> None:
    """Store blocks."""
    blocks = await full_blocks(ctx.chains[CHAIN], range(first, last + 1))
    async with scanner(ctx.database, chain_id=1) as one, ctx.database.transaction() as session:
        await one.apply(session, blocks)


async def explain_all(ctx: MobsContext) -> None:
    while await step(ctx):
        pass


async def failures(database: Database) -> list[dict[str, Any]]:
    async with database.sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM mobs.txs WHERE status = 0 ORDER BY block_number, tx_index")
        )
        return [dict(row) for row in rows.mappings()]


EVERY_WAY: tuple[tuple[str | None, str], ...] = (
    (REVERTS, message("no way")),
    (REVERTS, "0x"),
    (RUNS_OUT, "0x"),
    (INVALID, "0x"),
    (PASSES_ON, message("deep")),
    (CATCHES, message("caught")),
    (None, "0x60006000fd"),
)


@pytest.mark.parametrize("whole", [True, False])
async def test_traces_tell_why_each_failed_and_where(
    node: AnvilNode, database: Database, whole: bool
) -> None:
    async with fault_proxy(node.url) as proxy:
        if not whole:
            refused = (-32601, "the method does not exist", None)
            proxy.errors["debug_traceBlockByHash"] = refused
        await fail(node, *EVERY_WAY)
        async with context(database, proxy.url, node.chain_id) as ctx:
            await read(ctx, 1, 1)
            await explain_all(ctx)
        assert proxy.calls["debug_traceTransaction"] == (0 if whole else 7)
    found = await failures(database)
    assert [row["error_decoded"] for row in found] == [
        "no way",
        "Reverted without reason",
        "Out of gas",
        found[3]["error_decoded"],
        "deep",
        "Reverted without reason",
        "Reverted without reason",
    ]
    assert "opcode" in found[3]["error_decoded"].lower()
    assert {row["trace_state"] for row in found} == {"done"}
    assert {row["error_source"] for row in found} == {"trace"}
    assert all(row["has_trace"] for row in found)
    assert found[4]["error_origin"]["address"] == REVERTS
    assert found[4]["error_origin"]["depth"] == 1
    assert found[5]["error_origin"]["depth"] == 0
    assert found[6]["error_origin"]["function"] == "constructor"
    async with database.sessions() as session:
        traces = (
            await session.execute(
                text(
                    "SELECT trace_json, depth_max, call_count FROM mobs.tx_traces ORDER BY tx_index"
                )
            )
        ).all()
        assert [(depth, calls) for _, depth, calls in traces] == [
            *[(1, 1)] * 4,
            *[(2, 2)] * 2,
            (1, 1),
        ]
        assert unpack(bytes(traces[4][0]))["calls"][0]["to"] == REVERTS
        assert not (await session.scalars(text("SELECT 1 FROM mobs.trace_queue"))).all()
        assert (await session.scalars(text("SELECT marks FROM mobs.dirty_minutes"))).all()[0] > 1


async def test_without_traces_they_are_run_again(node: AnvilNode, database: Database) -> None:
    async with fault_proxy(node.url) as proxy:
        refused = (-32601, "the method does not exist", None)
        proxy.errors["debug_traceTransaction"] = refused
        await fail(node, (REVERTS, message("no way")), (INVALID, "0x"))
        # Alone before its block, the second of these succeeds.
        await fail(node, (ONCE, "0x"), (ONCE, "0x"))
        async with context(database, proxy.url, node.chain_id) as ctx:
            await read(ctx, 1, 2)
            await explain_all(ctx)
        # Nobody is asked again and again for what nobody has.
        assert proxy.calls["debug_traceTransaction"] == 1
    found = await failures(database)
    assert [row["error_source"] for row in found] == ["replay"] * 3
    assert [row["trace_state"] for row in found] == ["unsupported"] * 3
    assert found[0]["error_decoded"] == "no way"
    assert found[0]["error_signature"] == bytes.fromhex("08c379a0")
    assert "opcode" in found[1]["error_decoded"].lower()
    assert found[2]["error_decoded"] == SUCCEEDS


async def test_a_struct_log_is_no_trace_and_a_dead_node_is_asked_again_later(
    node: AnvilNode, database: Database
) -> None:
    await fail(node, (REVERTS, message("no way")))
    async with fault_proxy(node.url) as proxy, context(database, proxy.url, node.chain_id) as ctx:
        await read(ctx, 1, 1)
        proxy.lies["debug_traceTransaction"] = lambda _: {
            "failed": False,
            "gas": 0,
            "returnValue": "",
            "structLogs": [],
        }
        proxy.errors["eth_call"] = (-32603, "internal error", None)
        for attempt in range(3):
            assert (await failures(database))[0]["trace_state"] == "queued"
            async with database.transaction() as session:
                queued = (
                    await session.execute(text("SELECT attempts FROM mobs.trace_queue"))
                ).scalar_one()
                assert queued == attempt
                await session.execute(text("UPDATE mobs.trace_queue SET next_at = 0"))
            assert await step(ctx)
        assert (await failures(database))[0]["trace_state"] == "failed"
        assert not await step(ctx)
        # Somebody wants to know: it goes before all others. A probe found that it works now.
        proxy.lies.clear()
        async with database.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO mobs.rpc_endpoints (name, url, url_sha256, supports_traces, "
                    "capabilities) VALUES ('a', 'u', '\\x00', true, jsonb_build_object("
                    "'checked_at', extract(epoch FROM now())::bigint + 1))"
                )
            )
            assert await request(session, (await failures(database))[0]["hash"])
            assert not await request(session, b"\1" * 32)
        await explain_all(ctx)
    found = await failures(database)
    assert (found[0]["trace_state"], found[0]["error_decoded"]) == ("done", "no way")


async def test_only_so_many_a_minute_and_so_many_in_the_queue(
    node: AnvilNode, database: Database
) -> None:
    for number in range(5):
        await fail(node, (REVERTS, message(f"no {number}")))
    async with context(
        database, node.url, node.chain_id, max_traces_per_minute=2, trace_queue_size=3
    ) as ctx:
        await read(ctx, 1, 5)
        await explain_all(ctx)
    found = await failures(database)
    # The newest first; what the queue does not hold is passed over.
    assert [row["trace_state"] for row in found] == [
        *["skipped"] * 2,
        "queued",
        *["done"] * 2,
    ]


async def test_a_transaction_that_went_away_meanwhile_is_left_alone(
    node: AnvilNode, database: Database
) -> None:
    await fail(node, (REVERTS, message("no way")))
    async with context(database, node.url, node.chain_id) as ctx:
        await read(ctx, 1, 1)
        async with database.transaction() as session:
            await session.execute(text("UPDATE mobs.txs SET hash = :other"), {"other": b"\2" * 32})
        await explain_all(ctx)
    (row,) = await failures(database)
    assert row["error_decoded"] is None
    async with database.sessions() as session:
        assert not (await session.scalars(text("SELECT 1 FROM mobs.tx_traces"))).all()
