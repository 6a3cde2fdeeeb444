"""Alerts on stored blocks: one event an episode whoever dies, and none on blocks that went away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from causeway.apps.mobs.alerts.evaluation import Moment, observe
from causeway.apps.mobs.alerts.preview import preview
from causeway.store.engine import Database
from tests.mobs_alerts import Story, child, story
from tests.mobs_blocks import NOON, Sent, address


async def observed(tale: Story, alert_type: str = "custom", **rule: Any) -> list[Any]:
    whole: dict[str, Any] = {
        "alert_type": alert_type,
        "conditions": {},
        "threshold": 0,
        "window_minutes": 5,
        "contract_ids": [],
    }
    whole.update(rule)
    async with tale.ctx.database.sessions() as session:
        forks = tale.ctx.settings.fork_times()
        found = await observe(session, whole, Moment(tale.clock.at, tale.clock.at, forks=forks))
    return [(one.series, None if one.value is None else float(one.value)) for one in found]


async def test_an_episode_is_told_of_once_and_resolved_once(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(cooldown_minutes=60, window_minutes=1)
        await tale.mixed(99, 1)
        await tale.evaluate()
        assert await tale.events() == []
        await tale.mixed(80, 20)
        for _ in range(3):
            await tale.evaluate(5)
        assert await tale.events() == [("firing", 10.5, None)]
        assert await tale.states() == [("", "firing")]
        await tale.mixed(100, 0, seconds=60)
        await tale.evaluate()
        assert await tale.events() == [("firing", 10.5, "recovered")]
        assert await tale.notices() == [("firing", "waiting"), ("resolved", "waiting")]
        body = (await tale.rows("SELECT body FROM mobs.notifications ORDER BY id"))[0][0]
        assert body["idempotency_key"].startswith("alert-1:episode-")
        assert body["idempotency_key"].endswith(":firing")
        assert (body["value"], body["threshold"]) == ("10.5", "5")
        assert len(body["evidence"]) == 20
        assert body["window"] == {"start_ts": NOON + 4 - 60, "end_ts": NOON + 4}


async def test_a_late_index_is_not_a_quiet_chain(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(window_minutes=5, cooldown_minutes=1)
        await tale.mixed(1, 1)
        await tale.evaluate()
        await tale.evaluate(3600)  # the chain went on, the index did not
        assert await tale.states() == [("", "firing")]
        assert [kind for kind, *_ in await tale.events()] == ["firing"]


async def test_a_wait_is_waited_for(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(for_minutes=2, window_minutes=60)
        seen: list[str] = []
        for _ in range(6):
            await tale.mixed(1, 1, seconds=30)
            await tale.evaluate()
            seen.append((await tale.states())[0][1])
        assert seen == ["pending"] * 4 + ["firing"] * 2


async def test_each_contract_is_a_series(database: Database) -> None:
    async with story(database) as tale:
        quiet = await tale.contract(address(2), "quiet")
        loud = await tale.contract(address(3), "loud")
        await tale.rule(
            alert_type="custom",
            threshold=10,
            contract_ids=[quiet, loud],
            conditions={"metric": "failure_rate", "operator": ">", "by": "contract"},
        )
        await tale.mixed(10, 0, to=2)
        await tale.mixed(5, 5, to=3)
        await tale.evaluate()
        assert await tale.states() == [
            (f"contract:{quiet}", "inactive"),
            (f"contract:{loud}", "firing"),
        ]
        body = (await tale.rows("SELECT body FROM mobs.notifications"))[0][0]
        assert body["series"] == {"contract_id": loud}
        # A contract without transactions is not known, and stays as it is.
        for _ in range(4):
            await tale.mixed(1, 0, seconds=120, to=2)
        await tale.evaluate()
        assert (f"contract:{loud}", "firing") in await tale.states()


async def test_what_a_reorg_took_away_is_taken_back(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(
            alert_type="custom",
            threshold=0,
            cooldown_minutes=60,
            conditions={"metric": "tx_failed_count", "operator": ">"},
        )
        await tale.mixed(10, 0)
        await tale.mixed(10, 1)
        await tale.evaluate()
        assert await tale.events() == [("firing", 1.0, None)]
        await tale.reorg(1)
        tale.clock.at -= 2
        await tale.mine(Sent(nonce=99), branch=1)
        await tale.evaluate(5)
        assert await tale.events() == [("firing", 1.0, "retracted")]
        assert await tale.notices() == [("firing", "waiting"), ("retracted", "waiting")]
        await tale.evaluate(30)
        assert await tale.notices() == [("firing", "waiting"), ("retracted", "waiting")]
        assert await tale.states() == [("", "inactive")]
        # What did not happen has no cooldown: the next one is told of at once.
        await tale.mixed(10, 1)
        await tale.evaluate()
        assert [e[0] for e in await tale.events()] == ["firing", "firing"]


async def test_what_came_back_on_the_new_branch_stays(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(
            alert_type="custom",
            threshold=0,
            cooldown_minutes=60,
            conditions={"metric": "tx_failed_count", "operator": ">"},
        )
        await tale.mixed(10, 0)
        failed = Sent(nonce=77, status=0)
        await tale.mine(failed)
        await tale.evaluate()
        await tale.reorg(1)
        tale.clock.at -= 2
        await tale.evaluate()  # the new branch is not there yet: nothing is judged
        assert await tale.events() == [("firing", 1.0, "recovered")]
        await tale.mine(failed, branch=1)
        await tale.evaluate(5)
        assert "retracted" not in [kind for kind, _ in await tale.notices()]


async def test_a_rule_that_cannot_be_evaluated_stops_no_other(database: Database) -> None:
    async with story(database) as tale:
        broken = await tale.rule(name="broken", alert_type="custom", conditions={"metric": "x"})
        await tale.rule()
        await tale.mixed(1, 1)
        await tale.evaluate()
        assert [kind for kind, *_ in await tale.events()] == ["firing"]
        errors = await tale.rows("SELECT id FROM mobs.alerts WHERE last_error IS NOT NULL")
        assert errors == [(broken,)]


async def test_a_silence_keeps_the_event_and_says_so(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(window_minutes=1)
        async with database.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO mobs.silences (matchers, starts_at, ends_at, author) VALUES "
                    "('{\"severity\": \"warning\"}', :now - 1, :now + 10, 'Ada')"
                ),
                {"now": tale.clock.at},
            )
        await tale.mixed(1, 1)
        await tale.evaluate()
        assert [kind for kind, *_ in await tale.events()] == ["firing"]
        assert await tale.rows("SELECT state, reason FROM mobs.notifications") == [
            ("suppressed", "silence 1 by Ada")
        ]
        # Who was not told that it began is not told that it is over.
        await tale.mixed(100, 0, seconds=70)
        await tale.evaluate()
        assert await tale.notices() == [("firing", "suppressed"), ("resolved", "suppressed")]


async def test_a_late_index_speaks_for_the_rules_that_need_it(database: Database) -> None:
    async with story(database) as tale:
        await tale.rule(name="data", no_data="alert")
        await tale.rule(
            name="lag",
            alert_type="custom",
            threshold=600,
            conditions={"metric": "indexer_lag", "operator": ">"},
        )
        await tale.mixed(1, 0)
        await tale.evaluate(3600)
        assert await tale.rows("SELECT state, reason FROM mobs.notifications ORDER BY id") == [
            ("waiting", None),
            ("suppressed", "inhibited by lag"),
        ]


async def test_observations(database: Database) -> None:
    async with story(database) as tale:
        await tale.mine(Sent(nonce=1, price=10, gas_used=100), Sent(nonce=2, price=30, sender=5))
        await tale.mine(Sent(nonce=3, price=20, status=0), Sent(nonce=4, deposit=True, price=0))
        await tale.mine(Sent(nonce=5, system=True, price=0), seconds=64)

        async def custom(metric: str, aggregation: str | None = None, **more: Any) -> Any:
            conditions = {"metric": metric, "operator": ">"} | more
            if aggregation:
                conditions["aggregation"] = aggregation
            return (await observed(tale, conditions=conditions))[0][1]

        assert await custom("tx_count") == 4
        assert await custom("tx_count", "rate_per_min") == pytest.approx(0.8)
        assert await custom("tx_count", "max") == 4
        assert await custom("tx_count", "last") == 0  # the last minute of the window
        assert await custom("tx_count", "min") == 0
        assert await custom("failure_rate") == 25
        assert await custom("failure_rate", "max") == 25
        assert await custom("gas_price", "avg") == 20
        assert await custom("gas_price", "p50") == 20
        assert await custom("gas_price", "max") == 30
        assert await custom("gas_price", "last") == 20
        assert await custom("gas_used", "min") == 100
        assert await custom("unique_senders") == 2
        assert await custom("block_time", "max") == 64
        assert await custom("reorg_count") == 0
        assert await custom("indexer_lag") == 0
        assert await custom("method_count", filters={"method_id": "0xa9059cbb"}) == 0
        assert await custom("tx_count", filters={"from": address(5)}) == 1
        assert await observed(tale, "failure_rate") == [("", 25.0)]
        assert await observed(tale, "failure_rate", conditions={"min_tx": 5}) == [("", None)]
        assert await observed(tale, "gas_spike") == [("", None)]  # nothing to compare with


async def test_a_spike_is_against_the_hour_before(database: Database) -> None:
    async with story(database) as tale:
        await tale.mine(Sent(nonce=1, price=10), Sent(nonce=2, price=30))
        await tale.mine(Sent(nonce=3, price=60), seconds=400)
        assert await observed(tale, "gas_spike") == [("", 3.0)]
        # Prices before a fee upgrade are no measure of those after it.
        upgrade = {"fee_forks": (str(tale.clock.at - 100),)}
        tale.ctx.settings = tale.ctx.settings.model_copy(update=upgrade)
        assert await observed(tale, "gas_spike") == [("", None)]


async def test_a_preview_is_what_happened(database: Database) -> None:
    async with story(database) as tale:
        number = await tale.rule(window_minutes=5, cooldown_minutes=5, for_minutes=2)
        for minute in range(40):
            await tale.mixed(9, 3 if 10 <= minute < 20 else 0, seconds=60)
            await tale.evaluate()
        happened = await tale.rows(
            "SELECT kind, triggered_at FROM mobs.alert_events ORDER BY triggered_at"
        )
        async with database.sessions() as session:
            row = (
                (
                    await session.execute(
                        text("SELECT * FROM mobs.alerts WHERE id = :id"), {"id": number}
                    )
                )
                .mappings()
                .one()
            )
            would = await preview(session, dict(row), NOON, tale.clock.at)
        told = [(t["kind"], t["at"]) for t in would.transitions if t["kind"] != "resolved"]
        assert told == happened
        assert len(happened) >= 2
        assert would.episodes == 1


@pytest.mark.parametrize("fault", ["mobs.alert.before_commit", "mobs.alert.after_commit"])
async def test_a_kill_gives_neither_a_lost_nor_a_second_event(
    database: Database, database_url: str, fault: str
) -> None:
    async with story(database) as tale:
        await tale.rule()
        await tale.mixed(1, 1)
        assert await child(database_url, tale.clock.at, "evaluate", fault) == -9
        came = [("firing", 50.0, None)] if fault.endswith("after_commit") else []
        assert await tale.events() == came
        await tale.evaluate(1)
        assert await tale.events() == [("firing", 50.0, None)]
        assert await tale.notices() == [("firing", "waiting")]


async def test_two_workers_tell_once(database: Database) -> None:
    async with story(database) as tale:
        for number in range(10):
            await tale.rule(name=f"rule {number}")
        await tale.mixed(1, 1)
        await asyncio.gather(*(tale.evaluate() for _ in range(4)))
        assert len(await tale.events()) == 10
        assert len(await tale.notices()) == 10


async def test_500_rules_are_evaluated_before_the_next_round(database: Database) -> None:
    async with story(database) as tale:
        for number in range(500):
            custom = {"metric": "gas_price", "aggregation": "p95", "operator": ">"}
            kind = ("failure_rate", "gas_spike", "provider_down", "custom")[number % 4]
            await tale.rule(
                name=f"rule {number}",
                alert_type=kind,
                conditions=custom if kind == "custom" else {},
            )
        for _ in range(50):
            await tale.mixed(10, 1)
        async with asyncio.timeout(30):
            await tale.evaluate()
