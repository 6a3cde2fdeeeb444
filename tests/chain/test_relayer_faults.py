"""The relayer when providers, fees, other programs and the chain itself are against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast, get_args

import pytest
from sqlalchemy import text

from causeway.base.errors import TransientError
from causeway.chains.evm.chain import EvmChain
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.relayer import Relayer
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at, key
from tests.chain.send_proxy import SendProxy, Sends, send_proxy

GWEI = 10**9


@pytest.fixture
async def proxy(anvil: AnvilNode) -> AsyncGenerator[SendProxy]:
    async with send_proxy(anvil.url) as made:
        yield made


@pytest.fixture
async def chain(anvil: AnvilNode, proxy: SendProxy) -> AsyncGenerator[EvmChain]:
    opened = chain_at(proxy.url, anvil.chain_id)
    yield opened
    await opened.close()


@pytest.fixture
async def world(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> World:
    made = await World.make(database, anvil, glisk_contract, chain)
    await made.mint(8)
    return made


async def automine(world: World, on: bool) -> None:
    await world.node.rpc("evm_setAutomine", on)


async def spend_nonce(world: World, tip_wei: int = 5 * GWEI) -> str:
    """Have another program use the relayer's key, at the node's next nonce for it."""
    me = world.relayer.address
    nonce = await world.node.rpc("eth_getTransactionCount", me, "latest")
    fields = {
        "from": me,
        "to": me,
        "value": "0x1",
        "nonce": nonce,
        "maxFeePerGas": hex(50 * GWEI),
        "maxPriorityFeePerGas": hex(tip_wei),
    }
    return str(await world.node.rpc("eth_sendTransaction", fields))


async def reveal_first(world: World, token_id: int) -> None:
    """Have somebody else's reveal be earlier in the next block."""
    fields = {
        "from": world.node.accounts[0].address,
        "to": world.contract.address,
        "data": world.contract.encode("revealTokens", [token_id], ["ipfs://theirs"]),
        "gas": hex(500_000),
        "maxFeePerGas": hex(100 * GWEI),
        "maxPriorityFeePerGas": hex(50 * GWEI),
    }
    await world.node.rpc("eth_sendTransaction", fields)


async def test_an_ambiguous_answer_never_takes_a_new_nonce(world: World, proxy: SendProxy) -> None:
    modes = [mode for mode in get_args(Sends) if mode not in ("pass", "swallow")]
    for token_id, mode in enumerate(cast("list[Sends]", modes), start=1):
        proxy.raw.clear()
        proxy.sends = mode
        await world.file(token_id)
        for _ in range(3):
            await world.steps()
            world.clock.move(31)
            if mode in ("cut_before", "error"):  # nobody took it, and nobody says so
                assert (await world.transactions())[-1].state == "signed"
        proxy.sends = "pass"
        await world.settle()
        await world.exactly_once(token_id)
        assert len(set(proxy.raw)) == 1
        assert mode.endswith("_after") or len(proxy.raw) > 1
    transactions = await world.transactions()
    assert [tx.nonce for tx in transactions] == list(range(len(modes)))
    assert {len(tx.attempts) for tx in transactions} == {1}


async def test_a_swallowed_send_goes_out_again_with_the_same_bytes(
    world: World, proxy: SendProxy
) -> None:
    proxy.sends = "swallow"
    await world.file(1)
    await world.steps()
    proxy.sends = "pass"
    world.clock.move(16)
    await world.settle()
    await world.exactly_once(1)
    assert len(proxy.raw) == 2
    assert len(set(proxy.raw)) == 1


async def test_what_the_pool_dropped_goes_out_again_with_the_same_bytes(
    world: World, proxy: SendProxy
) -> None:
    await automine(world, False)
    await world.file(1, 2)
    await world.steps()
    await world.node.rpc("anvil_dropAllTransactions")
    world.clock.move(10)
    await world.steps()
    assert len(proxy.raw) == 1
    world.clock.move(6)
    await world.steps()
    assert len(proxy.raw) == 2
    assert len(set(proxy.raw)) == 1
    await world.settle()
    await world.exactly_once(1, 2)


