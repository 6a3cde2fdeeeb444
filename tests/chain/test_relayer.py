"""The relayer on a real node: the ways things go when nobody misbehaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from uuid import uuid4

import pytest
from sqlalchemy import text

from causeway.base.errors import InvalidInput, InvalidStateTransition, LeaseLost
from causeway.chains.evm.chain import EvmChain
from causeway.relayer.kind import Call, Unit, UnitRequest
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.models import AttemptRow
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store import lease as leases
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at, key, request, reveal_kind


@pytest.fixture
async def chain(anvil: AnvilNode) -> AsyncGenerator[EvmChain]:
    opened = chain_at(anvil.url, anvil.chain_id)
    yield opened
    await opened.close()


@pytest.fixture
async def world(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> World:
    made = await World.make(database, anvil, glisk_contract, chain)
    await made.mint(6)
    return made


async def test_units_are_settled_with_their_hash_once_the_transaction_is_deep(world: World) -> None:
    await world.file(1, 2, 3, requested_by="ada")
    await world.steps()
    assert set((await world.units()).values()) == {("bound", None)}
    assert {state for state, _, _ in (await world.reveals()).values()} == {"mined"}
    await world.node.mine(2)
    await world.steps()
    await world.exactly_once(1, 2, 3)
    (tx,) = await world.transactions()
    assert (tx.state, tx.requested_by, len(tx.attempts)) == ("confirmed", "ada", 1)
    assert [unit.key for unit in tx.units] == [key(1), key(2), key(3)]
    assert tx.receipt is not None
    assert tx.receipt.transaction_hash == tx.hash
    assert [e.what for e in tx.events] == ["planned", "signed", "sent", "mined", "confirmed"]


async def test_one_step_does_one_thing_for_each_transaction(world: World) -> None:
    await world.file(1)
    states: list[str] = []
    for _ in range(4):
        await world.step()
        (tx,) = await world.transactions()
        states.append(tx.state)
    assert states == ["planned", "sent", "mined", "mined"]


async def test_batches_travel_apart_and_large_ones_in_pieces(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain, max_batch=2)
    await world.mint(7)
    await world.file(1, 2, 3, batch_id=uuid4())
    await world.file(4, 5, batch_id=uuid4())
    await world.file(6)
    await world.file(7)
    await world.settle()
    await world.exactly_once(1, 2, 3, 4, 5, 6, 7)
    carried = [[unit.payload["token_id"] for unit in tx.units] for tx in await world.transactions()]
    assert carried == [[1, 2], [3], [4, 5], [6, 7]]
    assert [tx.nonce for tx in await world.transactions()] == [0, 1, 2, 3]


async def test_a_key_is_owed_once_however_often_it_is_filed(world: World) -> None:
    async with world.database.transaction() as session:
        first = await world.relayer.file(session, world.kind, [request(1, "ipfs://old")])
        again = await world.relayer.file(session, world.kind, [request(1), request(2)])
    assert (first.new, again.new, again.renewed) == ((key(1),), (key(2),), (key(1),))
    await world.step()
    async with world.database.transaction() as session:
        bound = await world.relayer.file(session, world.kind, [request(1, "ipfs://late")])
    assert bound.bound == (key(1),)
    await world.settle()
    await world.exactly_once(1, 2)


async def test_one_key_with_two_payloads_is_refused(world: World) -> None:
    async with world.database.transaction() as session:
        with pytest.raises(InvalidInput):
            await world.relayer.file(session, world.kind, [request(1), request(1, "ipfs://b")])


async def test_a_filing_that_is_rolled_back_is_not_owed(world: World) -> None:
    async with world.database.sessions() as session:
        await world.relayer.file(session, world.kind, [request(1)])
        await session.rollback()
    assert not (await world.steps()).progress
    assert await world.units() == {}


async def test_what_somebody_else_revealed_is_settled_when_it_is_deep(world: World) -> None:
    world.relayer.lane.memory.checked["account"] = 0.0
    keeper = world.node.accounts[0]
    await world.contract.transact(
        keeper,
        "grantRole",
        bytes.fromhex("fc8737ab85eb45125971625a9ebdb75cc78e01d5c1fa80c4c6e5203f47bc4fab"),
        keeper.address,
    )
    await world.contract.reveal(keeper, [2], ["ipfs://other"])
    await world.file(1, 2, 3)
    await world.steps()
    assert (await world.units())[2] == ("pending", None)
    await world.settle()
    world.clock.move(5)
    await world.steps()
    await world.exactly_once(1, 3)
    assert (await world.units())[2] == ("settled", None)
    assert (await world.reveals())[2] == ("revealed", None, 1)


async def test_a_revert_that_names_a_unit_leaves_it_out_at_once(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    # This kind looks at a provider that is behind: it does not see that 2 is revealed.
    honest = reveal_kind(glisk_contract.address)

    async def blind(chain: EvmChain, units: object, at: object) -> object:
        return await honest.is_done(chain, units, 1 if at == "latest" else at)  # pyright: ignore[reportArgumentType]

    world = await World.make(database, anvil, glisk_contract, chain, is_done=blind)
    await world.mint(4)
    await world.contract.reveal(world.node.accounts[1], [2], ["ipfs://by-hand"])
    await world.node.mine(3)  # so that the nonce of that is spent for good
    await world.file(1, 2, 3)
    await world.settle()
    await world.exactly_once(1, 3)
    (tx,) = await world.transactions()
    assert [unit.key for unit in tx.units] == [key(1), key(3)]
    assert (await world.units())[2][0] == "pending"


async def test_one_bad_unit_is_found_by_halves_and_fails_alone(world: World) -> None:
    def encode_bad(units: object) -> object:
        call = honest(units)  # pyright: ignore[reportArgumentType]
        bad = any(unit.payload["token_id"] == 4 for unit in units)  # pyright: ignore
        return type(call)(call.to, b"\xde\xad\xbe\xef" if bad else call.data)

    honest = world.kind.encode
    object.__setattr__(world.kind, "encode", encode_bad)
    await world.file(1, 2, 3, 4, 5, 6)
    await world.settle()
    await world.exactly_once(1, 2, 3, 5, 6)
    assert (await world.units())[4] == ("failed", None)
    assert (await world.reveals())[4][0] == "failed"
    assert len(await world.transactions()) == 1


async def test_a_kind_waits_while_the_contract_refuses_the_account(world: World) -> None:
    owner = world.node.accounts[0]
    role = bytes.fromhex("fc8737ab85eb45125971625a9ebdb75cc78e01d5c1fa80c4c6e5203f47bc4fab")
    await world.contract.transact(owner, "revokeRole", role, world.relayer.address)
    await world.file(1)
    await world.steps()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert [wait.cause for wait in view.waits] == ["refused"]
    assert "AccessControlUnauthorizedAccount" in view.waits[0].reason
    assert (await world.units())[1] == ("pending", None)
    await world.contract.transact(owner, "grantRole", role, world.relayer.address)
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1)
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert view.waits == ()


async def test_a_batch_that_needs_too_much_gas_goes_in_halves(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    settings = RelayerSettings(lease_s=600, gas_limit_max=500_000)
    world = await World.make(database, anvil, glisk_contract, chain, settings=settings)
    await world.mint(6)
    await world.file(1, 2, 3, 4, 5, 6)
    await world.settle()
    await world.exactly_once(1, 2, 3, 4, 5, 6)
    carried = [len(tx.units) for tx in await world.transactions()]
    assert carried == [3, 3]


async def test_a_batch_for_which_a_block_has_not_gas_enough_goes_in_parts(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain)
    await world.mint(6)
    await anvil.rpc("evm_setBlockGasLimit", hex(300_000))
    await anvil.mine()
    await world.file(1, 2, 3, 4, 5, 6)
    await world.settle()
    await world.settle()
    await world.exactly_once(1, 2, 3, 4, 5, 6)
    assert len(await world.transactions()) > 2


async def test_a_unit_that_would_use_all_gas_there_is_holds_up_no_other(world: World) -> None:
    forever = "0x635b6000566000526004601cf3"  # deploys JUMPDEST PUSH1 0 JUMP
    owner = world.node.accounts[0].address
    made = await world.node.rpc("eth_sendTransaction", {"from": owner, "data": forever})
    await world.node.mine()
    burner = (await world.node.rpc("eth_getTransactionReceipt", made))["contractAddress"]

    def encode(units: Sequence[Unit]) -> Call:
        call = honest(units)
        return Call(burner, b"") if any(u.payload["token_id"] == 2 for u in units) else call

    honest = world.kind.encode
    object.__setattr__(world.kind, "encode", encode)
    await world.file(1, 2, 3, 4, 5, 6)
    await world.settle()
    await world.settle()
    await world.exactly_once(1, 3, 4, 5, 6)
    assert (await world.units())[2] == ("failed", None)


async def test_a_unit_that_no_provider_will_even_try_holds_up_no_other(world: World) -> None:
    def encode(units: Sequence[Unit]) -> Call:
        call = honest(units)
        bad = any(unit.payload["token_id"] == 2 for unit in units)
        return Call("0x12", call.data) if bad else call  # no address

    honest = world.kind.encode
    object.__setattr__(world.kind, "encode", encode)
    await world.file(1, 2, 3)
    await world.settle()
    await world.exactly_once(1, 3)
    assert (await world.units())[2] == ("pending", None)
    for _ in range(5):
        world.clock.move(120)
        await world.steps()
    assert (await world.units())[2] == ("failed", None)


async def test_two_hundred_in_one_transaction_and_the_bad_ones_alone_are_left_out(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    """As many as one declaration of Motify holds; three are refused without being named."""
    bad = {17, 101, 200}
    await anvil.rpc("evm_setBlockGasLimit", hex(60_000_000))
    await anvil.mine()
    settings = RelayerSettings(lease_s=600, gas_limit_max=50_000_000)
    world = await World.make(
        database, anvil, glisk_contract, chain, settings=settings, max_batch=200
    )
    for _ in range(4):
        await world.mint(50)
    tried: list[int] = []

    def encode(units: Sequence[Unit]) -> Call:
        call = honest(units)
        tried.append(len(units))
        refused = any(unit.payload["token_id"] in bad for unit in units)
        return Call(call.to, b"\xde\xad\xbe\xef") if refused else call

    honest = world.kind.encode
    object.__setattr__(world.kind, "encode", encode)
    await world.file(*range(1, 201), batch_id=uuid4())
    await world.settle()
    good = [token for token in range(1, 201) if token not in bad]
    await world.exactly_once(*good)
    states = await world.units()
    assert {token for token, (state, _) in states.items() if state == "failed"} == bad
    (tx,) = await world.transactions()
    assert len(tx.units) == 197
    # About 2·k·log2(n) + k for k bad ones of n; not one for each unit.
    assert len(tried) < 60


async def test_the_gas_price_is_waited_for_visibly(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain, max_fee_wei=2 * 10**9)
    await world.mint(1)
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(9 * 10**9))
    await anvil.mine()
    await world.file(1)
    await world.steps()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert [(w.cause, w.alerted_at) for w in view.waits] == [("gas_price", None)]
    assert "the most allowed 2 gwei" in view.waits[0].reason
    world.clock.move(601)
    await world.steps()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert view.waits[0].alerted_at is not None
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**8))
    await anvil.mine()
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1)
    (tx,) = await world.transactions()
    assert tx.attempts[0].cap_wei <= 2 * 10**9


async def test_without_funds_nothing_fails_and_all_goes_on_when_they_come(world: World) -> None:
    await world.node.rpc("anvil_setBalance", world.relayer.address, hex(10**9))
    await world.file(1, 2)
    await world.steps()
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    assert view.mode == "hold:funds"
    assert view.needed_wei is not None
    assert "send it" in (view.reason or "")
    (tx,) = await world.transactions()
    assert (tx.state, tx.waiting) == ("planned", "the account cannot pay for it")
    await world.node.rpc("anvil_setBalance", world.relayer.address, hex(10**18))
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1, 2)


async def test_withdrawn_units_are_never_sent(world: World) -> None:
    await world.file(1, 2, 3)
    async with world.database.transaction() as session:
        result = await world.relayer.withdraw(session, [key(1)])
    assert result.withdrawn == (key(1),)
    await world.step()  # 2 and 3 are planned
    async with world.database.transaction() as session:
        result = await world.relayer.withdraw(session, [key(2)])
    assert result.withdrawn == (key(2),)
    await world.settle()
    await world.exactly_once(3)
    states = {token: state for token, (state, _) in (await world.units()).items()}
    assert states == {1: "withdrawn", 2: "withdrawn", 3: "settled"}
    assert [tx.state for tx in await world.transactions()] == ["dropped", "confirmed"]


async def test_a_sent_transaction_is_cancelled_by_a_no_op_at_its_nonce(world: World) -> None:
    await world.node.rpc("evm_setAutomine", False)
    await world.file(1, 2)
    await world.steps()
    async with world.database.transaction() as session:
        result = await world.relayer.withdraw(session, [key(1)])
    assert result.cancelling == (key(1),)
    await world.steps()
    (tx,) = await world.transactions()
    assert [attempt.is_cancel for attempt in tx.attempts] == [False, True]
    await world.node.rpc("evm_setAutomine", True)
    await world.node.mine()
    await world.settle()
    first, second = await world.transactions()
    assert (first.state, first.nonce, second.state, second.nonce) == (
        "cancelled",
        0,
        "confirmed",
        1,
    )
    await world.settle()
    await world.exactly_once(2)
    assert (await world.units())[1] == ("withdrawn", None)
    with pytest.raises(InvalidStateTransition):
        await world.relayer.cancel(first.id)


async def test_an_operator_stops_signing_and_lets_it_go_on(world: World) -> None:
    await world.step()
    await world.file(1)
    await world.step()
    await world.relayer.set_mode("no-sign", by="ada", reason="we look into it")
    await world.steps()
    (tx,) = await world.transactions()
    assert tx.state == "planned"
    await world.relayer.set_mode("run", by="ada")
    await world.settle()
    await world.exactly_once(1)


async def test_a_stale_plan_is_made_anew(world: World) -> None:
    await world.file(1)
    await world.step()
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1)
    assert [tx.state for tx in await world.transactions()] == ["dropped", "confirmed"]


async def test_who_lost_the_lease_commits_nothing_more(world: World) -> None:
    await world.file(1)
    await world.step()
    await leases.release(world.database, world.lease)
    other = await leases.acquire(world.database, world.lease.name, "other", 60)
    assert other is not None
    with pytest.raises(LeaseLost):
        await world.relayer.step(world.lease)
    (tx,) = await world.transactions()
    assert (tx.state, tx.attempts) == ("planned", ())


async def test_an_error_of_the_app_leaves_the_settlement_for_the_next_step(world: World) -> None:
    honest = world.kind.on_settled
    broken = [True]

    async def on_settled(session: object, batch: object) -> None:
        await honest(session, batch)  # pyright: ignore[reportArgumentType]
        if broken[0]:
            raise ZeroDivisionError

    object.__setattr__(world.kind, "on_settled", on_settled)
    await world.file(1)
    await world.steps()
    await world.node.mine(3)
    did = await world.relayer.step(world.lease)
    assert [type(error) for error in did.errors] == [ZeroDivisionError]
    assert (await world.units())[1] == ("bound", None)
    assert (await world.reveals())[1][0] == "mined"
    broken[0] = False
    await world.steps()
    await world.exactly_once(1)


async def test_signed_bytes_are_the_ones_that_were_mined(world: World) -> None:
    await world.file(1)
    await world.settle()
    (tx,) = await world.transactions()
    async with world.database.transaction() as session:
        row = await session.get_one(AttemptRow, (tx.id, 1))
        locked = await session.scalar(
            text("SELECT count(*) FROM causeway.relayer_transactions WHERE nonce IS NOT NULL")
        )
    assert locked == 1
    on_chain = await world.chain.transaction(row.hash)
    assert on_chain is not None
    assert on_chain["nonce"] == "0x0"


async def test_a_request_without_units_changes_nothing(world: World) -> None:
    async with world.database.transaction() as session:
        no_units: list[UnitRequest] = []
        filed = await world.relayer.file(session, world.kind, no_units)
    assert filed.new == ()
