"""Motify's money through killed workers, reorganisations, and others who act in between.

In every case: each participant declared once, with the share that the evidence gives, and the
archive says what the chain says. Counted on the chain, in the call data of what was mined.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_abi.abi import decode

from causeway.relayer import pauses
from causeway.relayer.pauses import Scope
from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from tests.glisk_app import until
from tests.motify_world import DAY, World, contributions, running_motify, worker

SOURCE = Path(__file__).parents[2] / "src" / "causeway"

#: Every named place on the way from the end to the archive; a new one is found by itself.
POINTS = sorted(
    {
        name
        for room in ("apps/motify", "pipelines", "indexing", "relayer")
        for file in (SOURCE / room).rglob("*.py")
        for name in re.findall(r'fault_point\("([a-z_.]+)"\)', file.read_text())
        # A reorganisation, and a transaction that is stuck, have tests of their own.
        if ".undo." not in name and name not in ("relayer.bumped", "glisk.filed")
    }
)
SOME = ("motify.decided", "motify.archiving", "relayer.sent_unrecorded")

#: In basis points: seven days of seven, six, one, none; whole WakaTime and Farcaster goals; and
#: somebody who connected nothing, which costs nothing unless it is set otherwise.
SHARES = (10_000, 8571, 1429, 0, 10_000)


@dataclass
class Ended:
    """A challenge that has ended, with its readings settled by grace."""

    world: World
    challenge: int
    start: int
    end: int
    shares: dict[str, int]

    async def check(self, *, by_hand: Mapping[str, int] | None = None) -> None:
        """Compare chain, archive and what should be; nobody declared twice."""
        contract, wanted = self.world.contract, {**self.shares, **(by_hand or {})}
        state = await contract.challenge(self.challenge)
        assert state.finalized
        assert {one.address.lower(): one.refund_bps for one in state.participants} == wanted
        declared = await declarations(self.world)
        assert set(declared.values()) <= {1}
        assert set(declared) == set(wanted)
        rows = await self.world.rows(
            "SELECT participant_address AS wallet, percent_ppm, tx_hash, "
            "stake_minor_units AS stake FROM motify.finished_participants"
        )
        assert {row["wallet"]: row["percent_ppm"] for row in rows} == {
            wallet: bps * 100 for wallet, bps in wanted.items()
        }
        assert all(row["stake"] == 10 * USDC and row["tx_hash"] for row in rows)

        async def nothing_is_owed() -> bool:
            # The archive may see that a finalization is final before the relayer has.
            await self.world.mine()
            return not await self.world.rows(
                "SELECT 1 FROM causeway.relayer_units WHERE state IN ('pending', 'bound')"
            )

        await until(nothing_is_owed, 60)


async def declarations(world: World) -> Counter[str]:
    """Return how often each wallet was declared, from transactions that did not revert."""
    logs: list[dict[str, Any]] = await world.node.rpc(
        "eth_getLogs", {"address": world.contract.address, "fromBlock": "0x0"}
    )
    topic = world.ctx.services.abi.event("ResultsDeclared").topic0
    selector = world.ctx.services.abi.function("declareResults").selector
    found: Counter[str] = Counter()
    for tx_hash in {log["transactionHash"] for log in logs if log["topics"][0] == topic}:
        data = bytes.fromhex(
            (await world.node.rpc("eth_getTransactionByHash", tx_hash))["input"][2:]
        )
        assert data[:4] == selector
        _, wallets, _ = decode(["uint256", "address[]", "uint256[]"], data[4:])
        found.update(str(wallet).lower() for wallet in wallets)
    return found


@pytest_asyncio.fixture
async def ended(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Ended]:
    """Five people whose challenge is over, and nobody at work yet."""
    contract = await MotifyContract.deploy(anvil)
    async with running_motify(
        database_url, anvil, contract, monkeypatch, worker=False, CHUNK_SIZE="2"
    ) as world:
        wallets = [one.address.lower() for one in people(5)]
        challenge, start, end = await world.challenge(dict.fromkeys(wallets, 10 * USDC))
        for number, good in enumerate((7, 6, 1, 0)):
            await world.connect_github(wallets[number], f"coder-{number}")
            world.sandbox.settings.github_contributions[f"coder-{number}"] = contributions(
                start, good
            )
        await world.travel_to(end + DAY)
        yield Ended(world, challenge, start, end, dict(zip(wallets, SHARES, strict=True)))


def test_every_step_of_the_app_has_a_place_where_it_can_be_killed() -> None:
    ours = {point for point in POINTS if point.startswith("motify.")}
    assert ours == {"motify.read", "motify.decided", "motify.verified", "motify.archiving"}


@pytest.mark.parametrize(
    "point", [p if p in SOME else pytest.param(p, marks=pytest.mark.long) for p in POINTS]
)
async def test_a_worker_killed_at_any_step_declares_nobody_twice(ended: Ended, point: str) -> None:
    world = ended.world
    async with worker(point) as victim:

        async def dead() -> bool:
            await world.mine()
            return victim.returncode is not None

        await until(dead, 60)
        assert victim.returncode == -signal.SIGKILL
    async with worker():
        await world.until_status(ended.challenge, "archived", 120, mining=True)
        await ended.check()


async def test_a_declaration_that_is_reorganised_away_is_made_again_once(ended: Ended) -> None:
    world = ended.world
    async with working(world.installation):
        # Mined, and not as deep yet as it must be.
        await world.until_status(ended.challenge, "declaring")

        async def all_mined() -> bool:
            return len(await declarations(world)) == len(ended.shares)

        await until(all_mined, 30)
        await world.node.rollback(1)
        await world.until_status(ended.challenge, "archived", mining=True)
        await ended.check()


async def test_who_is_declared_by_hand_in_between_is_left_out(ended: Ended) -> None:
    world, contract = ended.world, ended.world.contract
    first, second, *_ = ended.shares
    await _pause(world)
    async with working(world.installation):
        await world.until_status(ended.challenge, "declaring", mining=True)
        # One as the evidence says, and one not: the chain is the truth for both.
        by_hand = {first: ended.shares[first], second: 5000}
        await contract.declare(ended.challenge, by_hand)
        await _resume(world)
        await world.until_status(ended.challenge, "archived", mining=True)
        await ended.check(by_hand=by_hand)
    incidents = await world.rows("SELECT kind, subject, detail FROM motify.incidents")
    assert [(one["kind"], one["detail"]["on_chain"]) for one in incidents] == [
        ("declared_differs", 5000)
    ]


async def test_after_seven_days_nothing_is_sent_and_the_claims_are_followed(ended: Ended) -> None:
    world, contract = ended.world, ended.world.contract
    wallets = list(ended.shares)
    await _pause(world)
    async with working(world.installation):
        await world.until_status(ended.challenge, "declaring", mining=True)
        await world.travel_to(ended.end + 7 * DAY + 60)
        await world.until_status(ended.challenge, "timed_out", mining=True)
        await _resume(world)
        await contract.claim_timeout(ended.challenge, wallets[:-1])
        await world.mine(5)
        assert await world.status(ended.challenge) == "timed_out"
        await contract.claim_timeout(ended.challenge, wallets[-1:])
        await world.until_status(ended.challenge, "archived", mining=True)
    assert not await declarations(world)
    rows = await world.rows("SELECT percent_ppm, reason, tx_hash FROM motify.finished_participants")
    assert {(row["percent_ppm"], row["reason"]) for row in rows} == {(1_000_000, "timeout_refund")}
    assert all(row["tx_hash"] for row in rows)
    told = await world.rows("SELECT kind, count(*) AS n FROM motify.reminders GROUP BY 1")
    assert {row["kind"]: row["n"] for row in told}["timeout_refund_claimable"] == len(wallets)


async def test_a_batch_that_reverts_because_of_a_claim_is_never_taken_for_paid(
    ended: Ended,
) -> None:
    world, contract = ended.world, ended.world.contract
    claimer = next(iter(ended.shares))
    await world.node.rpc("evm_setAutomine", False)
    async with working(world.installation):
        await world.until_status(ended.challenge, "declaring")

        async def waiting() -> bool:
            pool = await world.node.rpc("txpool_status")
            return int(pool["pending"], 16) >= 1

        await until(waiting, 30)
        # The seven days end before the block that would have held it; the claim comes first.
        data = contract.encode("claimTimeoutRefund", ended.challenge)
        await world.node.rpc("anvil_impersonateAccount", claimer)
        claim: dict[str, Any] = {
            "from": claimer,
            "to": contract.address,
            "data": data,
            "gas": hex(300_000),
            "maxFeePerGas": hex(10**12),
            "maxPriorityFeePerGas": hex(10**11),
        }
        await world.node.rpc("eth_sendTransaction", claim)
        await world.node.rpc("evm_setNextBlockTimestamp", ended.end + 7 * DAY + 60)
        await world.node.rpc("evm_mine")
        await world.node.rpc("evm_setAutomine", True)
        await world.until_status(ended.challenge, "timed_out", mining=True)
        declared = await declarations(world)
        assert claimer not in declared
        rest = [one for one in ended.shares if one != claimer and one not in declared]
        await contract.claim_timeout(ended.challenge, rest)
        await world.until_status(ended.challenge, "archived", mining=True)
    rows = await world.rows(
        "SELECT participant_address AS w, reason FROM motify.finished_participants"
    )
    reasons = {row["w"]: row["reason"] for row in rows}
    assert all(reasons[one] == "timeout_refund" for one in (claimer, *rest))
    state = await contract.challenge(ended.challenge)
    assert state.finalized


async def _pause(world: World) -> None:
    async with world.installation.database.transaction() as session:
        await pauses.pause(
            session,
            Scope.of("motify", None, None),
            "no-new",
            reason="a test",
            by="a test",
            now=datetime.now(UTC),
        )


async def _resume(world: World) -> None:
    async with world.installation.database.transaction() as session:
        assert await pauses.resume(session, Scope.of("motify", None, None))