async def test_a_stuck_transaction_is_replaced_with_higher_fees_at_its_nonce(
    world: World,
) -> None:
    await automine(world, False)
    await world.file(1)
    await world.steps()
    world.clock.move(179)
    await world.steps()
    assert len((await world.transactions())[0].attempts) == 1
    world.clock.move(2)
    await world.steps()
    world.clock.move(200)  # the wait doubles
    await world.steps()
    (tx,) = await world.transactions()
    first, second = tx.attempts
    assert second.tip_wei * 100 >= first.tip_wei * 125
    assert second.cap_wei * 100 >= first.cap_wei * 125
    await world.settle()
    await world.exactly_once(1)
    (tx,) = await world.transactions()
    assert (tx.nonce, tx.hash) == (0, second.hash)


async def test_a_bid_below_the_base_fee_is_raised_before_it_counts_as_stuck(
    world: World,
) -> None:
    await automine(world, False)
    await world.file(1)
    await world.steps()
    await world.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
    await world.node.mine()
    world.clock.move(31)
    await world.steps()
    (tx,) = await world.transactions()
    assert tx.attempts[-1].cap_wei > 20 * GWEI
    await world.settle()
    await world.exactly_once(1)


async def test_at_the_ceiling_it_waits_and_says_so(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain, max_fee_wei=2 * GWEI)
    await world.mint(1)
    await automine(world, False)
    await world.file(1)
    await world.steps()
    world.clock.move(200)
    await world.steps()
    (tx,) = await world.transactions()
    assert len(tx.attempts) == 1
    assert "at the ceiling of 2 gwei" in (tx.waiting or "")
    await world.settle()
    await world.exactly_once(1)


async def test_what_is_reorged_out_goes_out_again_with_the_same_bytes(
    world: World, proxy: SendProxy
) -> None:
    await world.file(1, 2)
    await world.steps()
    (before,) = await world.transactions()
    assert before.state == "mined"
    await automine(world, False)
    await world.node.reorg(1)
    await world.step()
    assert (await world.transactions())[0].state in ("sent", "mined")
    await world.steps()
    await world.settle()
    await world.exactly_once(1, 2)
    (after,) = await world.transactions()
    assert [attempt.hash for attempt in after.attempts] == [before.hash]
    story = [event.what for event in after.events]
    assert story.count("mined") == 2
    assert len(set(proxy.raw)) == 1


async def test_a_reorg_deeper_than_waited_for_opens_what_was_settled(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain, finality=0)
    await world.mint(2)
    await world.file(1)
    await world.steps()
    await world.exactly_once(1)
    (before,) = await world.transactions()
    await automine(world, False)
    await world.node.reorg(1)
    await world.node.rpc("anvil_dropAllTransactions")
    assert not await world.contract.is_revealed(1)
    world.clock.move(6)
    await world.step()
    assert (await world.units())[1] == ("bound", None)
    assert (await world.reveals())[1][0] == "unmined"
    await automine(world, True)
    await world.settle()
    assert (await world.units())[1] == ("settled", before.hash)
    assert (await world.reveals())[1] == ("revealed", before.hash, 2)
    assert (await world.revealed())[1] == [before.hash]
    await world.node.mine(300)
    world.clock.move(6)
    await world.steps()
    async with world.database.transaction() as session:
        final = await session.scalar(text("SELECT final_at FROM causeway.relayer_transactions"))
    assert final is not None


async def test_a_nonce_that_a_reorg_gave_back_leaves_no_gap(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain, finality=0)
    await world.mint(2)
    await automine(world, False)
    await world.file(1)
    await world.steps()
    await world.relayer.cancel((await world.transactions())[0].id, withdraw_units=True)
    await world.steps()
    await world.node.mine()
    await world.steps()
    assert (await world.transactions())[0].state == "cancelled"
    await world.node.reorg(1)
    await world.node.rpc("anvil_dropAllTransactions")
    await world.file(2)
    world.clock.move(6)
    await world.steps()
    await automine(world, True)
    await world.settle()
    await world.exactly_once(2)
    assert not await world.contract.is_revealed(1)


async def test_a_shorter_chain_is_a_reorg_too(world: World) -> None:
    await world.file(1)
    await world.steps()
    await world.node.rollback(1)
    await world.step()
    assert (await world.reveals())[1][0] in ("unmined", "mined")
    await world.settle()
    await world.exactly_once(1)


async def test_a_transaction_that_moves_to_another_block_is_followed(world: World) -> None:
    await world.file(1)
    await world.steps()
    async with world.database.transaction() as session:
        raw = await session.scalar(text("SELECT raw FROM causeway.relayer_attempts"))
    await world.node.mine()
    await world.node.reorg(2, [("0x" + raw.hex(), 1)])
    await world.steps()
    (tx,) = await world.transactions()
    assert tx.receipt is not None
    head = await world.chain.head()
    assert (tx.receipt.block_number, tx.receipt.block_hash) == (head.number, head.hash)
    await world.settle()
    await world.exactly_once(1)


