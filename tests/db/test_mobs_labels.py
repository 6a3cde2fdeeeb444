"""A contract that is watched later names what was stored before."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from eth_abi.abi import encode
from sqlalchemy import text

from causeway.apps.mobs.context import MobsContext, Services
from causeway.apps.mobs.decoding.signatures import parse_signature
from causeway.apps.mobs.labels import label
from causeway.base.settings import KernelSettings
from causeway.store.engine import Database
from tests.mobs_blocks import NOON, Sent, address, block, scanner, settings

ABI: list[dict[str, Any]] = [
    {"type": "function", "name": "poke", "inputs": []},
    {"type": "error", "name": "Refused", "inputs": [{"name": "n", "type": "uint256"}]},
]
DATA = "0x" + (parse_signature("Refused(uint256)").selector + encode(["uint256"], [7])).hex()


async def rows(database: Database, query: str) -> list[Any]:
    async with database.sessions() as session:
        return [tuple(row) for row in await session.execute(text(query))]


async def test_history_is_labelled_once_and_again_when_the_abi_changes(database: Database) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(scanner(database))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        ctx = MobsContext(
            "mobs", settings(), KernelSettings.model_construct(), database, Services(http)
        )
        async with database.transaction() as session:
            blocks = [
                block(
                    1,
                    NOON,
                    [
                        Sent(to=2, data="0x18178358"),
                        Sent(to=2, status=0, reason=DATA),
                        Sent(to=3, status=0, reason=DATA),  # it called the contract
                        Sent(to=4),
                    ],
                )
            ]
            await one.apply(session, blocks)
        query = (
            "SELECT contract_id, method_name, error_decoded FROM mobs.txs "
            "ORDER BY block_number, tx_index"
        )
        unknown = f"Custom error {DATA[:10]}"
        assert await rows(database, query) == [
            (None, None, None),
            (None, None, unknown),
            (None, None, unknown),
            (None, None, None),
        ]
        async with database.transaction() as session:
            await session.execute(text("DELETE FROM mobs.dirty_minutes"))
            await session.execute(
                text(
                    "INSERT INTO mobs.contracts (id, address, name, abi_json) "
                    "VALUES (5, :address, 'vault', CAST(:abi AS jsonb))"
                ),
                {"address": bytes.fromhex(address(2)[2:]), "abi": json.dumps(ABI)},
            )
        await label(ctx)
        assert await rows(database, query) == [
            (5, "poke", None),
            (5, None, "Refused(n=7)"),
            (None, None, "Refused(n=7)"),
            (None, None, None),
        ]
        assert await rows(database, "SELECT backfill FROM mobs.contracts") == [("done",)]
        assert await rows(database, "SELECT bucket_ts FROM mobs.dirty_minutes") == [(NOON,)]
        # What is written from now on is labelled at once, also after another change of the ABI.
        for name in ("poke", "prod"):
            async with database.transaction() as session:
                await session.execute(
                    text("UPDATE mobs.contracts SET abi_json = CAST(:abi AS jsonb)"),
                    {"abi": json.dumps([ABI[0] | {"name": name}])},
                )
            number = 2 if name == "poke" else 3
            selector = parse_signature(f"{name}()").selector.hex()
            async with database.transaction() as session:
                await one.apply(
                    session, [block(number, NOON + number, [Sent(to=2, data="0x" + selector)])]
                )
        assert (await rows(database, query))[-2:] == [(5, "poke", None), (5, "prod", None)]
