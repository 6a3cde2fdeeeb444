"""M-OBS over HTTP: what an operator sees of a chain, page by page, through a reorg."""

from __future__ import annotations

import random
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from sqlalchemy import text

from causeway.apps.mobs import verification
from causeway.apps.mobs.rollup import compute_marked
from causeway.sandbox.anvil import AnvilNode
from tests.mobs_app import REVERTER, STOPPER, Mobs, error, running_mobs

ABI = [
    {
        "type": "error",
        "name": "TooPoor",
        "inputs": [{"name": "owner", "type": "address"}, {"name": "missing", "type": "uint256"}],
    }
]


async def test_what_happens_on_the_chain_is_shown_with_its_reason(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        reverter, stopper = await mobs.deploy(REVERTER), await mobs.deploy(STOPPER)
        good = await mobs.send(stopper, "0xa9059cbb" + "00" * 64, value=1_500_000_000_000_000_001)
        bad = await mobs.send(reverter, error("not today\x00"))
        silent = await mobs.send(reverter)
        panic = await mobs.send(reverter, "0x4e487b71" + f"{0x11:064x}")
        await mobs.caught_up()

        shown = (await mobs.get(f"/txs/{good.upper().replace('X', 'x', 1)}"))["transaction"]
        assert shown["status"] == "success"
        assert shown["value_eth"] == "1.500000"
        assert shown["value_wei"] == "1500000000000000001"
        assert shown["method_name"] == "transfer"
        assert shown["gas_limit"] == 500_000 != shown["gas_used"]
        assert shown["error"] is None

        failed = await mobs.explained(bad)
        reason = failed["transaction"]["error"]
        assert reason["decoded"] == "not today"
        assert reason["signature"] == "0x08c379a0"
        assert reason["params"] == {"message": "not today"}
        assert reason["source"] == "trace"
        assert reason["origin"]["address"] == reverter.lower()
        assert failed["trace"]["calls"]["type"] == "CALL"
        assert (await mobs.explained(silent))["transaction"]["error"]["decoded"] == (
            "Reverted without reason"
        )
        assert "overflow" in (await mobs.explained(panic))["transaction"]["error"]["decoded"]

        page = await mobs.get("/txs", status="failed")
        assert {t["hash"] for t in page["transactions"]} == {bad, silent, panic}
        assert page["pagination"]["total"] == 3
        assert page["pagination"]["total_exact"]
        by_error = await mobs.get("/txs", error_signature="0x4E487B71")
        assert [t["hash"] for t in by_error["transactions"]] == [panic]
        to = await mobs.get("/txs", address=to_checksum_address(stopper))
        assert good in {t["hash"] for t in to["transactions"]}
        # The contract's own creation belongs to its address too.
        assert len(to["transactions"]) == 2
        assert (await mobs.get("/txs", contract_id=99))["transactions"] == []
        assert (await mobs.get("/txs", q=bad))["pagination"]["total"] == 1


async def test_a_contract_added_later_names_what_is_stored_already(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        reverter = await mobs.deploy(REVERTER)
        owner = anvil.accounts[3].address
        # keccak("TooPoor(address,uint256)")[:4], by the app's own command's decoder
        from causeway.chains.evm.abi import Abi

        selector = next(s for s, e in Abi.from_json(ABI).errors.items() if e.name == "TooPoor")
        data = "0x" + selector.hex() + owner[2:].lower().zfill(64) + f"{10**20:064x}"
        failed = await mobs.send(reverter, data)
        before = await mobs.explained(failed)
        assert before["transaction"]["error"]["decoded"] == f"Custom error 0x{selector.hex()}"
        made = await mobs.post(
            "/contracts", {"address": reverter, "name": "purse", "abi_json": ABI, "tags": ["a"]}
        )
        assert made["contract"]["has_abi"]

        async def labelled() -> Any:
            shown = (await mobs.get(f"/txs/{failed}"))["transaction"]
            return shown if shown["contract"] else None

        shown = await mobs.until(labelled, "the contract's name")
        assert shown["contract"]["name"] == "purse"
        assert shown["error"]["decoded"] == f"TooPoor(owner={owner.lower()}, missing={10**20})" or (
            shown["error"]["decoded"] == f"TooPoor(owner={owner}, missing={10**20})"
        )
        assert (await mobs.get("/txs", contract_id=made["contract"]["id"]))["transactions"]


async def test_paging_gives_each_row_once_while_the_chain_goes_on_and_back(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        for number in range(30):
            await mobs.send(anvil.accounts[1].address, value=number)
        await mobs.caught_up()
        steady: set[str] = set()
        first = await mobs.get("/txs", limit=100)
        for one in first["transactions"]:
            steady.add(one["hash"])
        seen: list[str] = []
        cursor: str | None = None
        turns = 0
        while True:
            query: dict[str, Any] = {"limit": 4} | ({"cursor": cursor} if cursor else {})
            page = await mobs.get("/txs", **query)
            seen += [one["hash"] for one in page["transactions"]]
            cursor = page["pagination"]["next_cursor"]
            turns += 1
            if turns == 3:  # new blocks arrive, and the newest of them are replaced
                for number in range(3):
                    await mobs.send(anvil.accounts[2].address, value=number)
                await mobs.caught_up()
                await anvil.reorg(2)
                await anvil.mine()
                await mobs.caught_up()
            if cursor is None:
                break
        assert len(seen) == len(set(seen))
        assert steady <= set(seen)
        # A cursor is good for its own question only.
        some = (await mobs.get("/txs", limit=2))["pagination"]["next_cursor"]
        problem = await mobs.get("/txs", 400, limit=2, cursor=some, status="failed")
        assert "other filters" in problem["detail"]
        await mobs.get("/txs", 400, cursor="!!!")
        up = [t["block_number"] for t in (await mobs.get("/txs", sort="time_asc"))["transactions"]]
        assert up == sorted(up)
        dear = (await mobs.get("/txs", sort="gas_desc"))["transactions"]
        fees = [int(t["fee_wei"]) for t in dear]
        assert fees == sorted(fees, reverse=True)


async def test_a_reorg_takes_its_transactions_away_and_says_so(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        await mobs.send(anvil.accounts[1].address, value=1)
        lost = await mobs.send(anvil.accounts[1].address, value=2)
        height = await mobs.caught_up()
        assert (await mobs.get(f"/txs/{lost}"))["transaction"]["block_number"] == height
        await anvil.reorg(1)
        await anvil.mine()

        async def gone() -> bool:
            return (await mobs.http.get(f"/txs/{lost}")).status_code == 404

        await mobs.until(gone, "the reorg")
        problem = await mobs.get(f"/txs/{lost}", 404)
        assert f"was in block {height}" in problem["detail"]
        assert "reorg" in problem["detail"]
        (reorg,) = (await mobs.get("/reorgs"))["reorgs"]
        assert (reorg["ancestor"], reorg["depth"], reorg["txs_removed"]) == (height - 1, 1, 1)
        await mobs.caught_up()


async def test_blocks_that_were_lost_are_found_and_mended(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch) as mobs:
        for number in range(12):
            await mobs.send(anvil.accounts[1].address, value=number)
        height = await mobs.caught_up()
        rows = await stored(mobs)
        lost = sorted(random.Random(7).sample(range(1, height + 1), 3))
        async with mobs.installation.database.transaction() as session:
            for table, column in (("blocks", "number"), ("txs", "block_number")):
                await session.execute(
                    text(f"DELETE FROM mobs.{table} WHERE {column} = ANY(:lost)"), {"lost": lost}
                )
        found = await verification.verify(mobs.ctx, 0, height, lambda _: None)
        assert [(one.number, one.what) for one in found] == [(n, "missing") for n in lost]
        assert await verification.repair(mobs.ctx, found) == 3
        assert await verification.verify(mobs.ctx, 0, height, lambda _: None) == []
        assert await stored(mobs) == rows


async def stored(mobs: Mobs) -> list[Any]:
    """Return what is stored of every transaction, without when that was."""
    async with mobs.installation.database.sessions() as session:
        rows = await session.execute(
            text("SELECT block_number, tx_index, hash, total_fee FROM mobs.txs ORDER BY 1, 2")
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("path", "query", "status", "said"),
    [
        ("/metrics/overview", {"start_ts": 100, "end_ts": 100}, 400, "start_ts is 100"),
        ("/metrics/overview", {"start_ts": 0, "end_ts": 2_592_001}, 400, "at most 2592000"),
        ("/metrics/overview", {"resolution": "week"}, 422, "resolution"),
        ("/providers/health", {"hours": 169}, 422, "hours"),
        ("/providers/health", {"endpoint_id": 77}, 404, "no provider 77"),
        ("/txs", {"limit": 0}, 422, "limit"),
        ("/txs", {"address": "0x12"}, 422, "address"),
        ("/txs/0x12", {}, 422, "tx_hash"),
        ("/txs/0x" + "ab" * 32, {}, 404, "no transaction"),
        ("/alerts", {"events_limit": 51}, 422, "events_limit"),
        ("/providers/health", {"endpoint_id": 2**40}, 404, "no provider"),
        ("/providers/health", {"endpoint_id": 2**63}, 422, "endpoint_id"),
        ("/metrics/overview", {"end_ts": 2**63 - 1}, 422, "end_ts"),
        ("/txs", {"start_ts": 10**40}, 422, "start_ts"),
        ("/txs", {"contract_id": 10**40}, 422, "contract_id"),
        ("/contracts", {"tag": "\x00"}, 422, "tag"),
    ],
)
async def test_a_question_that_cannot_be_is_told_which_part(
    database_url: str,
    anvil: AnvilNode,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    query: dict[str, Any],
    status: int,
    said: str,
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, work=False) as mobs:
        problem = await mobs.get(path, status, **query)
        assert problem["status"] == status
        assert said in problem["detail"]


async def test_contracts_and_rules_are_refused_with_field_value_and_what_is_allowed(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, work=False) as mobs:
        right = str(to_checksum_address(anvil.accounts[1].address))
        wrong = right[:-1] + (right[-1].upper() if right[-1].islower() else right[-1].lower())
        wrong = wrong if wrong != right else right.swapcase().replace("X", "x", 1)
        problem = await mobs.post("/contracts", {"address": wrong, "name": "x"}, 400)
        assert right in problem["detail"]
        made = await mobs.post("/contracts", {"address": right, "name": "x"})
        problem = await mobs.post("/contracts", {"address": right.lower(), "name": "y"}, 409)
        assert str(made["contract"]["id"]) in problem["detail"]
        bad_abi = [{"type": "event", "name": 7}]
        problem = await mobs.post(
            "/contracts",
            {"address": anvil.accounts[2].address, "name": "x", "abi_json": bad_abi},
            422,
        )
        assert "abi_json[0]" in problem["detail"]
        rule = {"name": "r", "alert_type": "custom", "threshold": 1}
        problem = await mobs.post("/alerts", rule, 422)
        assert problem["errors"][0]["field"] == "conditions.metric"
        problem = await mobs.post("/alerts", rule | {"window_minutes": 0}, 422)
        assert problem["errors"][0]["field"] == "window_minutes"
        fine = {"name": "r", "alert_type": "failure_rate", "threshold": 1, "contract_ids": [99]}
        assert "99" in (await mobs.post("/alerts", fine, 422))["detail"]
        made = await mobs.post("/alerts", fine | {"contract_ids": []})
        path = f"/alerts/{made['alert']['id']}"
        assert (await mobs.http.patch(path, json={})).status_code == 400
        changed = await mobs.http.patch(path, json={"description": None, "threshold": 7.5})
        assert changed.json()["alert"]["threshold"] == 7.5
        assert (await mobs.http.delete(path)).json() == {"message": "Alert deleted"}
        assert (await mobs.http.delete(path)).status_code == 404


async def test_nobody_elsewhere_may_change_anything(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(
        database_url, anvil, monkeypatch, work=False, MOBS_ADMIN_TOKEN="sesame-sesame"
    ) as mobs:
        body = {"name": "r", "alert_type": "failure_rate", "threshold": 1}
        await mobs.post("/alerts", body, 401)
        mobs.http.headers["authorization"] = "Bearer sesame-sesame"
        await mobs.post("/alerts", body)


async def test_zero_and_unknown_never_look_alike(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(
        database_url, anvil, monkeypatch, WORKER_ENABLED_PIPELINES="block_scanner"
    ) as mobs:
        newest = await anvil.rpc("eth_getBlockByNumber", "latest", False)
        first = (int(newest["timestamp"], 16) // 60 + 2) * 60
        # A minute with a block, one without any, one that is lost, and what ends the last of them.
        for at in (first, first + 120, first + 180, first + 240):
            await anvil.rpc("evm_setNextBlockTimestamp", at)
            await anvil.rpc("evm_mine")
        height = await mobs.caught_up()
        # What is switched off is not missed.
        assert list((await mobs.get("/health"))["pipelines"]) == ["block_scanner"]

        async def shown() -> tuple[list[Any], list[str]]:
            found = await mobs.get("/metrics/overview", start_ts=first, end_ts=first + 240)
            return found["series"]["block_count"], found["series"]["status"]

        # The chain has passed all of them, but nothing is computed yet.
        assert await shown() == ([None] * 4, ["missing"] * 4)
        async with mobs.ctx.database.transaction() as session:
            await compute_marked(session)
        assert await shown() == ([1, 0, 1, 1], ["complete"] * 4)
        async with mobs.ctx.database.transaction() as session:
            await verification.forget(session, height - 2)
            await session.execute(
                text("INSERT INTO mobs.block_holes VALUES (:at, :at, 'lost')"), {"at": height - 2}
            )
            await compute_marked(session)
        # Between the blocks around the hole nothing is known; what is there is only a part.
        assert await shown() == (
            [1, None, None, 1],
            ["partial", "missing", "missing", "complete"],
        )


async def test_what_was_passed_over_is_explained_on_demand_and_the_chains_own_is_hidden(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, TRACE_QUEUE_SIZE="0") as mobs:
        reverter = await mobs.deploy(REVERTER)
        good = await mobs.send(anvil.accounts[1].address)
        bad = await mobs.send(reverter, error("no way"))
        await mobs.caught_up()
        shown = (await mobs.get(f"/txs/{bad}"))["transaction"]["error"]
        assert (shown["trace_state"], shown["decoded"]) == ("skipped", None)
        assert await mobs.post(f"/txs/{bad}/trace", None) == {"trace_state": "queued"}
        assert (await mobs.explained(bad))["transaction"]["error"]["decoded"] == "no way"
        problem = await mobs.post(f"/txs/{good}/trace", None, 409)
        assert "did not fail" in problem["detail"]
        await mobs.post(f"/txs/0x{'12' * 32}/trace", None, 404)

        async with mobs.ctx.database.transaction() as session:
            await session.execute(
                text("UPDATE mobs.txs SET is_system = true WHERE hash = :hash"),
                {"hash": bytes.fromhex(good[2:])},
            )
        page = await mobs.get("/txs", status="success")
        assert good not in {one["hash"] for one in page["transactions"]}
        assert page["pagination"]["total"] == len(page["transactions"])
        page = await mobs.get("/txs", status="success", include_system=True)
        assert good in {one["hash"] for one in page["transactions"]}
        assert page["pagination"]["total"] == len(page["transactions"])
        for page in (
            await mobs.get("/txs", q=good[:20]),
            await mobs.get("/txs", address=anvil.accounts[1].address),
        ):
            assert [one["hash"] for one in page["transactions"]] == [good]


REFUSED: list[tuple[str, str, Any]] = [
    ("POST", "/contracts", {"address": "0x" + "11" * 20, "name": "a\x00b"}),
    ("POST", "/contracts", {"address": "0x" + "11" * 20, "name": "a", "tags": ["\x00"]}),
    (
        "POST",
        "/contracts",
        {"address": "0x" + "11" * 20, "name": "a", "abi_json": [{"type": "\x00"}]},
    ),
    ("POST", "/providers", {"name": "\x00", "url": "http://a/"}),
    ("POST", "/providers", {"name": "a", "url": "http://a:port/"}),
    ("POST", "/providers", {"name": "a", "url": "http://[::1"}),
    (
        "POST",
        "/silences",
        {"matchers": {"alert_id": 10**40}, "starts_at": 0, "ends_at": 5, "author": "a"},
    ),
    ("POST", "/alerts/1/events/1/ack", {"by": "\x00"}),
    ("PATCH", "/contracts/1", {"name": None}),
    ("PATCH", "/contracts/1", {"tags": None}),
]


async def test_what_cannot_be_stored_is_refused(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_mobs(database_url, anvil, monkeypatch, work=False) as mobs:
        for method, path, body in REFUSED:
            answer = await mobs.http.request(method, path, json=body)
            assert answer.status_code == 422, (path, body, answer.text)