async def test_a_provider_that_lost_its_index_is_no_reorg(world: World, proxy: SendProxy) -> None:
    await world.file(1)
    await world.steps()
    proxy.blank = {"eth_getTransactionReceipt"}
    await world.node.mine(10)
    await world.steps()
    (tx,) = await world.transactions()
    assert tx.state == "mined"
    proxy.blank = set()
    await world.settle()
    await world.exactly_once(1)


async def test_a_reverted_batch_is_reviewed_unit_by_unit(world: World) -> None:
    await automine(world, False)
    await world.file(1, 2, 3)
    await world.steps()
    await reveal_first(world, 2)
    await world.node.mine(4)
    await world.steps()
    reverted = (await world.transactions())[0]
    assert reverted.state == "reverted"
    assert reverted.error is not None
    assert reverted.receipt is not None
    assert (await world.units())[2] == ("settled", None)
    world.clock.move(5)
    await world.settle()
    await world.exactly_once(1, 3)
    assert [tx.state for tx in await world.transactions()] == ["reverted", "confirmed"]


async def test_the_reason_of_a_revert_is_decoded_and_repeated_ones_travel_alone(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain)
    await world.mint(3)
    owner = anvil.accounts[0]
    role = bytes.fromhex("fc8737ab85eb45125971625a9ebdb75cc78e01d5c1fa80c4c6e5203f47bc4fab")
    await world.file(1, 2)
    for _ in range(2):
        await world.step()  # simulated while we may still reveal
        await anvil.rpc("evm_setAutomine", False)
        await world.step()
        revoke = await glisk_contract.send(
            owner, "revokeRole", role, world.relayer.address, gas=100_000
        )
        await anvil.rpc("anvil_dropTransaction", (await world.transactions())[-1].hash)
        await anvil.mine()
        assert (await anvil.rpc("eth_getTransactionReceipt", revoke))["status"] == "0x1"
        world.clock.move(16)
        await world.step()  # the same bytes again
        await anvil.mine(4)
        await world.step()
        await world.step()
        await anvil.rpc("evm_setAutomine", True)
        await glisk_contract.transact(owner, "grantRole", role, world.relayer.address)
        await world.step()
        world.clock.move(60)
    reverted = await world.transactions()
    assert [tx.state for tx in reverted] == ["reverted", "reverted"]
    assert all(
        "AccessControlUnauthorizedAccount" in cast("dict[str, Any]", tx.error)["reason"]
        for tx in reverted
    )
    await world.settle()
    await world.exactly_once(1, 2)
    assert [len(tx.units) for tx in await world.transactions()] == [2, 2, 1, 1]


async def test_a_nonce_that_somebody_else_used_is_lost_and_the_units_are_not(
    world: World, proxy: SendProxy
) -> None:
    proxy.sends = "cut_before"
    await world.file(1, 2)
    await world.steps()
    await spend_nonce(world)
    proxy.sends = "pass"
    await world.node.mine(3)
    for _ in range(4):
        world.clock.move(31)
        await world.steps()
    await world.settle()
    await world.exactly_once(1, 2)
    lost, sent = await world.transactions()
    assert (lost.state, lost.nonce) == ("lost", 0)
    assert (sent.state, sent.nonce) == ("confirmed", 1)


async def test_a_rival_at_our_nonce_stops_signing_until_it_is_decided(
    world: World, proxy: SendProxy
) -> None:
    await automine(world, False)
    proxy.sends = "cut_before"
    await world.file(1)
    await world.steps()
    rival = await spend_nonce(world, 20 * GWEI)
    proxy.sends = "pass"
    world.clock.move(31)
    await world.steps()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert (view.mode, view.mode_by) == ("no-sign", "kernel")
    assert "another program uses this key" in (view.reason or "")
    await automine(world, True)
    await world.node.mine(4)
    assert (await world.node.rpc("eth_getTransactionReceipt", rival))["status"] == "0x1"
    for _ in range(4):
        world.clock.move(31)
        await world.steps()
    await world.settle()
    await world.exactly_once(1)
    assert [tx.state for tx in await world.transactions()] == ["lost", "confirmed"]


