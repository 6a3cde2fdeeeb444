"""The commands of M-OBS as an operator types them: what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from causeway.apps.mobs import partitions, verification
from causeway.sandbox.anvil import AnvilNode
from tests.command import causeway
from tests.mobs_app import REVERTER, Mobs, error, running_mobs


async def mobs(*arguments: str, code: int = 0) -> Any:
    """Run a command for programs; return what it says."""
    ran = await causeway("mobs", *arguments, "--json")
    assert ran.code == code, ran.out + ran.err
    return json.loads(ran.out)


async def by_sql(running: Mobs, *statements: str) -> None:
    async with running.ctx.database.transaction() as session:
        for statement in statements:
            await session.execute(text(statement))


async def test_an_operators_day(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, TRACE_QUEUE_SIZE="0") as running:
        reverter = await running.deploy(REVERTER)
        bad = await running.send(reverter, error("no way"))
        good = await running.send(anvil.accounts[1].address)
        for _ in range(4):
            await anvil.rpc("evm_mine")
        height = await running.caught_up()

        (listed,) = await mobs("providers", "list")
        assert (listed["score"], listed["is_active"]) == (100, True)
        (probed,) = await mobs("providers", "probe")
        assert (probed["error"], probed["block"]) == (None, height)
        assert (await mobs("status"))["applied_block"] == height
        assert await mobs("trace", bad) == {
            "status": "failed",
            "decoded": "no way",
            "source": "trace",
            "origin": {"address": reverter.lower(), "depth": 0, "function": "0x08c379a0"},
            "trace_state": "done",
        }
        assert await mobs("trace", good) == {"status": "success"}
        assert "no transaction hash" in (await causeway("mobs", "trace", "0x12")).err
        assert (await mobs("decode", error("why")))["decoded"] == "why"

        # Blocks that are lost are found, mended, and loaded.
        lost = f"DELETE FROM mobs.blocks WHERE number IN (2, {height - 2})"
        await by_sql(running, lost, "DELETE FROM mobs.txs WHERE block_number = 2")
        found = await mobs("verify", "--from", "1", "--to", str(height), code=1)
        assert found == [
            {"block": 2, "problem": "missing"},
            {"block": height - 2, "problem": "missing"},
        ]
        assert await mobs("repair", "2", "2") == {"written": 1}
        assert await mobs("backfill", "1", str(height)) == {"written": 1}
        assert await mobs("verify", "1", str(height)) == []
        # What retention let go is not missing.
        async with running.ctx.database.transaction() as session:
            for day in await partitions.days_of(session, "txs_ok"):
                await partitions.drop(session, "txs_ok", day)
        # (A command would make today's table again.)
        assert await verification.verify(running.ctx, 1, height, lambda _: None) == []

        made = await mobs("contracts", "add", reverter, "--name", "reverter")
        again = await causeway("mobs", "contracts", "add", reverter, "--name", "again")
        assert (made["id"], again.code != 0) == (1, True)
        assert "watched already" in again.err

        added = await mobs("providers", "add", "second", anvil.url + "/second")
        assert added["id"]
        assert await mobs("providers", "remove", "second") == {"removed": "second"}
        bad_port = await causeway("mobs", "providers", "add", "a", "http://a:port/")
        assert (bad_port.code, "http or https" in bad_port.err) == (1, True)
        assert "key" in (await causeway("mobs", "providers", "add", "a", "https://a/?k=1")).err

        rule = {"name": "many", "alert_type": "failure_rate", "threshold": 5}
        await running.post("/alerts", rule)
        exported = (await causeway("mobs", "alerts", "export")).out
        rules = tmp_path / "rules.json"
        rules.write_text(exported)
        assert await mobs("alerts", "diff", str(rules)) == {
            "added": [],
            "removed": [],
            "changed": {},
        }
        rules.write_text(exported.replace("many", "few"))
        changed: dict[str, Any] = {"added": ["few"], "removed": ["many"], "changed": {}}
        assert await mobs("alerts", "apply", str(rules), "--check", code=1) == changed
        assert await mobs("alerts", "apply", str(rules)) == changed

        assert await mobs("retention", "--dry-run") == []
        for wrong, said in (
            (("x", "y"), "valid integer"),
            (("1",), "--to is missing"),
            (("1", "2", "--from", "1"), "--from was given twice"),
        ):
            refused = await causeway("mobs", "verify", *wrong)
            assert (refused.code, said in refused.err) == (2, True)


async def test_seek_records_what_it_skips(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as running:
        for _ in range(3):
            await anvil.rpc("evm_mine")
        first = await running.caught_up()
    for _ in range(20):
        await anvil.rpc("evm_mine")
    assert await mobs("seek", str(first + 11), "--yes") == {
        "next_block": first + 11,
        "skipped": 10,
    }
    assert (await mobs("status", code=1))["holes"] == [[first + 1, first + 10]]
    async with running_mobs(database_url, anvil, monkeypatch) as running:
        await running.caught_up()
        numbers = [one["number"] for one in (await running.get("/blocks"))["blocks"]]
        assert first + 10 not in numbers
        assert {first, first + 11} <= set(numbers)
        assert await mobs("backfill", str(first + 1), str(first + 10)) == {"written": 10}
        assert (await mobs("status"))["holes"] == []
