"""The relayer is killed at every step; each token is revealed once all the same."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from causeway.chains.evm.chain import EvmChain
from causeway.relayer.states import FAULT_POINTS
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at
from tests.chain.send_proxy import SendProxy, send_proxy

ROOT = Path(__file__).parent.parent.parent


class Relayers:
    """Starts relayers in processes of their own, and buries them."""

    def __init__(self, process: asyncio.subprocess.Process, config: dict[str, Any]) -> None:
        self._process = process
        self._config = config
        self.alive: set[int] = set()

    async def _ask(self, command: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()
        return int(await self._process.stdout.readline())

    async def start(self, fault: str = "") -> int:
        """Start one and return its pid."""
        pid = await self._ask({"start": self._config | {"fault": fault}})
        self.alive.add(pid)
        return pid

    async def ended(self, pid: int) -> int:
        """Wait until it has ended; return the signal that did it."""
        found = await self._ask({"wait": pid})
        self.alive.discard(pid)
        return found

    async def end(self, pid: int, by: signal.Signals) -> int:
        """End it by a signal, and return the one that did."""
        os.kill(pid, by)
        return await self.ended(pid)


class Scene:
    """A chain, a database, relayers to kill, and blocks that come by themselves."""

    def __init__(self, world: World, proxy: SendProxy, relayers: Relayers) -> None:
        self.world = world
        self.proxy = proxy
        self.relayers = relayers
        self.mining = asyncio.Event()
        self.mining.set()

    async def mine(self) -> None:
        """Make a block now and then, while blocks are allowed."""
        while True:
            await self.mining.wait()
            await self.world.node.mine()
            await asyncio.sleep(0.05)

    async def settled(self, *token_ids: int) -> None:
        """Wait until these tokens are settled."""
        async with asyncio.timeout(60):
            while True:
                units = await self.world.units()
                if all(units[token_id][0] == "settled" for token_id in token_ids):
                    return
                await asyncio.sleep(0.02)

    async def lease_runs_out(self) -> None:
        """Let the time of a dead relayer's lease pass."""
        async with self.world.database.transaction() as session:
            await session.execute(text("UPDATE causeway.leases SET expires_at = clock_timestamp()"))

    async def check(self, *token_ids: int) -> None:
        """Check that each token was revealed once and that no nonce was taken in vain."""
        await self.world.exactly_once(*token_ids)
        transactions = await self.world.transactions()
        nonces = [tx.nonce for tx in transactions if tx.nonce is not None]
        assert sorted(nonces) == list(range(len(nonces)))
        assert {tx.state for tx in transactions} <= {"confirmed", "dropped"}
        assert await self.world.chain.nonce(self.world.relayer.address) == len(nonces)
        mined = {tx.hash for tx in transactions if tx.state == "confirmed"}
        revealed = await self.world.revealed()
        assert mined == {tx_hash for hashes in revealed.values() for tx_hash in hashes}
        assert {tx_hash for hashes in (await self._settled()) for tx_hash in hashes} == mined

    async def _settled(self) -> list[list[str]]:
        return [[tx_hash] for _, tx_hash in (await self.world.units()).values() if tx_hash]


@pytest.fixture
async def chain(anvil: AnvilNode) -> AsyncGenerator[EvmChain]:
    opened = chain_at(anvil.url, anvil.chain_id)
    yield opened
    await opened.close()


@asynccontextmanager
async def _relayers(config: dict[str, Any]) -> AsyncGenerator[Relayers]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.relay",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    relayers = Relayers(process, config)
    try:
        yield relayers
    finally:
        for pid in list(relayers.alive):
            await relayers.end(pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@pytest.fixture
async def scene(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> AsyncGenerator[Scene]:
    world = await World.make(database, anvil, glisk_contract, chain)
    await anvil.rpc("evm_setAutomine", True)
    async with send_proxy(anvil.url) as proxy:
        config = {
            "database": database.url.render_as_string(hide_password=False),
            "rpc": proxy.url,
            "chain_id": anvil.chain_id,
            "contract": glisk_contract.address,
            "key": anvil.accounts[1].private_key,
            "kind": {"finality": 2, "stuck_after_s": 0.3},
            "settings": {"poll_s": 0.05, "lease_s": 5, "resend_first_s": 0.1, "recheck_s": 0.1},
        }
        async with _relayers(config) as relayers:
            scene = Scene(world, proxy, relayers)
            await scene.lease_runs_out()
            miner = asyncio.create_task(scene.mine())
            yield scene
            miner.cancel()
            await asyncio.gather(miner, return_exceptions=True)


async def test_a_relayer_killed_at_any_step_reveals_each_token_once(scene: Scene) -> None:
    world = scene.world
    await world.mint(len(FAULT_POINTS) * 2)
    done: list[int] = []
    for point in FAULT_POINTS:
        tokens = (len(done) + 1, len(done) + 2)
        if point == "relayer.bumped":
            scene.mining.clear()
            await world.node.rpc("evm_setAutomine", False)
        pid = await scene.relayers.start(point)
        await world.file(*tokens)
        async with asyncio.timeout(30):
            assert await scene.relayers.ended(pid) == signal.SIGKILL, point
        await scene.lease_runs_out()
        if point == "relayer.bumped":
            await world.node.rpc("evm_setAutomine", True)
            scene.mining.set()
        pid = await scene.relayers.start()
        await scene.settled(*tokens)
        assert await scene.relayers.end(pid, signal.SIGTERM) in (0, signal.SIGTERM), point
        done += tokens
        await world.exactly_once(*tokens)
    await scene.check(*done)


async def test_two_relayers_and_a_paused_one_send_nothing_twice(scene: Scene) -> None:
    world = scene.world
    await world.mint(6)
    first = await scene.relayers.start()
    second = await scene.relayers.start()
    await world.file(1, 2)
    await scene.settled(1, 2)
    os.kill(first, signal.SIGSTOP)
    await scene.lease_runs_out()
    await world.file(3)
    await scene.settled(3)
    os.kill(second, signal.SIGSTOP)
    os.kill(first, signal.SIGCONT)
    await scene.lease_runs_out()
    await world.file(4)
    await scene.settled(4)
    os.kill(second, signal.SIGCONT)
    await world.file(5, 6)
    await scene.settled(5, 6)
    await scene.check(1, 2, 3, 4, 5, 6)
    for pid in (first, second):
        assert await scene.relayers.end(pid, signal.SIGTERM) == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_random_kills_lose_nothing_and_send_nothing_twice(scene: Scene) -> None:
    world, dice = scene.world, random.Random(20261120)
    filed = 0
    for _ in range(200):
        scene.proxy.sends = dice.choice(["pass", "pass", "500_after", "cut_after", "cut_before"])
        pid = await scene.relayers.start()
        count = dice.randint(0, 3)
        if count:
            await world.mint(count)
            await world.file(*range(filed + 1, filed + count + 1))
            filed += count
        await asyncio.sleep(dice.uniform(0, 0.7))
        assert await scene.relayers.end(pid, signal.SIGKILL) == signal.SIGKILL
        if dice.random() < 0.8:
            await scene.lease_runs_out()
    scene.proxy.sends = "pass"
    await scene.lease_runs_out()
    pid = await scene.relayers.start()
    await scene.settled(*range(1, filed + 1))
    await scene.check(*range(1, filed + 1))
    assert await scene.relayers.end(pid, signal.SIGTERM) == 0