async def test_after_an_old_database_came_back_nothing_is_revealed_twice(world: World) -> None:
    await world.file(1, 2)
    await world.steps()
    # As if restored from a backup made when the units were just filed.
    async with world.database.transaction() as session:
        await session.execute(
            text("UPDATE causeway.relayer_units SET state = 'pending', tx_id = NULL")
        )
        for table in ("receipts", "attempts", "events", "transaction_units", "transactions"):
            await session.execute(text(f"DELETE FROM causeway.relayer_{table}"))
        await session.execute(text("DELETE FROM public.reveals"))
    await world.file(3)
    await world.step()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert (view.mode, view.mode_by) == ("no-sign", "kernel")
    assert await world.transactions() == []
    await world.settle()
    await world.exactly_once(3)
    (tx,) = await world.transactions()
    assert (tx.nonce, len(tx.units)) == (1, 1)
    assert (await world.units())[1] == ("settled", None)
    assert {token: len(hashes) for token, hashes in (await world.revealed()).items()} == {
        1: 1,
        2: 1,
        3: 1,
    }


async def test_bytes_the_node_calls_too_cheap_are_outbid(world: World, proxy: SendProxy) -> None:
    proxy.sends = "error"
    proxy.error = {"code": -32000, "message": "transaction underpriced"}
    await world.file(1)
    await world.step()
    await world.step()
    proxy.sends = "pass"
    await world.settle()
    await world.exactly_once(1)
    (tx,) = await world.transactions()
    assert [attempt.state for attempt in tx.attempts] == ["rejected", "mined"]
    assert "Underpriced" in (tx.attempts[0].rejected_reason or "")


async def test_money_that_is_gone_when_it_is_sent_holds_and_comes_back(
    world: World, proxy: SendProxy
) -> None:
    await world.file(1)
    await world.step()
    proxy.sends = "error"
    proxy.error = {"code": -32000, "message": "insufficient funds for gas * price + value"}
    await world.step()
    await world.node.rpc("anvil_setBalance", world.relayer.address, "0x1")
    world.clock.move(31)
    await world.step()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert view.mode == "hold:funds"
    await world.node.rpc("anvil_setBalance", world.relayer.address, hex(10**18))
    proxy.sends = "pass"
    world.clock.move(31)
    await world.settle()
    await world.exactly_once(1)
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert view.mode == "run"


async def test_an_outage_of_all_providers_fails_nothing(world: World, proxy: SendProxy) -> None:
    await world.file(1)
    await world.step()
    proxy.down = True
    with pytest.raises(TransientError):
        await world.relayer.step(world.lease)
    proxy.down = False
    world.chain.pool.endpoints[0].cooling_until = 0.0
    await world.settle()
    await world.exactly_once(1)


async def test_two_relayers_share_an_account_and_filing_wakes_them(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    # An hour between polls: only the notification can wake it.
    settings = RelayerSettings(poll_s=3600, lease_s=5)
    world = await World.make(database, anvil, glisk_contract, chain, finality=0)
    await world.mint(4)
    lane = world.relayer.lane
    pair = [
        Relayer(database, chain, lane.signer, [world.kind], settings=settings) for _ in range(2)
    ]
    await database.engine.dispose()
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM causeway.leases"))
    stop = asyncio.Event()
    tasks = [asyncio.create_task(relayer.run(stop)) for relayer in pair]
    try:
        async with asyncio.timeout(20):
            for token_id in (1, 2, 3, 4):
                await world.file(token_id)
                while (await world.units())[token_id][0] != "settled":
                    await asyncio.sleep(0.05)
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
    await world.exactly_once(1, 2, 3, 4)
    assert [tx.nonce for tx in await world.transactions()] == [0, 1, 2, 3]
    assert (await world.transactions())[0].units[0].key == key(1)


async def test_nonces_spent_just_before_the_account_is_first_seen_leave_no_gap(
    world: World,
) -> None:
    """A reorg takes back what another program did right before: ours would wait for ever."""
    await automine(world, False)
    await world.file(1)
    await spend_nonce(world)
    await world.node.mine()
    await world.steps()
    assert [tx for tx in await world.transactions() if tx.nonce is not None] == []
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert "just before this relayer first saw it" in (view.reason or "")
    await world.node.rpc("anvil_reorg", 1, [])
    await world.node.rpc("anvil_dropAllTransactions")
    for _ in range(4):
        world.clock.move(60)
        await world.settle()
    await world.exactly_once(1)
    assert [tx.nonce for tx in await world.transactions() if tx.nonce is not None] == [0]
