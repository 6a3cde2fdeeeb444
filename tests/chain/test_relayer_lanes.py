"""Several accounts share a chain's work: each unit once, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text

from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import Bug
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import LocalSigner
from causeway.relayer.kind import At, Outcome, Unit
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.relayer import Relayer
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store import lease as leases
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at, request, reveal_kind


@pytest.fixture
async def chain(anvil: AnvilNode) -> AsyncGenerator[EvmChain]:
    opened = chain_at(anvil.url, anvil.chain_id)
    yield opened
    await opened.close()


@pytest.fixture
async def world(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> World:
    made = await World.make(database, anvil, glisk_contract, chain, keepers=3, max_batch=2)
    await made.mint(8)
    return made


async def test_accounts_share_the_work_each_with_its_own_nonces(world: World) -> None:
    await world.file(*range(1, 9))
    await world.settle()
    await world.exactly_once(*range(1, 9))
    transactions = await world.transactions()
    by_sender: dict[str, list[int | None]] = {}
    for tx in transactions:
        by_sender.setdefault(tx.sender, []).append(tx.nonce)
    assert set(by_sender) == set(world.relayer.addresses)
    for nonces in by_sender.values():
        assert nonces == list(range(len(nonces)))


async def test_accounts_that_step_at_once_never_carry_the_same_unit(world: World) -> None:
    await world.file(*range(1, 9))
    for _ in range(12):
        await asyncio.gather(*(world.relayer.step(lease) for lease in world.leases))
        await world.node.mine()
    await world.settle()
    await world.exactly_once(*range(1, 9))
    carried = [unit.key for tx in await world.transactions() for unit in tx.units]
    assert len(carried) == len(set(carried))


async def test_no_account_looks_at_what_another_one_looks_at(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    honest = reveal_kind(glisk_contract.address)
    looked: list[set[str]] = []
    all_look = asyncio.Barrier(2)

    async def is_done(chain: EvmChain, units: Sequence[Unit], at: At) -> Mapping[str, Outcome]:
        if at == "latest" and len(looked) < 2:
            looked.append({unit.key for unit in units})
            async with asyncio.timeout(20):
                await all_look.wait()
        return await honest.is_done(chain, units, at)

    world = await World.make(
        database, anvil, glisk_contract, chain, keepers=2, max_batch=2, is_done=is_done
    )
    await world.mint(4)
    await world.file(1, 2, 3, 4)
    await asyncio.gather(*(world.relayer.step(lease) for lease in world.leases))
    assert len(looked) == 2
    assert not looked[0] & looked[1]
    await world.settle()
    await world.exactly_once(1, 2, 3, 4)


async def test_what_an_account_cannot_pay_for_another_carries(world: World) -> None:
    poor, *_ = world.relayer.addresses
    await world.node.rpc("anvil_setBalance", poor, hex(10**9))
    await world.file(1, 2, 3, 4, 5, 6)
    await world.settle()
    await world.exactly_once(1, 2, 3, 4, 5, 6)
    sent = [tx.sender for tx in await world.transactions() if tx.nonce is not None]
    assert poor not in sent
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session, poor)
    assert view is not None
    assert view.mode == "hold:funds"


async def test_a_kind_with_one_owner_is_carried_by_that_account(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    owner = anvil.accounts[4].address
    world = await World.make(
        database, anvil, glisk_contract, chain, keepers=2, max_batch=1, senders=(owner.lower(),)
    )
    await world.mint(3)
    await world.file(1, 2, 3)
    await world.settle()
    await world.exactly_once(1, 2, 3)
    assert {tx.sender for tx in await world.transactions()} == {owner}


async def test_a_kind_that_no_account_may_carry_is_refused_at_once(
    database: Database, anvil: AnvilNode, chain: EvmChain
) -> None:
    kind = reveal_kind("0x" + "11" * 20, senders=("0x" + "22" * 20,))
    signer = LocalSigner.from_private_key(anvil.accounts[1].private_key)
    with pytest.raises(Bug, match="none of the accounts"):
        Relayer(database, chain, signer, [kind])
    with pytest.raises(Bug, match="account of its own"):
        Relayer(database, chain, [signer, signer], [])


async def test_nobody_plans_while_a_sibling_has_nonces_the_ledger_forgot(world: World) -> None:
    """As after a restore: a forgotten transaction of one account may carry what all owe."""
    await world.steps()
    sibling = world.relayer.addresses[1]
    await world.node.rpc("evm_setAutomine", False)
    fields = {"from": sibling, "to": sibling, "value": "0x1"}
    await world.node.rpc("eth_sendTransaction", fields)
    await world.file(1, 2, 3)
    first, _second, third = world.leases
    for lease in (first, third, first, third):
        did = await world.relayer.step(lease)
        assert not did.planned
    await world.node.rpc("evm_setAutomine", True)
    await world.node.mine(4)
    world.clock.move(60)
    await world.settle()
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1, 2, 3)


async def test_a_claim_of_a_process_that_died_runs_out(world: World) -> None:
    await world.file(1)
    async with world.database.transaction() as session:
        await session.execute(
            text(
                "UPDATE causeway.relayer_units SET claimed_by = '0xgone', "
                "claimed_until = CAST(:until AS timestamptz)"
            ),
            {"until": world.clock.now() + timedelta(seconds=10)},
        )
    await world.steps()
    assert await world.transactions() == []
    world.clock.move(11)
    await world.settle()
    await world.exactly_once(1)


async def test_each_account_relays_by_itself_until_all_stop(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    settings = RelayerSettings(lease_s=6, poll_s=0.05)
    world = await World.make(
        database, anvil, glisk_contract, chain, keepers=3, max_batch=1, settings=settings
    )
    await world.mint(9)
    kind = reveal_kind(glisk_contract.address, max_batch=1)
    signers = [lane.signer for lane in world.relayer.lanes]
    for lease in world.leases:
        await leases.release(database, lease)
    relayer = Relayer(database, chain, signers, [kind], clock=SYSTEM_CLOCK, settings=settings)
    stop = asyncio.Event()
    running = asyncio.create_task(relayer.run(stop))
    async with database.transaction() as session:
        await relayer.file(session, kind, [request(i) for i in range(1, 10)])
    async with asyncio.timeout(60):
        while any(state != "settled" for state, _ in (await world.units()).values()):
            await anvil.mine()
            await asyncio.sleep(0.05)
    stop.set()
    async with asyncio.timeout(10):
        await running
    await world.exactly_once(*range(1, 10))
    assert len({tx.sender for tx in await world.transactions()}) > 1
