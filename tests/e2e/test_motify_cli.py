"""Motify by hand: the hourly pass, verdicts, orders, and starts that are refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from tests.motify_world import DAY, World, contributions, running_motify

ANN, BOB = (one.address.lower() for one in people(2))


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


async def run(*command: str) -> Ran:
    """Run a Python program to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), 100)
    return Ran(process.returncode or 0, out.decode(), error.decode())


async def motify(*arguments: str) -> Ran:
    """Run `causeway motify …`."""
    return await run("-m", "causeway.cli", "motify", *arguments)


@pytest_asyncio.fixture
async def ended(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[World, int]]:
    """Two people whose challenge is over, and nobody at work."""
    contract = await MotifyContract.deploy(anvil)
    async with running_motify(database_url, anvil, contract, monkeypatch, worker=False) as world:
        challenge, start, end = await world.challenge({ANN: 7 * USDC, BOB: 9 * USDC})
        for wallet, login, good in ((ANN, "ann", 7), (BOB, "bob", 3)):
            await world.connect_github(wallet, login)
            world.sandbox.settings.github_contributions[login] = contributions(start, good)
        await world.travel_to(end + DAY)
        yield world, challenge


async def test_passes_of_a_cron_settle_everything_and_two_at_once_are_harmless(
    ended: tuple[World, int], tmp_path: Path
) -> None:
    world, challenge = ended
    dry = await motify("process", "--dry-run")
    assert dry.code == 0, dry.error
    report = dry.json
    assert (report["ready_count"], report["details"]["participants_indexed"]) == (1, 2)
    assert report["refresh"]["fetched"] == 1
    assert report["processed"][0]["declare"]["dry_run"] is True
    assert report["processed"][0]["waits_for"] == "ready to declare, and SEND_TX is off"
    assert not await world.rows("SELECT 1 FROM causeway.relayer_transactions")

    job = ("-m", "causeway.apps.motify.process_ready_all")
    first, second = await asyncio.gather(run(*job), run(*job))
    assert (first.code, second.code) == (0, 0), first.error + second.error
    await world.mine(3)
    for _ in range(6):
        done = await motify("process")
        assert done.code == 0, done.error
        await world.mine(3)
        if await world.status(challenge) == "archived":
            break
    assert await world.status(challenge) == "archived"
    state = await world.contract.challenge(challenge)
    assert {one.address.lower(): one.refund_bps for one in state.participants} == {
        ANN: 10_000,
        BOB: 4286,
    }
    sent = await world.rows(
        "SELECT kind, count(*) AS n FROM causeway.relayer_transactions GROUP BY 1 ORDER BY 1"
    )
    assert [(row["kind"], row["n"]) for row in sent] == [("declare", 1), ("finalize", 1)]

    shown = await motify("explain", str(challenge), BOB)
    assert shown.code == 0, shown.error
    assert "428571 ppm = 4286 basis points" in shown.out
    assert "as computed" in shown.out
    exported = tmp_path / "evidence.json"
    exported.write_text((await motify("explain", str(challenge), BOB, "--json")).out)
    alone = await motify("explain", "--file", str(exported))
    assert alone.code == 0, alone.error
    assert "4286 basis points" in alone.out
    forged = json.loads(exported.read_text())
    forged["document"] = forged["document"].replace('"9000000"', '"9000001"')
    exported.write_text(json.dumps(forged))
    refused = await motify("explain", "--file", str(exported))
    assert refused.code == 1
    assert "does not follow" in refused.error

    listed = (await motify("list", "--json")).json
    assert [(one["challenge_id"], one["status"]) for one in listed] == [(challenge, "archived")]
    assert (await motify("incidents", "--json")).json == []


async def test_wrong_words_are_named_with_what_is_allowed(ended: tuple[World, int]) -> None:
    unknown = await motify("explain", "7", "0xnobody")
    assert unknown.code == 1
    assert "wallet: '0xnobody' is not an address, 0x and 40 hex digits" in unknown.error
    nothing = await motify("explain", "7", ANN)
    assert nothing.code == 1
    assert "there is no evidence" in nothing.error
    assert (await motify("explain")).code == 1
    missing = await motify("rule", "99", "--by", "eve", "--why", "x", "--percent-ppm", "5")
    assert missing.code == 1
    assert "challenge 99 is not known" in missing.error
    early = await motify("declare-late", "0", "--by", "eve", "--why", "x")
    assert early.code == 1


async def test_a_key_that_is_not_the_owner_s_stops_the_start(
    ended: tuple[World, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = ended
    stranger = world.node.accounts[3]
    monkeypatch.setenv("PRIVATE_KEY", stranger.private_key)
    refused = await motify("list")
    assert refused.code == 1
    assert stranger.address.lower() in refused.error
    assert world.contract.owner.address.lower() in refused.error
    assert stranger.private_key[2:] not in refused.error + refused.out
    monkeypatch.setenv("SEND_TX", "perhaps")  # which is no
    assert (await motify("list")).code == 0


async def test_another_scale_than_the_contract_s_stops_the_start(
    ended: tuple[World, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAKE_TOKEN_DECIMALS", "18")
    refused = await motify("list")
    assert refused.code == 1
    assert "STAKE_TOKEN_DECIMALS is 18; stakes have 6 in this contract" in refused.error
    monkeypatch.setenv("MOTIFY_CONTRACT_ADDRESS", "0x" + "77" * 20)
    refused = await motify("list")
    assert refused.code == 1
    assert "does not answer as Motify does" in refused.error


async def test_the_abi_of_an_older_deployment_is_refused(
    ended: tuple[World, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Path(__file__).parents[2] / "src/causeway/apps/motify/abi.json"
    old: list[dict[str, Any]] = json.loads(source.read_text())
    for entry in old:
        if entry.get("name") == "getChallengeById":
            parts = entry["outputs"][0]["components"]
            entry["outputs"][0]["components"] = [p for p in parts if p["name"] != "name"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"abi": old}))
    monkeypatch.setenv("MOTIFY_CONTRACT_ABI_PATH", str(path))
    refused = await motify("list")
    assert refused.code == 1
    assert "MOTIFY_CONTRACT_ABI_PATH: getChallengeById returns" in refused.error
    path.write_text(json.dumps({"abi": json.loads(source.read_text())}))
    assert (await motify("list")).code == 0


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_demo_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_DATA_DIR", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "causeway.cli", "demo", "--app", "motify"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 390)
    assert process.returncode == 0, out.decode()
    assert "3 declarations, 3 finalizations, 450 people" in " ".join(out.decode().split())
