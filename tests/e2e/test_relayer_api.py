"""The relayer's pages and commands as operators see them, over a real socket and a real shell."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from causeway.runtime.discover import find_apps
from causeway.runtime.doctor import examine
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from tests.glisk_app import Glisk, running_glisk, until

TOKEN = "of-the-installation"
APP_TOKEN = "of-glisk"


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


async def relayer(*arguments: str, **environment: str) -> Ran:
    """Run `causeway relayer …` with the environment of the test."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from causeway.cli import main; main()", "relayer", *arguments),
        env={**os.environ, "COLUMNS": "250", "NO_COLOR": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Ran(process.returncode or 0, out.decode(), err.decode())


@pytest_asyncio.fixture
async def glisk(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK at work, with a token for its own operators and one for the installation's."""
    async with running_glisk(
        database_url,
        anvil,
        glisk_contract,
        monkeypatch,
        CAUSEWAY_ADMIN_TOKEN=TOKEN,
        ADMIN_TOKEN=APP_TOKEN,
    ) as running:
        running.http.headers["Authorization"] = f"Bearer {APP_TOKEN}"
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def the_list(glisk: Glisk, token: str = TOKEN, **params: Any) -> list[dict[str, Any]]:
    answer = await glisk.http.get("/relayer/transactions", params=params, headers=bearer(token))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["transactions"]
    return found


async def test_every_transaction_has_a_page_that_says_all(glisk: Glisk) -> None:
    await glisk.mint(glisk.node.accounts[5].address, 2)
    await glisk.until_status(1, "revealed")
    await glisk.until_status(2, "revealed")
    lines = await the_list(glisk, state="confirmed", app="glisk")
    assert lines
    assert {line["state"] for line in lines} == {"confirmed"}
    assert await the_list(glisk, app="mobs") == []
    answer = await glisk.http.get(f"/relayer/transactions/{lines[-1]['id']}", headers=bearer(TOKEN))
    page = answer.json()
    keeper = glisk.node.accounts[1].address
    assert (page["account"], page["nonce"], page["chain_id"]) == (keeper, 0, glisk.node.chain_id)
    assert page["intent"]["to"] == glisk.contract.address
    assert page["intent"]["data"].startswith(page["intent"]["selector"])
    assert page["intent"]["units"][0]["state"] == "settled"
    assert page["reason"].startswith(f"it is confirmed in block {page['receipt']['block_number']}")
    assert page["hashes"] == [one["hash"] for one in page["attempts"]]
    on_chain = await glisk.node.rpc("eth_getTransactionReceipt", page["hash"])
    cost = int(on_chain["gasUsed"], 16) * int(on_chain["effectiveGasPrice"], 16)
    assert (page["cost_wei"], page["fee_wei"]) == (str(cost), str(cost))
    assert int(page["most_wei"]) >= cost
    assert page["attempts"][0]["purpose"] == "first"
    story = [event["what"] for event in page["story"]]
    assert story == ["planned", "signed", "sent", "mined", "confirmed"]
    # Bytes that are signed are nobody's business.
    raw = (await glisk.node.rpc("eth_getRawTransactionByHash", page["hash"]))[2:]
    assert raw not in answer.text

    shown = await relayer("show", page["id"])
    assert shown.code == 0, shown.err
    assert page["reason"] in shown.out
    assert page["hash"] in shown.out
    as_json = await relayer("show", page["id"], "--json")
    assert json.loads(as_json.out) == page
    listed = await relayer("list", "--app", "glisk", "--json")
    assert page["id"] in {one["id"] for one in json.loads(listed.out)["transactions"]}
    assert "confirmed" in (await relayer("list", "--state", "confirmed")).out
    wrong = await relayer("list", "--state", "lost-and-found")
    assert (wrong.code, "planned, signed" in wrong.err) == (1, True)
    nobody = await relayer("show", str(uuid4()))
    assert (nobody.code, nobody.err.startswith("causeway: there is no transaction")) == (1, True)
    held = await relayer("accounts")
    assert keeper in held.out


async def test_pages_follow_one_another_without_gaps(glisk: Glisk) -> None:
    for _ in range(3):
        await glisk.mint(glisk.node.accounts[5].address, 1)
        token = int(await glisk.contract.call("totalSupply"))
        await glisk.until_status(token, "revealed")
    everything = [line["id"] for line in await the_list(glisk)]
    assert len(everything) >= 3
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 1} | ({} if cursor is None else {"cursor": cursor})
        answer = await glisk.http.get("/relayer/transactions", params=params, headers=bearer(TOKEN))
        seen += [line["id"] for line in answer.json()["transactions"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == everything


async def test_only_operators_see_it_and_an_app_s_token_opens_the_app_only(glisk: Glisk) -> None:
    paths = ("/relayer/transactions", f"/relayer/transactions/{uuid4()}", "/relayer/accounts")
    del glisk.http.headers["Authorization"]
    for path in paths:
        assert (await glisk.http.get(path)).status_code == 401
        assert (await glisk.http.get(path, headers=bearer("wrong"))).status_code == 403
    for path in ("/relayer/pause", "/relayer/resume"):
        assert (await glisk.http.post(path, json={})).status_code == 401
        assert (await glisk.http.post(path, json={}, headers=bearer("-"))).status_code == 403
    assert await the_list(glisk, APP_TOKEN) == []
    mine = bearer(APP_TOKEN)
    other = await glisk.http.get("/relayer/transactions", params={"app": "mobs"}, headers=mine)
    assert (other.status_code, other.json()["detail"]) == (403, "this token is for glisk only")
    assert (await glisk.http.get("/relayer/accounts", headers=mine)).status_code == 403
    assert (await glisk.http.get("/relayer/accounts", headers=bearer(TOKEN))).status_code == 200
    # What an app's token stops is the app, even when it asks for everything.
    paused = await glisk.http.post("/relayer/pause", json={}, headers=mine)
    assert paused.json()["app"] == "glisk"


async def test_paused_is_paused_by_either_door_and_said_everywhere(glisk: Glisk) -> None:
    reason = "the contract is being looked at"
    stopped = await relayer("pause", "--app", "glisk", "--reason", reason)
    assert (stopped.code, stopped.out.strip()) == (0, "paused (no-sign): app glisk")
    await glisk.mint(glisk.node.accounts[5].address, 1)
    await glisk.until_status(1, "ready")
    accounts = await glisk.http.get("/relayer/accounts", headers=bearer(TOKEN))
    assert [(p["app"], p["reason"]) for p in accounts.json()["pauses"]] == [("glisk", reason)]
    assert reason in (await relayer("accounts")).out
    said = f"the keeper is held: paused (no-sign) by {getpass.getuser()}: {reason}"

    async def health_says_so() -> bool:
        return said in (await glisk.http.get("/health")).json()["problems"]

    await until(health_says_so)
    found = await examine(find_apps(["glisk"]), glisk.installation.kernel)
    (stopped_account,) = (one for one in found if "account" in one.name and not one.ok)
    assert reason in stopped_account.detail
    assert "causeway relayer resume" in (stopped_account.fix or "")
    everything = await glisk.http.post("/relayer/resume", json={}, headers=bearer(TOKEN))
    assert everything.status_code == 404
    nothing = await relayer("resume")
    assert (nothing.code, "nothing is paused for everything" in nothing.err) == (1, True)
    assert "paused: app glisk" in nothing.err
    assert await the_list(glisk) == []
    ended = await glisk.http.post("/relayer/resume", json={"app": "glisk"}, headers=bearer(TOKEN))
    assert ended.json() == {"resumed": "app glisk", "pauses": []}
    await glisk.until_status(1, "revealed")


async def test_wrong_input_names_the_field(glisk: Glisk) -> None:
    headers = bearer(TOKEN)
    for params, field in (
        ({"cursor": "x"}, "query.cursor"),
        ({"account": "0x12"}, "query.account"),
        ({"limit": 101}, "query.limit"),
        ({"state": "gone"}, "query.state"),
        ({"chain_id": 0}, "query.chain_id"),
    ):
        answer = await glisk.http.get("/relayer/transactions", params=params, headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["path"].startswith(field)
    bad = {"mode": "hold:funds", "who": "me"}
    answer = await glisk.http.post("/relayer/pause", json=bad, headers=headers)
    assert {one["path"] for one in answer.json()["errors"]} == {"body.mode", "body.who"}
    answer = await glisk.http.post("/relayer/pause", json={"account": "0x1"}, headers=headers)
    assert answer.status_code == 422
    away = await glisk.http.get("/relayer/transactions/17", headers=headers)
    assert away.status_code == 422


async def test_without_a_token_this_machine_may_ask(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False
    ) as running:
        assert (await running.http.get("/relayer/transactions")).status_code == 200
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        answer = await running.http.get("/relayer/transactions", headers=forwarded)
        assert answer.status_code == 403


async def test_an_old_database_is_said_to_be_old(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    ran = await relayer("list")
    assert (ran.code, ran.out) == (1, "")
    assert "the database is not up to date" in ran.err
    assert "causeway migrate" in ran.err
