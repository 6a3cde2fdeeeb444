"""Retention lets go what is old, never what is needed; holes are found and forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from causeway.apps.mobs import holes, partitions
from causeway.apps.mobs.rollup import compute_marked
from causeway.apps.mobs.scanner import mark_dirty
from causeway.apps.mobs.upkeep import beat, retain_now
from causeway.store.engine import Database
from causeway.store.lease import Lease
from tests.mobs_alerts import Story, story
from tests.mobs_blocks import NOON, Sent

DAY_S = partitions.DAY_S


async def run(tale: Story, *statements: str, **values: Any) -> None:
    async with tale.ctx.database.transaction() as session:
        for statement in statements:
            await session.execute(text(statement), values)


async def counted(tale: Story, *tables: str) -> list[int]:
    return [(await tale.rows(f"SELECT count(*) FROM mobs.{one}"))[0][0] for one in tables]


async def computed(tale: Story) -> None:
    async with tale.ctx.database.transaction() as session:
        await compute_marked(session)


async def test_each_table_keeps_what_its_setting_says(database: Database) -> None:
    async with story(database) as tale:
        for _ in range(3):
            await tale.mixed(3, 2, seconds=60)
        await run(tale, "UPDATE mobs.blocks SET indexed_at = timestamp")
        await computed(tale)
        tables = ("txs_ok", "txs_failed", "blocks", "metrics_minute", "metrics_hour")
        assert await counted(tale, *tables) == [9, 6, 3, 2, 1]
        tale.clock.at = NOON + 31 * DAY_S
        # A minute that is still to be computed keeps its day.
        async with tale.ctx.database.transaction() as session:
            await mark_dirty(session, [NOON + 60])
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == [9, 6, 3, 2, 1]
        await run(tale, "DELETE FROM mobs.dirty_minutes")
        # So does one whose blocks came just now, from history.
        await run(tale, "UPDATE mobs.blocks SET indexed_at = :now", now=tale.clock.at - 60)
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == [9, 6, 3, 2, 1]
        await run(tale, "UPDATE mobs.blocks SET indexed_at = timestamp")
        await retain_now(tale.ctx)
        # Successful ones go after 30 days, as minutes do; failed ones and their blocks later.
        assert await counted(tale, *tables) == [0, 6, 3, 0, 1]
        tale.clock.at = NOON + 92 * DAY_S
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == [0, 0, 0, 0, 1]
        tale.clock.at = NOON + 366 * DAY_S
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == [0, 0, 0, 0, 0]


async def test_what_is_open_is_never_let_go(database: Database) -> None:
    async with story(database) as tale:
        rule = await tale.rule()
        values = {"rule": rule, "at": NOON}
        await run(
            tale,
            "INSERT INTO mobs.alert_events (alert_id, episode_id, kind, triggered_at, severity, "
            "threshold, resolved_at) VALUES (:rule, 1, 'firing', :at, 'info', 1, :at), "
            "(:rule, 2, 'firing', :at, 'info', 1, NULL)",
            "INSERT INTO mobs.notifications (idempotency_key, channel, body, state, created_at) "
            "SELECT state, '{}', '{}', state, :at FROM unnest(ARRAY['waiting', 'delivered', "
            "'suppressed', 'given_up']) AS state WHERE :rule > 0",
            "INSERT INTO mobs.silences (matchers, starts_at, ends_at, author) "
            "VALUES ('{}', :at, :at + :rule, 'a'), ('{}', :at, :at + 99999999, 'b')",
            "INSERT INTO mobs.lies (kind, said, others_said, detected_at) "
            "SELECT 'x', '{}', '{}', :at WHERE :rule > 0",
            "INSERT INTO mobs.reorgs (ancestor, depth, old_head, txs_removed, hashes_removed, "
            "detected_at) SELECT 1, 1, '', 0, '[]', :at WHERE :rule > 0",
            **values,
        )
        tables = ("alert_events", "notifications", "silences", "lies", "reorgs")
        tale.clock.at = NOON + 89 * DAY_S
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == [2, 4, 2, 1, 1]
        tale.clock.at = NOON + 91 * DAY_S
        await retain_now(tale.ctx)
        assert await tale.rows("SELECT episode_id FROM mobs.alert_events") == [(2,)]
        assert await tale.rows("SELECT state FROM mobs.notifications") == [("waiting",)]
        assert await tale.rows("SELECT author FROM mobs.silences") == [("b",)]
        tale.clock.at = NOON + 366 * DAY_S
        await retain_now(tale.ctx)
        assert await counted(tale, "lies", "reorgs") == [0, 0]


async def test_nothing_goes_where_retention_is_zero(database: Database) -> None:
    keep = dict.fromkeys(
        (
            *("retention_samples_days", "retention_success_days", "retention_failed_days"),
            *("retention_traces_days", "retention_traces_newest", "retention_minutes_days"),
            *("retention_hours_days", "retention_events_days", "retention_reorgs_days"),
        ),
        0,
    )
    async with story(database, **keep) as tale:
        await tale.mixed(2, 2)
        await tale.mixed(2, 2, seconds=90)
        await run(tale, "UPDATE mobs.blocks SET indexed_at = timestamp")
        await computed(tale)
        tables = ("txs", "blocks", "metrics_minute", "metrics_hour")
        before = await counted(tale, *tables)
        tale.clock.at += 5000 * DAY_S
        await retain_now(tale.ctx)
        assert await counted(tale, *tables) == before


async def test_the_newest_traces_are_kept(database: Database) -> None:
    async with story(database, retention_traces_newest=3) as tale:
        await tale.mixed(0, 5)
        await run(
            tale,
            "INSERT INTO mobs.tx_traces (block_timestamp, block_number, tx_index, trace_type, "
            "trace_json, depth_max, call_count) SELECT block_timestamp, block_number, tx_index, "
            "'callTracer', '', 1, 1 FROM mobs.txs",
        )
        await retain_now(tale.ctx)
        assert await tale.rows("SELECT tx_index FROM mobs.tx_traces ORDER BY 1") == [
            (2,),
            (3,),
            (4,),
        ]


async def test_days_to_come_are_there(database: Database) -> None:
    async with story(database) as tale:
        await retain_now(tale.ctx)
        async with tale.ctx.database.sessions() as session:
            days = await partitions.days_of(session, "txs_ok")
        assert days == list(range(NOON // DAY_S, NOON // DAY_S + 8))


async def test_holes_are_found_narrowed_and_forgotten(database: Database) -> None:
    async with story(database) as tale:
        for _ in range(9):
            await tale.mine(Sent())
        numbers = "SELECT first_block, last_block, reason FROM mobs.block_holes ORDER BY 1"

        async def found() -> list[tuple[Any, ...]]:
            await retain_now(tale.ctx)
            return await tale.rows(numbers)

        assert await found() == []
        saved = tale.chain[2:5]
        await run(tale, "DELETE FROM mobs.blocks WHERE number IN (3, 4, 5, 8)")
        assert await found() == [(3, 5, holes.FOUND), (8, 8, holes.FOUND)]
        await run(tale, "UPDATE mobs.block_holes SET reason = 'known' WHERE first_block = 3")
        async with tale.ctx.database.transaction() as session:
            await session.execute(text("DELETE FROM mobs.txs WHERE block_number IN (3, 4)"))
            await tale.scanner.write(session, saved[:2])
        assert await found() == [(5, 5, "known"), (8, 8, holes.FOUND)]
        async with tale.ctx.database.transaction() as session:
            await session.execute(text("DELETE FROM mobs.txs WHERE block_number IN (5, 8)"))
            await tale.scanner.write(session, [saved[2], tale.chain[7]])
        assert await found() == []
        # What an operator skips is a hole before anything above it is there.
        await run(tale, "INSERT INTO mobs.block_holes VALUES (10, 19, 'skipped by an operator')")
        assert await found() == [(10, 19, "skipped by an operator")]


async def test_the_heartbeat_says_since_when(database: Database) -> None:
    async with story(database, worker_id="w1") as tale:
        lease = Lease("mobs:beat", "holder", 1)
        await beat(tale.ctx, lease)
        tale.clock.at += 5
        await beat(tale.ctx, lease)
        ((value,),) = await tale.rows("SELECT value FROM mobs.worker_state WHERE key = 'heartbeat'")
        assert value == {"worker_id": "w1", "started_at": NOON, "last_beat": NOON + 5}


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"causeway_mobs_{name}", labels)


async def test_prometheus_is_shown_the_last_minute_and_what_waits(database: Database) -> None:
    async with story(database) as tale:
        await tale.mixed(3, 1)
        await tale.mixed(5, 5, seconds=90)
        await computed(tale)
        rule = await tale.rule(severity="critical")
        await run(
            tale,
            "INSERT INTO mobs.alert_states (alert_id, state, since) VALUES (:rule, 'firing', 1)",
            "INSERT INTO mobs.block_holes VALUES (7, 9, 'lost')",
            rule=rule,
        )
        tale.clock.at += 4
        await beat(tale.ctx, Lease("mobs:beat", "holder", 1))
    assert shown("index_age_seconds") == 4
    assert shown("minute_transactions", status="success") == 3
    assert shown("minute_transactions", status="failed") == 1
    assert shown("minute_blocks") == 1
    assert shown("minute_gas_used") == 4 * 21_000
    assert shown("minute_gas_price_wei", quantile="0.5") == pytest.approx(20_000_000, rel=0.01)
    assert shown("waiting", what="traces") == 6
    assert shown("waiting", what="minutes") == 1
    assert shown("missing_blocks") == 3
    assert shown("alerts_firing", severity="critical") == 1
    assert shown("alerts_firing", severity="info") == 0
