"""A challenge as its people see it over HTTP: ready, on the way, previewed, decided, proved."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from causeway.apps.motify import explaining
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from tests.chain.proxy import fault_proxy
from tests.glisk_app import personal_sign, until
from tests.motify_app import WAKA_KEY, Served, moment, served_motify
from tests.motify_world import DAY, contributions

ANN, BOB, CYD, DAN = people(4)
RECIPIENT = "0x" + "ee" * 20


@pytest_asyncio.fixture(name="m")
async def _served(
    database_url: str,
    anvil: AnvilNode,
    motify_contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Served]:
    async with served_motify(
        database_url,
        anvil,
        motify_contract,
        monkeypatch,
        worker=True,
        NO_CONNECTION_PERCENT_PPM="0",
    ) as served:
        yield served


async def body(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


def evidence_of(who: DevAccount, challenge: int, by: DevAccount | None = None) -> dict[str, Any]:
    at = moment()
    said = f"Read evidence of challenge {challenge} for wallet {who.address.lower()} at {at}"
    return {"signature": personal_sign(by or who, said), "timestamp": at}


async def preview(m: Served, challenge: int) -> dict[str, Any]:
    path = f"/jobs/declare-preview/{challenge}?include_items=true"
    return await body(await m.job("POST", path))


def calendar(start: int, values: list[int]) -> dict[date, tuple[int, int, int]]:
    first = datetime.fromtimestamp(start, UTC).date()
    return {first + timedelta(days=n): (value, 0, 0) for n, value in enumerate(values)}


async def test_from_joining_to_the_proof(m: Served) -> None:
    world, contract = m.world, m.world.contract
    stakes = {ANN.address: 100 * USDC, BOB.address: 50 * USDC, CYD.address: 25 * USDC}
    challenge, start, end = await world.challenge(stakes, days=5, recipient=RECIPIENT)
    first = datetime.fromtimestamp(start, UTC).date()
    days = [str(first + timedelta(days=n)) for n in range(5)]
    assert outcome_ok(await m.link(ANN, "ann"))
    assert outcome_ok(await m.link(BOB, "bob"))
    logins = world.sandbox.settings.github_contributions
    logins["ann"] = contributions(start, 5)
    logins["bob"] = calendar(start, [1, 0, 3, 1, 1])

    async def known() -> bool:
        answer = await m.get(f"/challenges/{challenge}/readiness/{CYD.address}")
        return answer.status_code == 200 and bool(answer.json()["joined"])

    await until(known)
    nothing = await m.get(f"/challenges/{challenge}/progress/{ANN.address}")
    assert await body(nothing) == {"progress": [], "currentlySucceeded": False}
    open_ = await body(await m.get(f"/challenges/{challenge}/results"))
    assert (open_["status"], open_["results"]) == ("open", [])
    early = await m.job("POST", f"/jobs/declare-preview/{challenge}")
    assert (await body(early, 409))["ok"] is False

    # The third day, and a day that is dated back afterwards.
    await world.travel_to(start)
    await world.until_status(challenge, "live")
    await world.travel_to(start + 2 * DAY + 700)
    await until(lambda: read_days(m, challenge, BOB, 3))
    shown = await body(await m.get(f"/challenges/{challenge}/progress/{BOB.address}"))
    assert shown.pop("read_at").endswith("Z")
    assert shown == {
        "progress": [
            {"date": days[0], "achieved": True, "value": 1},
            {"date": days[1], "achieved": False, "value": 0},
            {"date": days[2], "achieved": True, "value": 3},
        ],
        "currentlySucceeded": False,
    }
    await until(lambda: read_days(m, challenge, ANN, 3))
    anns = await body(await m.get(f"/challenges/{challenge}/progress/{ANN.address.lower()}"))
    assert anns["currentlySucceeded"] is True
    # The last day Bob seems to do nothing at first, and then Ann's second day grows.
    logins["ann"][first + timedelta(days=1)] = (9, 0, 0)

    await world.travel_to(end)
    await world.until_status(challenge, "measuring")
    counted = await body(await m.job("POST", "/jobs/index-and-cache"))
    assert counted["details"] == {"ready": 1, "participants_indexed": 3}

    async def read_all() -> bool:
        rows = await world.rows(
            "SELECT count(*) AS n FROM motify.scores WHERE status IN ('settled', 'resting')"
        )
        return rows[0]["n"] == 3

    await until(read_all)
    before = await world.rows("SELECT * FROM motify.scores ORDER BY wallet")
    seen = await preview(m, challenge)
    assert await world.rows("SELECT * FROM motify.scores ORDER BY wallet") == before
    assert (seen["ok"], seen["items"], seen["challenge_id"]) == (True, 3, challenge)
    shares = {ANN.address.lower(): 10_000, BOB.address.lower(): 8_000, CYD.address.lower(): 0}
    (chunk,) = seen["declare"]["payload"]["chunks"]
    assert chunk["participants"] == sorted(shares)
    assert chunk["refundPercentages"] == [shares[one] for one in sorted(shares)]
    assert (seen["declare"]["dry_run"], seen["declare"]["tx_hashes"]) == (True, [])
    assert seen["declare"]["fee_params_preview_mode"] == "eip1559-auto"
    fees = seen["declare"]["fee_params_preview"]
    assert fees["maxFeePerGas"] == 2 * fees["baseFeePerGas"] + fees["maxPriorityFeePerGas"]
    details = {one["user"]: one for one in seen["items_detail"]}
    assert details[BOB.address.lower()] == {
        "user": BOB.address.lower(),
        "stake_minor_units": 50 * USDC,
        "percent_ppm": 800_000,
        "progress_ratio": 0.8,
    }
    assert details[CYD.address.lower()] == {
        "user": CYD.address.lower(),
        "stake_minor_units": 25 * USDC,
        "percent_ppm": 0,
        "progress_ratio": None,
        "reason": "no_connection",
    }
    simulation = seen["simulation"]
    assert simulation["effect"] == {
        "refund_minor_units": str(140 * USDC),
        "donation_minor_units": str(35 * USDC),
        "donation_of_all_minor_units": str(35 * USDC),
        "left_undeclared": 0,
    }
    assert simulation["on_chain_then"] == {
        "donation_of_all_minor_units": str(35 * USDC),
        "declared_participants": "3",
    }
    (call,) = simulation["calls"]
    assert call["ok"] is True
    assert 100_000 < call["gas"] < 400_000
    sent_data = bytes.fromhex(call["data"][10:])
    assert decode(["uint256", "address[]", "uint256[]"], sent_data) == (
        challenge, tuple(sorted(shares)), tuple(shares[one] for one in sorted(shares)),
    )  # fmt: skip
    # Nothing was sent.
    assert not any(p.declared for p in (await contract.challenge(challenge)).participants)

    await world.travel_to(end + DAY)
    await world.until_status(challenge, "archived", mining=True)
    await check_results(m, challenge, days, shares)
    await check_evidence(m, challenge, days, shares)
    after = await preview(m, challenge)
    assert (after["items"], after["declare"]["payload"]["chunks"]) == (0, [])
    assert after["items_detail"] == []
    for who, percent, wagered, donated in (
        (ANN, 100.0, 100.0, 0.0), (BOB, 80.0, 50.0, 10.0), (CYD, 0.0, 25.0, 25.0),
    ):  # fmt: skip
        assert (await m.get("/stats/user", wallet=who.address)).json() == {
            "wallet": who.address,
            "challenges_completed": 1,
            "success_percentage_overall": percent,
            "total_wagered": wagered,
            "total_donations": donated,
        }
    indexed = await body(await m.job("POST", "/jobs/index-and-cache"))
    assert indexed == {
        "ok": True,
        "index": {
            "fetched": 1, "indexed": 0, "only_ready_to_end": True, "exclude_finished": True,
            "skipped_archived": 1,
        },
        "details": {"ready": 0, "participants_indexed": 0},
    }  # fmt: skip


def outcome_ok(answer: httpx2.Response) -> bool:
    return answer.status_code == 303 and "success=true" in answer.headers["location"]


async def read_days(m: Served, challenge: int, who: DevAccount, count: int) -> bool:
    answer = await m.get(f"/challenges/{challenge}/progress/{who.address}")
    return len(answer.json().get("progress", ())) == count


async def check_results(m: Served, challenge: int, days: list[str], shares: dict[str, int]) -> None:
    found = await body(await m.get(f"/challenges/{challenge}/results"))
    assert (found["status"], found["days"], found["next_cursor"]) == ("archived", days, None)
    assert found["rule"]["goal_type"] == "contribution_per_day"
    onchain = await m.world.contract.challenge(challenge)
    declared = {one.address.lower(): one.refund_bps for one in onchain.participants}
    verdicts = {one["wallet"]: one for one in found["results"]}
    assert list(verdicts) == sorted(shares)
    for wallet, one in verdicts.items():
        assert one["bps"] == shares[wallet] == declared[wallet]
        assert one["declared"] is True
        assert one["batch_no"] == 0
        assert len(one["tx_hash"]) == 66
        stake = int(one["stake_minor_units"])
        assert int(one["refund_minor_units"]) == stake * one["bps"] // 10_000
        assert int(one["donation_minor_units"]) == stake - int(one["refund_minor_units"])
    assert len({one["tx_hash"] for one in verdicts.values()}) == 1
    bob = verdicts[BOB.address.lower()]
    assert bob["reason"] is None
    assert bob["reading"]["provider"] == "github"
    assert bob["reading"]["days"] == dict(zip(days, [1, 0, 3, 1, 1], strict=True))
    # By hand: 4 of 5 days have one contribution.
    good = sum(value >= 1 for value in bob["reading"]["days"].values())
    assert bob["ratio"] == {"numerator": str(good), "denominator": str(len(days))}
    ppm = (2 * good * 10**6 + len(days)) // (2 * len(days))
    assert (ppm + 50) // 100 == bob["bps"]
    cyd = verdicts[CYD.address.lower()]
    assert (cyd["reason"], cyd["ratio"], cyd["reading"]) == ("no_connection", None, None)
    # Whose account it was, only the person gets to see.
    assert '"ann"' not in json.dumps(found)
    first = await body(await m.get(f"/challenges/{challenge}/results", limit=2))
    assert [one["wallet"] for one in first["results"]] == sorted(shares)[:2]
    rest = await m.get(f"/challenges/{challenge}/results", limit=2, cursor=first["next_cursor"])
    assert [one["wallet"] for one in (await body(rest))["results"]] == sorted(shares)[2:]


async def check_evidence(
    m: Served, challenge: int, days: list[str], shares: dict[str, int]
) -> None:
    root = (await body(await m.get(f"/challenges/{challenge}/results")))["evidence_root"]
    for who in (ANN, BOB, CYD):
        path = f"/challenges/{challenge}/evidence/{who.address}"
        mallorys = await m.get(path, **evidence_of(who, challenge, by=DAN))
        assert mallorys.status_code == 401
        query = evidence_of(who, challenge)
        others = await m.get(f"/challenges/{challenge + 1}/evidence/{who.address}", **query)
        assert others.status_code == 401
        found = await body(await m.get(path, **query))
        assert (await m.get(path, **query)).status_code == 401
        assert found["root"] == root
        assert json.loads(found["document"]) == found["evidence"]
        # As OpenZeppelin's MerkleProof does it.
        node = keccak(keccak(text=found["document"]))
        assert "0x" + node.hex() == found["leaf"]
        for sibling in found["proof"]:
            other = bytes.fromhex(sibling[2:])
            node = keccak(min(node, other) + max(node, other))
        assert "0x" + node.hex() == root
        assert found["evidence"]["result"]["bps"] == shares[who.address.lower()]
        explaining.explain(explaining.imported(found))  # computes everything again
        if who is ANN:
            assert found["evidence"]["backdated_days"] == [days[1]]
            assert found["evidence"]["reading"]["account"]["name"] == "ann"
    nobody = await m.get(
        f"/challenges/{challenge}/evidence/{DAN.address}", **evidence_of(DAN, challenge)
    )
    assert nobody.status_code == 404


async def test_readiness_before_staking(m: Served) -> None:
    world = m.world
    stakes = {ANN.address: 10 * USDC}
    github, *_ = await world.challenge(stakes, goal_amount=3)
    wakatime, *_ = await world.challenge(
        stakes, days=2, api_type="WakaTime ", goal_type="coding-time", goal_amount=10
    )
    farcaster, *_ = await world.challenge(stakes, api_type="farcaster", goal_type="cast_per_day")
    unscorable, *_ = await world.challenge(stakes, goal_type="ISSUES_FIXED")

    async def ready(challenge: int, who: DevAccount = ANN) -> dict[str, Any]:
        return await body(await m.get(f"/challenges/{challenge}/readiness/{who.address}"))

    found = await ready(github)
    assert (found["ready"], found["scorable"]) == (False, True)
    assert found["account"] == {
        "provider": "github", "connected": False, "working": False, "username": None,
    }  # fmt: skip
    assert found["problems"] == ["No GitHub account is connected"]
    assert found["if_not_connected"]["percent_ppm"] == 0
    assert found["if_not_connected"]["meaning"] == "0 % of the stake comes back"
    assert found["if_not_readable"]["percent_ppm"] == 1_000_000
    assert found["needs"].startswith("At least 3 contributions on each of 7 days")
    assert len(found["days"]) == 7
    assert outcome_ok(await m.link(ANN, "ann"))
    found = await ready(github)
    assert (found["ready"], found["problems"]) == (True, [])
    assert found["account"]["username"] == "ann"
    # GitHub away: nobody knows.
    world.sandbox.fault("github", "status", status=503)
    found = await ready(github)
    assert (found["ready"], found["account"]["working"]) == (False, None)
    world.sandbox.clear_faults()
    assert (await ready(github))["ready"] is True
    # Taken back on GitHub's own page.
    world.sandbox.settings.github_revoked = ("ann",)
    found = await ready(github)
    assert found["ready"] is False
    assert (found["account"]["connected"], found["account"]["working"]) == (True, False)
    assert "connect the account again" in found["problems"][0]
    status = await body(await m.get(f"/oauth/status/github/{ANN.address}"))
    assert status["has_credentials"] is False

    found = await ready(wakatime)
    assert found["needs"].startswith("10 hours of coding in all, on 2 days")
    world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    assert (await m.save_key(ANN, WAKA_KEY)).status_code == 200
    assert (await ready(wakatime))["ready"] is True
    world.sandbox.settings.wakatime_keys = {}
    assert (await ready(wakatime))["ready"] is False

    found = await ready(farcaster)
    assert (found["ready"], found["account"]["connected"]) == (False, False)
    world.sandbox.fault("neynar", "status", status=503)
    found = await ready(farcaster)
    assert (found["account"]["connected"], found["account"]["working"]) == (None, None)
    assert found["problems"] == ["Farcaster does not answer now; try again"]
    world.sandbox.clear_faults()
    world.sandbox.settings.neynar_accounts[ANN.address.lower()] = (7, 9)
    found = await ready(farcaster)
    assert (found["ready"], found["account"]["username"]) == (True, "7")

    found = await ready(unscorable)
    assert (found["ready"], found["scorable"], found["account"]) == (False, False, None)
    assert (await m.get(f"/challenges/99/readiness/{ANN.address}")).status_code == 404
    assert (await m.get(f"/challenges/{github}/readiness/0x12")).status_code == 422


async def test_one_account_does_not_score_for_two_one_after_the_other(m: Served) -> None:
    world = m.world
    stakes = {ANN.address: 10 * USDC, BOB.address: 10 * USDC}
    challenge, start, _ = await world.challenge(stakes, days=3)
    assert outcome_ok(await m.link(ANN, "busy"))
    world.sandbox.settings.github_contributions["busy"] = contributions(start, 3)
    await world.travel_to(start)
    await until(lambda: read_days(m, challenge, ANN, 1))
    assert (await m.disconnect(ANN)).status_code == 200
    back = await m.link(BOB, "busy")
    assert "error=account_already_linked" in back.headers["location"]
    assert not (await m.get(f"/oauth/status/github/{BOB.address}")).json()["has_credentials"]
    # Who is not in that challenge may have it; and so may Ann again.
    assert outcome_ok(await m.link(DAN, "busy"))
    assert (await m.disconnect(DAN)).status_code == 200
    assert outcome_ok(await m.link(ANN, "busy"))


async def test_accounts_are_tried_only_so_often(m: Served) -> None:
    challenge, *_ = await m.world.challenge({ANN.address: 10 * USDC})
    assert outcome_ok(await m.link(ANN, "ann"))

    def asked() -> int:
        return sum(entry.path == "/github-api/user" for entry in m.world.sandbox.log())

    before = asked()
    path = f"/challenges/{challenge}/readiness/{ANN.address}"
    answers = [await body(await m.get(path)) for _ in range(30)]
    assert asked() - before == 20
    assert [answer["ready"] for answer in answers] == [True] * 20 + [False] * 10
    assert "often" in answers[-1]["problems"][0]


async def test_what_is_not_there_is_not_found(m: Served) -> None:
    challenge, start, _ = await m.world.challenge({ANN.address: 10 * USDC})
    for path in (
        f"/challenges/77/progress/{ANN.address}",
        "/challenges/77/results",
        f"/challenges/{challenge}/progress/{BOB.address}",
    ):
        answer = await m.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["detail"], str)
    await m.world.travel_to(start)
    await m.world.until_status(challenge, "live")
    answer = await m.get(f"/challenges/{challenge}/progress/{BOB.address}")
    assert answer.status_code == 404
    query = evidence_of(ANN, challenge)
    answer = await m.get(f"/challenges/{challenge}/evidence/{ANN.address}", **query)
    assert answer.status_code == 404  # nothing is decided


async def nothing_is_known_until_a_cron_asks(m: Served) -> None:
    """Without a worker, the job reads the chain itself; and again, with nothing new."""
    assert await m.world.rows("SELECT FROM motify.chain_challenges") == []
    for _ in range(2):
        indexed = await body(await m.job("POST", "/jobs/index-and-cache"))
        assert indexed["index"]["fetched"] == 1
        assert indexed["details"] == {"ready": 1, "participants_indexed": 3}
    assert await m.world.rows("SELECT FROM causeway.leases WHERE expires_at > now()") == []


async def test_a_preview_of_what_nobody_read_reads_it_and_keeps_nothing(
    database_url: str,
    anvil: AnvilNode,
    motify_contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served_motify(
        database_url, anvil, motify_contract, monkeypatch, CHUNK_SIZE="2", MAX_FEE_GWEI="50"
    ) as m:
        wallets = [ANN.address, BOB.address, CYD.address]
        stakes = dict.fromkeys(wallets, 10 * USDC)
        challenge, start, end = await m.world.challenge(stakes, days=3)
        assert outcome_ok(await m.link(ANN, "ann"))
        m.world.sandbox.settings.github_contributions["ann"] = contributions(start, 2)
        await m.world.travel_to(end - 10)
        assert (await m.job("POST", f"/jobs/declare-preview/{challenge}")).status_code == 409
        await m.world.travel_to(end)
        await nothing_is_known_until_a_cron_asks(m)
        await m.execute("DELETE FROM motify.settlements")
        seen = await preview(m, challenge)
        assert seen["state"] == {"status": None, "frozen": False, "waits_for": None}
        shares = dict.fromkeys((one.lower() for one in wallets), 10_000)
        shares[ANN.address.lower()] = 6_667
        chunks = seen["declare"]["payload"]["chunks"]
        assert [len(chunk["participants"]) for chunk in chunks] == [2, 1]
        listed = {
            wallet: share
            for chunk in chunks
            for wallet, share in zip(chunk["participants"], chunk["refundPercentages"], strict=True)
        }
        assert listed == shares
        assert seen["declare"]["fee_params_preview_mode"] == "eip1559-env"
        assert [call["ok"] for call in seen["simulation"]["calls"]] == [True, True]
        assert seen["simulation"]["on_chain_then"]["declared_participants"] == "3"
        assert await m.world.rows("SELECT FROM motify.readings") == []
        # Who is declared by somebody else is left out.
        await motify_contract.declare(challenge, {BOB.address: 10_000})
        seen = await preview(m, challenge)
        assert seen["items"] == 2
        assert BOB.address.lower() not in json.dumps(seen["declare"])
        short = await body(await m.job("POST", f"/jobs/declare-preview/{challenge}"))
        assert "items_detail" not in short


def missing(method: str) -> tuple[int, str, Any]:
    return -32601, f"the method {method} does not exist/is not available", None


async def test_a_preview_on_a_node_that_cannot_do_much(
    database_url: str,
    anvil: AnvilNode,
    motify_contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        fault_proxy(anvil.url) as node,
        served_motify(
            database_url,
            anvil,
            motify_contract,
            monkeypatch,
            WEB3_RPC_URL=node.url,
            MAX_FEE_GWEI="0.000001",
        ) as m,
    ):
        challenge, _, end = await m.world.challenge({ANN.address: 10 * USDC}, days=1)
        await m.world.travel_to(end)
        seen = await preview(m, challenge)
        fees = seen["declare"]["fee_params_preview"]
        # Above the cap nothing is sent, and a cap never has a tip above it.
        assert fees["waits"] is True
        assert fees["maxFeePerGas"] == 1_000 == fees["maxPriorityFeePerGas"]
        assert seen["declare"]["fee_params_preview_mode"] == "eip1559-env"

        node.errors = {name: missing(name) for name in ("eth_feeHistory", "eth_simulateV1")}
        refusal = keccak(text="Error(string)")[:4] + encode(["string"], ["Not authorized"])
        node.errors["eth_estimateGas"] = (3, "execution reverted", "0x" + refusal.hex())
        seen = await preview(m, challenge)
        assert seen["items"] == 1
        assert seen["declare"]["fee_params_preview_mode"] == "legacy-fallback"
        assert seen["declare"]["fee_params_preview"]["gasPrice"] > 0
        assert seen["simulation"]["ok"] is False
        assert seen["simulation"]["on_chain_then"] is None
        (call,) = seen["simulation"]["calls"]
        assert (call["ok"], "Not authorized" in call["revert"]) == (False, True)

        node.errors = {}
        node.status = 503
        silent = await body(await m.job("POST", f"/jobs/declare-preview/{challenge}"), 503)
        assert silent["ok"] is False
        assert node.url not in silent["error"]
