"""VeriFrame's registry, our contract of the published interface, executed: every rule and event.

The vectors are those that the published class was seen to give.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from causeway.chains.starknet.abi import Abi
from causeway.chains.starknet.felts import from_short_string, padded, selector
from causeway.sandbox.starknet.node import StarknetNode
from tests.starknet_world import (
    BUILD,
    TOKEN_ABI,
    Account,
    abi_of,
    deploy_account,
    deploy_token,
    invoke,
    starknet,
)

PUBLISHED = Abi.from_json(BUILD.parents[1] / "veriframe" / "veriframe.abi.json")
OURS = abi_of("job_registry")
REGISTRY = padded(0x9E6)


class Market:
    """The registry with its token, an owner, a creator and a worker."""

    def __init__(self, node: StarknetNode) -> None:
        self.node = node
        self.token = ""
        self.owner: Account
        self.creator: Account
        self.worker: Account
        #: A moment that no block has reached yet; deadlines are counted from it.
        self.now = node.ledger.now() + 1000

    async def open(self) -> None:
        self.owner, self.creator, self.worker = [
            await deploy_account(self.node, n) for n in (1, 2, 3)
        ]
        self.token = await deploy_token(self.node)
        class_hash = await self.node.ledger.declare(BUILD / "job_registry.json")
        address = int(REGISTRY, 16)
        await self.node.ledger.deploy(
            class_hash, address, [int(self.owner.address, 16), int(self.token, 16)]
        )

    async def do(
        self, who: Account, function: str, *args: object, at: int | None = None
    ) -> list[tuple[str, dict[str, Any]]] | str:
        """Call a function; return what the registry told, or why it refused."""
        self.node.ledger.next_time = at
        sent = await invoke(self.node, who, (REGISTRY, PUBLISHED.encode(function, *args)))
        return self.outcome(sent)

    def outcome(self, tx_hash: str) -> list[tuple[str, dict[str, Any]]] | str:
        found = self.node.ledger.find(tx_hash)
        assert found is not None
        if found[0].reverted is not None:
            return found[0].reverted
        events: list[tuple[str, dict[str, Any]]] = []
        for one in found[0].events:
            if int(one["from"], 16) != int(REGISTRY, 16):
                continue
            (event,) = [e for e in PUBLISHED.events.values() if e.topic0 == one["keys"][0]]
            keys, data = ([int(x, 16) for x in one[part]] for part in ("keys", "data"))
            values = event.values(keys, data)
            names = [p.name for p in event.inputs]
            events.append((event.name, dict(zip(names, values, strict=True))))
        return events

    async def view(self, function: str, *args: object) -> Any:
        felts = PUBLISHED.encode(function, *args)
        calldata = [int.from_bytes(felts[n : n + 32], "big") for n in range(32, len(felts), 32)]
        answer = await self.node.ledger.call(
            int(REGISTRY, 16), selector(function), calldata, self.node.ledger.newest
        )
        data = b"".join(int(x, 16).to_bytes(32, "big") for x in answer)
        (value,) = PUBLISHED.decode_result(function, data)
        return value

    async def job(self, reward: int = 100, deadline: int = 10**10, minimum: int = 0) -> str:
        """Approve and create in one transaction; return its hash."""
        mint = TOKEN_ABI.encode("mint", self.creator.address, reward)
        approve = TOKEN_ABI.encode("approve", REGISTRY, reward)
        cid = (from_short_string("QmA"), from_short_string("B"))
        args = (*cid, reward, deadline, minimum)
        create = PUBLISHED.encode("create_job_with_requirements", *args)
        calls = ((self.token, mint), (self.token, approve), (REGISTRY, create))
        return await invoke(self.node, self.creator, *calls)

    async def balance(self, who: Account) -> int:
        low, high = await self.node.ledger.read(self.token, "balance_of", int(who.address, 16))
        return high << 128 | low


@pytest.fixture
async def market() -> AsyncGenerator[Market]:
    async with starknet() as node:
        made = Market(node)
        await made.open()
        yield made


def test_the_interface_is_the_published_one() -> None:
    def events(abi: Abi) -> dict[str, Any]:
        return {
            one.name: (one.topic0, [(p.name, p.type, p.indexed) for p in one.inputs])
            for one in abi.events.values()
        }

    def functions(abi: Abi) -> dict[str, Any]:
        return {
            one.name: ([(p.name, p.type) for p in one.inputs], [p.type for p in one.outputs])
            for one in abi.functions.values()
        }

    assert events(OURS) == events(PUBLISHED)
    assert functions(OURS) == functions(PUBLISHED)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_build_is_of_these_sources() -> None:
    script = BUILD.parents[1] / "veriframe" / "build.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0


@pytest.mark.timeout(170)
async def test_a_job_lives_from_escrow_to_rating(market: Market) -> None:
    worker, creator = market.worker.address, market.creator.address
    ((_, registered),) = await market.do(
        market.worker, "register_worker", from_short_string("QmW"), at=market.now + 50
    )
    assert registered == {
        "worker": worker,
        "info_cid": 0x516D57,
        "registration_time": market.now + 50,
    }
    assert await market.view("get_worker_status", worker) == (False, 500, 0, 0)
    told = await market.do(market.owner, "verify_worker", worker, True)
    assert told == [
        ("WorkerVerified", {"worker": worker, "verified": True, "verifier": market.owner.address})
    ]
    assert await market.view("get_worker_status", worker) == (True, 600, 0, 0)
    deadline = market.now + 500
    assert market.outcome(await market.job(100, deadline)) == [
        (
            "JobCreated",
            {"job_id": 1, "creator": creator, "reward_amount": 100, "deadline": deadline},
        )
    ]
    assert await market.view("get_job_asset_cid", 1) == (0x516D41, 0x42)
    assert await market.view("get_minimum_reputation_for_job", 1) == 400
    early = await market.do(market.creator, "finalize_job", 1)
    assert "Deadline not reached" in early
    result = (from_short_string("QmR"), 0)
    assert "Creator cannot be worker" in await market.do(
        market.creator, "submit_result", 1, *result
    )
    assert await market.do(market.worker, "submit_result", 1, *result) == [
        ("ResultSubmitted", {"job_id": 1, "worker": worker})
    ]
    assert await market.do(market.owner, "finalize_job", 1, at=deadline) == [
        ("JobFinalized", {"job_id": 1, "worker": worker, "reward_amount": 100})
    ]
    assert await market.balance(market.worker) == 100
    assert "Job already completed" in await market.do(market.owner, "finalize_job", 1)
    rate = ("update_worker_reputation", worker, 1)
    updated = {"worker": worker, "job_id": 1, "old_reputation": 600}
    assert await market.do(market.creator, *rate, 0) == [
        ("ReputationUpdated", {**updated, "new_reputation": 585, "quality_score": 0})
    ]
    # A rating of 0 leaves the job unrated, as with the published class.
    assert await market.do(market.creator, *rate, 50) == []
    assert "Job already rated" in await market.do(market.creator, *rate, 90)
    slashed = await market.do(market.owner, "slash_worker_reputation", worker, 5000)
    assert slashed == [
        (
            "ReputationSlashed",
            {
                "worker": worker,
                "old_reputation": 585,
                "new_reputation": 1,
                "slash_amount": 5000,
                "reason": from_short_string("misconduct"),
            },
        )
    ]
    assert await market.view("get_worker_status", worker) == (True, 1, 0, 2)
    await market.do(market.owner, "verify_worker", worker, False)
    assert await market.view("get_worker_status", worker) == (False, 200, 0, 2)


@pytest.mark.timeout(170)
async def test_what_must_not_be_is_refused_in_the_published_words(market: Market) -> None:
    worker = market.worker.address
    assert "Worker info CID required" in await market.do(market.worker, "register_worker", 0)
    assert "Worker not registered" in await market.do(market.owner, "verify_worker", worker, True)
    assert "Caller is not the owner" in await market.do(
        market.worker, "verify_worker", worker, True
    )
    assert "Deadline must be in future" in market.outcome(await market.job(1, 5))
    assert "Reward must be positive" in market.outcome(await market.job(0))
    assert "Max reputation is 1000" in market.outcome(await market.job(1, 10**10, 1001))
    unfunded = await market.do(market.creator, "create_job", 1, 0, 10**9, 10**10)
    assert "ERC20: insufficient allowance" in unfunded
    assert "Job does not exist" in await market.do(market.owner, "finalize_job", 7)
    assert await market.do(market.owner, "pause") == [("Paused", {"account": market.owner.address})]
    assert "Pausable: paused" in market.outcome(await market.job())
    assert await market.view("is_paused") is True
    assert await market.view("get_job_counter") == 0
