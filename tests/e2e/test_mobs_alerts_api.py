"""Alerts, silences and providers over HTTP, with a worker that evaluates them."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson
import pytest
from sqlalchemy import text

from causeway.apps.mobs import partitions
from causeway.apps.mobs.alerts import files
from causeway.base.errors import InvalidInput
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.mobs_alerts import story
from tests.mobs_app import REVERTER, Mobs, error, running_mobs
from tests.mobs_blocks import address

RULE: dict[str, Any] = {
    "name": "failures",
    "alert_type": "custom",
    "threshold": 0,
    "window_minutes": 60,
    "conditions": {"metric": "tx_failed_count", "operator": ">"},
    "channels": [{"type": "log"}],
}


WRONG: list[dict[str, Any]] = [
    {"conditions": {}},
    {"conditions": {"metric": "tx_count", "operator": ">", "aggregation": "median"}},
    {"name": ""},
    {"name": "x" * 129},
    {"threshold": 10**12},
    {"threshold": "much"},
    {"window_minutes": 1441},
    {"cooldown_minutes": 0},
    {"for_minutes": -1},
    {"severity": "loud"},
    {"no_data": "perhaps"},
    {"alert_type": "colour"},
    {"contract_ids": [7]},
    {"channels": [{"type": "pigeon"}]},
    {"channels": [{"type": "webhook", "url": "ftp://x"}]},
    {"channels": [{"type": "webhook", "url": "env:HOME"}]},
]


async def change(mobs: Mobs, method: str, path: str, body: Any = None) -> httpx2.Response:
    return await mobs.http.request(method, path, json=body)


async def test_a_rule_from_making_to_deleting(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        hook = "https://hooks.example/services/T0/B0/abcdefghij0123456789ABCD"
        answer = await mobs.post(
            "/alerts", RULE | {"channels": [{"type": "log"}, {"type": "slack", "url": hook}]}
        )
        made = answer["alert"]
        assert set(made) >= {"id", "name", "alert_type", "threshold", "is_enabled", "created_at"}
        assert made["state"] == "inactive"
        assert set(answer["preview"]) == {"episodes", "minutes_firing"}
        listed = await mobs.get("/alerts")
        assert "events" not in listed["alerts"][0]
        assert listed["summary"] == {"total": 1, "enabled": 1, "triggered_24h": 0}
        shown = listed["alerts"][0]["channels"]
        assert shown == [{"type": "log"}, {"type": "slack", "url": hook[:-24] + "…"}]

        contract = await mobs.deploy(REVERTER)
        await mobs.send(contract, error("no"))

        async def fired() -> Any:
            rules = (await mobs.get("/alerts", include_events="true", events_limit=1))["alerts"]
            return rules[0] if rules[0]["events"] else None

        rule = await mobs.until(fired, "an event")
        assert rule["state"] == "firing"
        assert rule["last_value"] == 1
        (event,) = rule["events"]
        assert (event["kind"], event["value_observed"], event["threshold"]) == ("firing", 1, 0)
        assert event["resolved_at"] is None
        assert len(event["context"]["evidence"]) == 1
        assert (await mobs.get("/alerts"))["summary"]["triggered_24h"] == 1

        path = f"/alerts/{rule['id']}"
        acked = await mobs.post(f"{path}/events/{event['id']}/ack", {"by": "Ada"})
        again = await mobs.post(f"{path}/events/{event['id']}/ack", {"by": "Eve"})
        assert acked["event"]["acknowledged_by"] == again["event"]["acknowledged_by"] == "Ada"
        await mobs.post(f"{path}/events/999999/ack", {"by": "Ada"}, 404)

        assert (await mobs.post(f"{path}/notifications", None))["sent"] == 2

        async def logged() -> Any:
            rows = (await mobs.get(f"{path}/notifications"))["notifications"]
            return next(
                (r for r in rows if r["channel"] == "log" and r["state"] == "delivered"), None
            )

        told = await mobs.until(logged, "a delivered notification")
        assert told["body"]["kind"] == "test"
        again = await mobs.post(f"{path}/notifications/{told['id']}/resend", None)
        assert again["notification"]["state"] == "waiting"
        await mobs.post(f"{path}/notifications/999999/resend", None, 404)

        # What came back as it was shown is kept as it was; an empty change is none.
        assert (await change(mobs, "PATCH", path, {"channels": shown})).status_code == 200
        async with mobs.ctx.database.sessions() as session:
            kept = await session.scalar(text("SELECT channels FROM mobs.alerts"))
        assert kept[1]["url"] == hook
        assert (await change(mobs, "PATCH", path, {})).status_code == 400
        assert (await change(mobs, "PATCH", "/alerts/999", {"name": "x"})).status_code == 404
        changed = (await change(mobs, "PATCH", path, {"is_enabled": False})).json()["alert"]
        assert set(changed) == {"id", "name", "threshold", "is_enabled", "updated_at"}
        (rule,) = (await mobs.get("/alerts", include_events="true"))["alerts"]
        assert rule["state"] == "disabled"
        assert rule["events"][0]["resolve_reason"] == "disabled"
        filtered = await mobs.get("/alerts", enabled_only="true")
        assert filtered["alerts"] == []
        assert filtered["summary"]["total"] == 1

        assert (await change(mobs, "DELETE", path)).json() == {"message": "Alert deleted"}
        assert (await change(mobs, "DELETE", path)).status_code == 404


async def test_rules_that_cannot_be(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, work=False) as mobs:
        for wrong in WRONG:
            problem = await mobs.post("/alerts", RULE | wrong, 422)
            assert problem["detail"]
        for body in ('{"threshold": NaN}', '{"threshold": Infinity}', "[]", "{"):
            answer = await mobs.http.post("/alerts", content=body)
            assert answer.status_code in (400, 422)
        would = await mobs.post("/alerts/test", RULE | {"start_ts": 0, "end_ts": 86_400})
        assert would["preview"]["episodes"] == 0
        await mobs.post("/alerts/test", RULE | {"start_ts": 5, "end_ts": 5}, 422)

        silence = {"matchers": {"severity": "info"}, "starts_at": 0, "ends_at": 2**40}
        made = await mobs.post("/silences", silence | {"author": "Ada"})
        assert (await mobs.get("/silences"))["silences"] == [made["silence"]]
        await mobs.post("/silences", silence | {"author": "Ada", "matchers": {}}, 422)
        await mobs.post("/silences", silence | {"author": "Ada", "ends_at": 0}, 422)
        path = f"/silences/{made['silence']['id']}"
        assert (await change(mobs, "DELETE", path)).status_code == 200
        assert (await change(mobs, "DELETE", path)).status_code == 404


async def test_providers(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, work=False) as mobs:
        nothing = await mobs.get("/providers/health")
        assert nothing["providers"] == []
        assert nothing["history"] == {"timestamps": [], "series": {}}
        await mobs.get("/providers/health", 404, endpoint_id=5)
        for hours in (0, 169):
            await mobs.get("/providers/health", 422, hours=hours)
        body = {"name": "one", "url": "https://rpc.example/mantle"}
        made = (await mobs.post("/providers", body))["provider"]
        await mobs.post("/providers", body, 409)
        secret = "https://rpc.example/0123456789abcdef0123"
        problem = await mobs.post("/providers", {"name": "two", "url": secret}, 422)
        assert "0123456789abcdef0123" not in problem["detail"]
        two = (await mobs.post("/providers", body | {"name": "two", "url": "https://b.example"}))[
            "provider"
        ]
        now = int(mobs.ctx.clock.now().timestamp())
        async with mobs.ctx.database.transaction() as session:
            await partitions.ensure(session, now - 86_400, now, ("rpc_health_samples",))
            await session.execute(
                text(
                    "INSERT INTO mobs.rpc_health_samples (endpoint_id, sampled_at, latency_ms, "
                    "block_number, is_success, score) SELECT :id, :now - 30 * i, 100 + i, 9000 - i,"
                    " i <> 5, 100 FROM generate_series(0, 1999) AS i"
                ),
                {"id": made["id"], "now": now},
            )
        found = await mobs.get("/providers/health")
        history = found["history"]
        assert len(history["timestamps"]) == 500
        for series in history["series"].values():
            assert len(series["latency_ms"]) == len(series["success"]) == 500
        assert set(history["series"]) == {str(made["id"]), str(two["id"])}
        assert history["series"][str(two["id"])]["success"] == [None] * 500
        assert history["series"][str(made["id"])]["success"].count(False) == 1
        first = next(one for one in found["providers"] if one["id"] == made["id"])
        assert first["stats"]["current_block"] == 9000
        assert first["stats"]["success_rate"] == 99.95
        second = next(one for one in found["providers"] if one["id"] == two["id"])
        assert second["stats"] is None
        assert (await mobs.get("/providers/health", hours=49))["history"] is None

        path = f"/providers/{two['id']}"
        assert (await change(mobs, "PATCH", path, {"is_active": False})).status_code == 200
        assert (await change(mobs, "PATCH", path, {"name": "one"})).status_code == 409
        assert [p["name"] for p in (await mobs.get("/providers/health"))["providers"]] == ["one"]
        alone = await mobs.get("/providers/health", endpoint_id=two["id"])
        assert [p["name"] for p in alone["providers"]] == ["two"]
        assert list(alone["history"]["series"]) == [str(two["id"])]
        assert (await change(mobs, "DELETE", path)).status_code == 200
        assert (await change(mobs, "DELETE", path)).status_code == 404


async def test_rules_as_a_file(database: Database) -> None:
    async with story(database) as tale:
        watched = await tale.contract(address(2), "ours")
        await tale.rule(name="b", contract_ids=[watched], threshold="5.5")
        await tale.rule(name="a", conditions={"min_tx": 3})
        async with database.sessions() as session:
            content = files.written(await files.stored(session))
        wanted = files.read(content)
        assert files.written(wanted) == content
        async with database.transaction() as session:
            assert not await files.apply(session, wanted, tale.clock.at)
            await session.execute(text("DELETE FROM mobs.alerts"))
        async with database.transaction() as session:
            difference = await files.apply(session, wanted, tale.clock.at)
            assert difference.added == ["a", "b"]
            assert files.written(await files.stored(session)) == content

        # A rule that stays keeps its events; what runs of one that becomes another is resolved.
        await tale.mixed(1, 1)
        await tale.evaluate()
        wanted[1]["threshold"] = "90"
        async with database.transaction() as session:
            difference = await files.apply(session, wanted, tale.clock.at)
        assert difference.changed == {"b": [("threshold", "5.5", "90")]}
        assert await tale.events() == [("firing", 50.0, "rule_changed")]

        wanted[1]["contracts"] = [address(77)]
        with pytest.raises(InvalidInput, match="not watched"):
            async with database.transaction() as session:
                await files.apply(session, wanted, tale.clock.at)
    for wrong in (
        b"{}",
        b"[{}]",
        orjson.dumps([RULE, RULE]),
        orjson.dumps([RULE | {"conditions": {}}]),
    ):
        with pytest.raises(InvalidInput):
            files.read(wrong)
