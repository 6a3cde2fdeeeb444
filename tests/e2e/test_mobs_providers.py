"""Probes of providers over real HTTP: what each failure is called, costs, and does not cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from causeway.apps.mobs.capabilities import recheck
from causeway.apps.mobs.probing import round_of_probes
from causeway.store.engine import Database
from tests.mobs_alerts import Story, story
from tests.mobs_nodes import CHAIN_ID, Node, nodes


@asynccontextmanager
async def watched(database: Database, *hows: str) -> AsyncGenerator[tuple[Story, list[Node]]]:
    """Have some providers watched."""
    async with AsyncExitStack() as stack:
        tale = await stack.enter_async_context(
            story(database, chain_id=CHAIN_ID, rpc_timeout_default=1.0, max_concurrent_probes=20)
        )
        made = await stack.enter_async_context(nodes(tale.clock, *hows))
        configure(tale, *(one.url for one in made))
        yield tale, made


def configure(tale: Story, *urls: str) -> None:
    """Have these providers in the settings."""
    given = tuple(SecretStr(url) for url in urls)
    tale.ctx.settings = tale.ctx.settings.model_copy(update={"mantle_rpc_endpoints": given})


async def found(tale: Story, column: str) -> list[Any]:
    rows = await tale.rows(f"SELECT {column} FROM mobs.rpc_endpoints ORDER BY priority, id")
    return [row[0] for row in rows]


async def test_every_failure_has_its_name_and_one_sample(database: Database) -> None:
    hows = ("well", "hang", "limit", "limit_in_words", "broken", "words", "shape", "refused")
    async with watched(database, *hows) as (tale, made):
        made[0].traces = "empty"
        await round_of_probes(tale.ctx)
        codes = await tale.rows(
            "SELECT error_code, is_success, latency_ms IS NOT NULL FROM mobs.rpc_health_samples "
            "ORDER BY endpoint_id"
        )
        assert codes == [
            (None, True, True),
            ("timeout", False, False),
            ("rate_limited", False, False),
            ("rate_limited", False, False),
            ("http_502", False, False),
            ("invalid_json", False, False),
            ("invalid_response", False, False),
            ("rpc_-32099", False, False),
        ]
        assert await found(tale, "score") == [100, 75, 90, 90, 75, 75, 75, 75]
        # A node that answers with an empty trace has none to give.
        assert await found(tale, "supports_traces") == [False] * 8


async def test_nobody_there(database: Database) -> None:
    async with watched(database, "well") as (tale, _):
        configure(tale, "http://127.0.0.1:1/")
        for _ in range(4):
            tale.clock.at += 30
            await round_of_probes(tale.ctx)
        assert await found(tale, "consecutive_failures") == [4]
        assert await found(tale, "score") == [25]
        assert await tale.rows("SELECT DISTINCT error_code FROM mobs.rpc_health_samples") == [
            ("connect",)
        ]
        sums = await tale.rows(
            "SELECT score, (SELECT sum((one->>'points')::int) FROM "
            "jsonb_array_elements(deductions) AS one) FROM mobs.rpc_health_samples"
        )
        assert all(score + lost == 100 for score, lost in sums)


async def test_another_chain_is_locked_out_until_it_was_right_twice(database: Database) -> None:
    async with watched(database, "well", "wrong_chain") as (tale, made):
        await round_of_probes(tale.ctx)
        assert await found(tale, "score") == [100, 0]
        assert await found(tale, "quarantined") == [False, True]
        assert await found(tale, "last_error") == [None, "wrong_chain"]
        made[1].how = "well"
        await round_of_probes(tale.ctx)
        assert await found(tale, "quarantined") == [False, True]
        await round_of_probes(tale.ctx)
        assert await found(tale, "quarantined") == [False, False]
        kinds = await tale.rows("SELECT kind, said, others_said FROM mobs.lies")
        assert kinds == [("wrong_chain", {"chain_id": 1}, {"chain_id": CHAIN_ID})]


async def test_another_fork_is_named_with_both_hashes(database: Database) -> None:
    async with watched(database, "well", "well", "well") as (tale, made):
        made[2].branch = 1
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == [None, None, "wrong_fork"]
        assert await found(tale, "quarantined") == [False, False, True]
        ((block, said, others),) = await tale.rows(
            "SELECT block_number, said, others_said FROM mobs.lies"
        )
        assert block == 1000 - 64
        assert said["hash"] != others["hash"]
        assert others["providers"] == 2


async def test_another_fork_near_the_head_is_named_when_it_stays(database: Database) -> None:
    async with watched(database, "well", "well", "well") as (tale, made):
        for node in made:
            node.common = 990
        made[2].branch = 1
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == [None, None, None]
        for node in made:
            node.height += 15  # the one before is looked at, not the newest only
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == [None, None, "wrong_fork"]
        assert await found(tale, "quarantined") == [False, False, True]
        assert await tale.rows("SELECT kind, block_number FROM mobs.lies") == [("wrong_fork", 997)]


async def test_who_is_late_with_a_reorganisation_does_not_lie(database: Database) -> None:
    async with watched(database, "well", "well", "well") as (tale, made):
        for node in made:
            node.common = 990
        for branch in (1, 2, 3):
            made[0].branch = made[1].branch = branch
            await round_of_probes(tale.ctx)
            made[2].branch = branch
            await round_of_probes(tale.ctx)
        assert await tale.rows("SELECT kind FROM mobs.lies") == []
        assert [one["suspect"] for one in await found(tale, "capabilities")] == [None] * 3


@pytest.mark.parametrize(
    ("count", "alters", "blamed"),
    [(3, "status", True), (3, "gas", True), (2, "gas", True), (2, "status", False)],
)
async def test_who_alters_a_receipt_is_named_with_both_answers(
    database: Database, count: int, alters: str, blamed: bool
) -> None:
    """By the block's header, or by the others; one word against another blames nobody."""
    async with watched(database, *["well"] * count) as (tale, made):
        made[-1].alters = alters
        await round_of_probes(tale.ctx)
        wanted = [*[None] * (count - 1), "altered_receipt" if blamed else None]
        assert await found(tale, "last_error") == wanted
        assert await found(tale, "quarantined") == [one is not None for one in wanted]
        lies = await tale.rows("SELECT kind, block_number, said, others_said FROM mobs.lies")
        assert len(lies) == int(blamed)
        for kind, number, said, others in lies:
            assert (kind, number, others["providers"]) == ("altered_receipt", 997, count - 1)
            assert said["transaction"] == others["transaction"]
            name, false, true = {
                "gas": ("gas_used", "0x2", "0x1"),
                "status": ("status", "0x0", "0x1"),
            }[alters]
            assert (said[name], others[name]) == (false, true)


async def test_one_far_behind_does_not_hide_a_fork(database: Database) -> None:
    async with watched(database, "well", "well", "well", "well") as (tale, made):
        made[2].branch, made[3].height = 1, 3
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == [None, None, "wrong_fork", None]


async def test_who_is_behind_and_who_lies_ahead(database: Database) -> None:
    async with watched(database, "well", "well", "well", "well") as (tale, made):
        made[1].height, made[2].height, made[3].height = 997, 999, 10**9
        await round_of_probes(tale.ctx)
        assert await found(tale, "head_lag_blocks") == [0, 3, 1, 0]
        assert await found(tale, "score") == [100, 90, 100, 100]


async def test_all_stuck_at_one_height_are_stale(database: Database) -> None:
    async with watched(database, "stale", "stale") as (tale, _):
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == ["stale", "stale"]
        assert await tale.rows("SELECT min(head_age_s) FROM mobs.rpc_health_samples") == [(3600,)]


async def test_who_asks_to_wait_is_left_alone_so_long(database: Database) -> None:
    async with watched(database, "well", "limit") as (tale, made):
        await round_of_probes(tale.ctx)
        made[1].how = "well"
        await round_of_probes(tale.ctx)
        assert made[1].calls == []
        assert await found(tale, "status") == ["healthy", "healthy"]
        tale.clock.at += 8
        await round_of_probes(tale.ctx)
        assert await found(tale, "last_error") == [None, None]


async def test_safe_and_final_blocks_are_asked_for_with_every_tenth_probe(
    database: Database,
) -> None:
    async with watched(database, "well") as (tale, (node,)):
        for _ in range(11):
            tale.clock.at += 30
            await round_of_probes(tale.ctx)
        assert [node.tags.count(tag) for tag in ("latest", "safe", "finalized")] == [11, 2, 2]
        assert node.calls.count("eth_syncing") == 2
        (known,) = await found(tale, "capabilities")
        assert (known["safe_block"], known["finalized_block"]) == (990, 980)
        assert known["safe"] is True
        assert known["syncing"] is False
        # What it can do was tried once, until somebody finds that it does not do it.
        assert node.calls.count("eth_getBlockReceipts") == 1
        async with tale.ctx.database.transaction() as session:
            await recheck(session)
        await round_of_probes(tale.ctx)
        assert node.calls.count("eth_getBlockReceipts") == 2


async def test_what_it_can_do_is_found_by_doing_it(database: Database) -> None:
    async with watched(database, "well") as (tale, made):
        await round_of_probes(tale.ctx)
        (able,) = await found(tale, "capabilities")
        names = (
            "traces",
            "block_traces",
            "block_receipts",
            "safe",
            "finalized",
            "archive",
            "batch",
        )
        assert {name: able[name] for name in names} == dict.fromkeys(names, True)
        assert await found(tale, "supports_traces") == [True]
        before = len(made[0].calls)
        await round_of_probes(tale.ctx)
        assert made[0].calls[before:] == [
            "eth_chainId",
            "eth_blockNumber",
            "eth_getBlockByNumber",
        ]


@pytest.mark.parametrize("key", ["0123456789abcdef0123456789abcdef"])
async def test_a_key_is_not_in_the_database(database: Database, key: str) -> None:
    async with watched(database, "well") as (tale, made):
        configure(tale, f"{made[0].url}?key={key}")
        await round_of_probes(tale.ctx)
        assert await found(tale, "score") == [100]
        assert [url.endswith("?…") for url in await found(tale, "url")] == [True]
        rows = await tale.rows("SELECT e::text FROM mobs.rpc_endpoints AS e")
        assert key not in repr(rows)
