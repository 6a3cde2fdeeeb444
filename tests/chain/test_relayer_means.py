"""What stops an account or everything: pauses, the day's budget, balances that are low, values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import InvalidInput
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import SignedTransaction, Signer
from causeway.relayer import pauses
from causeway.relayer.kind import Call, Unit
from causeway.relayer.lane import Did, RelayerSettings, Sight
from causeway.relayer.models import TransactionRow, UnitRow
from causeway.relayer.notices import Notice
from causeway.relayer.pauses import Scope
from causeway.relayer.signing import sign
from causeway.relayer.views import AccountView
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at, key

ETHER = 10**18


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
    await made.step()  # the account is known
    return made


async def pause(world: World, mode: str, scope: Scope | None = None) -> None:
    async with world.database.transaction() as session:
        await pauses.pause(
            session,
            scope or Scope(),
            mode,
            reason="we look into it",
            by="ada",
            now=world.clock.now(),
        )


async def resume(world: World, scope: Scope | None = None) -> bool:
    async with world.database.transaction() as session:
        return await pauses.resume(session, scope or Scope())


async def account(world: World) -> AccountView:
    async with world.database.transaction() as session:
        view = await world.relayer.account_view(session)
    assert view is not None
    return view


@pytest.mark.parametrize("what", ["everything", "app", "chain", "account"])
async def test_a_paused_scope_plans_nothing_until_it_is_resumed(world: World, what: str) -> None:
    scopes = {
        "everything": Scope(),
        "app": Scope(app="test"),
        "chain": Scope(chain_id=world.chain.chain_id),
        "account": Scope.of(sender=world.relayer.address.lower()),
    }
    await pause(world, "no-new", scopes[what])
    await world.file(1)
    await world.settle()
    assert await world.transactions() == []
    assert await resume(world, scopes[what])
    assert not await resume(world, scopes[what])
    await world.settle()
    await world.exactly_once(1)


async def test_a_pause_of_something_else_changes_nothing(world: World) -> None:
    await pause(world, "no-sign", Scope(app="other"))
    await pause(world, "no-sign", Scope(chain_id=world.chain.chain_id + 1))
    await pause(world, "no-sign", Scope.of(sender="0x" + "11" * 20))
    await pause(world, "no-sign", Scope(app="test", chain_id=world.chain.chain_id + 1))
    await world.file(1)
    await world.settle()
    await world.exactly_once(1)


async def test_no_new_lets_go_on_what_is_planned_and_no_sign_does_not(world: World) -> None:
    await world.file(1)
    await world.step()
    await pause(world, "no-sign")
    await world.steps()
    (tx,) = await world.transactions()
    assert (tx.state, tx.waiting) == ("planned", "paused (no-sign) by ada: we look into it")
    await pause(world, "no-new")  # the same scope: its mode is changed
    await world.steps()
    assert [tx.state for tx in await world.transactions()] == ["mined"]
    await world.file(2)
    await world.settle()
    await world.exactly_once(1)
    assert (await world.units())[2] == ("pending", None)


@pytest.mark.parametrize("stricter_first", [True, False])
async def test_of_several_pauses_the_strictest_counts(world: World, stricter_first: bool) -> None:
    await world.file(1)
    await world.step()  # planned: `no-new` alone would let it go on
    strict, lax = ("no-sign", Scope(app="test")), ("no-new", Scope())
    for mode, scope in (strict, lax) if stricter_first else (lax, strict):
        await pause(world, mode, scope)
    await world.steps()
    assert [tx.state for tx in await world.transactions()] == ["planned"]
    assert await resume(world, Scope(app="test"))
    await world.settle()
    await world.exactly_once(1)


async def test_what_was_signed_and_never_sent_stays_here_under_no_sign(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain)
    await world.mint(1)
    await world.file(1)
    await world.step()
    async with database.transaction() as session:
        planned = await session.scalar(select(TransactionRow))
    assert planned is not None
    lane = world.relayer.lane
    await sign(lane, await Sight.look(lane), world.lease, planned, Did())
    await pause(world, "no-sign")
    await world.steps()
    assert [tx.state for tx in await world.transactions()] == ["signed"]
    assert await resume(world)
    await world.settle()
    await world.exactly_once(1)


async def test_cancel_open_takes_back_what_waits_and_nothing_is_lost(world: World) -> None:
    await world.node.rpc("evm_setAutomine", False)
    await world.file(1, 2)
    await world.steps()
    await world.file(3)
    await world.step()
    await pause(world, "cancel-open")
    await world.steps()
    sent, planned = await world.transactions()
    assert [attempt.is_cancel for attempt in sent.attempts] == [False, True]
    assert planned.state in ("dropped", "sent")
    await world.node.rpc("evm_setAutomine", True)
    await world.node.mine()
    await world.settle()
    world.clock.move(60)
    await world.settle()
    assert await world.revealed() == {}
    assert {state for state, _ in (await world.units()).values()} == {"pending"}
    assert await resume(world)
    world.clock.move(60)
    await world.settle()
    await world.exactly_once(1, 2, 3)


class Interrupted:
    """A signer during whose work something else happens."""

    def __init__(self, signer: Signer, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._signer = signer
        self._meanwhile = meanwhile

    @property
    def address(self) -> str:
        return self._signer.address

    async def sign(self, tx: Mapping[str, object]) -> SignedTransaction:
        signed = await self._signer.sign(tx)
        await self._meanwhile()
        return signed


async def test_a_pause_while_a_signature_is_made_keeps_it_from_being_used(world: World) -> None:
    await world.file(1)
    await world.step()
    lane = world.relayer.lane
    honest = lane.signer
    lane.signer = Interrupted(honest, lambda: pause(world, "no-sign"))
    await world.steps()
    assert [tx.state for tx in await world.transactions()] == ["planned"]
    lane.signer = honest
    assert await resume(world)
    await world.settle()
    await world.exactly_once(1)


async def test_a_signature_is_not_stored_while_somebody_is_pausing(world: World) -> None:
    """It waits until the pause is committed, and then it is not used."""
    await world.file(1)
    await world.step()
    async with world.database.transaction() as session:
        now = world.clock.now()
        await pauses.pause(session, Scope(), "no-sign", reason=None, by="ada", now=now)
        stepping = asyncio.create_task(world.relayer.step(world.lease))
        async with asyncio.timeout(20):
            while not stepping.done() and not await _is_waited_for(world):
                await asyncio.sleep(0.01)
    await stepping
    assert [tx.state for tx in await world.transactions()] == ["planned"]


async def _is_waited_for(world: World) -> bool:
    async with world.database.transaction() as session:
        query = "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await session.scalar(text(query)))


async def test_an_unknown_mode_and_a_wrong_account_are_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="no-new, no-sign, cancel-open"):
        await pause(world, "hold:funds")
    with pytest.raises(InvalidInput, match="40 hex digits"):
        Scope.of(sender="0x12")


async def test_the_day_s_budget_is_never_passed_and_the_rest_goes_on_next_day(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    budget = 1_200_000 * 10**9  # for about three reveals at what they may cost
    settings = RelayerSettings(lease_s=600, daily_budget_wei=budget)
    notices: list[Notice] = []

    async def on_notice(_session: AsyncSession, notice: Notice) -> None:
        notices.append(notice)

    world = await World.make(
        database,
        anvil,
        glisk_contract,
        chain,
        max_batch=1,
        settings=settings,
        on_notice=on_notice,
    )
    await world.mint(12)
    await world.file(*range(1, 13))
    for _ in range(8):
        await world.settle()
        world.clock.move(60)
    first = await account(world)
    assert first.mode == "hold:budget"
    assert "may spend on" in (first.reason or "")
    assert "goes on by itself" in (first.reason or "")
    assert [notice.cause for notice in notices][-1] == "stopped"
    cost = await _cost(world)
    assert 0 < cost <= budget
    settled = [t for t, (state, _) in (await world.units()).items() if state == "settled"]
    assert 0 < len(settled) < 12
    for _ in range(12):
        world.clock.move(24 * 3600 + 1)
        for _ in range(4):
            await world.settle()
            world.clock.move(60)
    await world.exactly_once(*range(1, 13))
    assert [notice.cause for notice in notices][-1] == "running"


async def _cost(world: World) -> int:
    total = 0
    for tx in await world.transactions():
        if tx.receipt is not None:
            total += tx.receipt.gas_used * tx.receipt.effective_gas_price_wei
    return total


async def test_a_transaction_above_the_whole_budget_says_what_to_do(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    settings = RelayerSettings(lease_s=600, daily_budget_wei=1000)
    world = await World.make(database, anvil, glisk_contract, chain, settings=settings)
    await world.mint(1)
    await world.file(1)
    await world.steps()
    view = await account(world)
    assert (view.mode, (view.reason or "").endswith("raise the budget")) == ("hold:budget", True)
    (tx,) = await world.transactions()
    assert tx.waiting == "the day's budget does not allow it"


async def test_fees_are_not_raised_beyond_the_budget(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    world = await World.make(database, anvil, glisk_contract, chain)
    await world.mint(1)
    await anvil.rpc("evm_setAutomine", False)
    await world.file(1)
    await world.steps()
    (tx,) = await world.transactions()
    (offered,) = tx.attempts
    most = offered.gas_limit * offered.cap_wei + 1000
    object.__setattr__(world.relayer.lane.settings, "daily_budget_wei", most)
    world.clock.move(181)
    await world.steps()
    (tx,) = await world.transactions()
    assert (len(tx.attempts), tx.waiting) == (1, "the day's budget allows no higher fees")
    object.__setattr__(world.relayer.lane.settings, "daily_budget_wei", most * 2)
    await world.steps()
    (tx,) = await world.transactions()
    assert len(tx.attempts) == 2


async def test_a_low_balance_is_told_once_and_once_when_it_is_back(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    notices: list[Notice] = []

    async def on_notice(_session: AsyncSession, notice: Notice) -> None:
        notices.append(notice)

    settings = RelayerSettings(lease_s=600, balance_warning_wei=ETHER)
    options: dict[str, Any] = {"settings": settings, "on_notice": on_notice}
    world = await World.make(database, anvil, glisk_contract, chain, **options)
    await world.mint(4)
    await world.steps()
    assert notices == []
    await anvil.rpc("anvil_setBalance", world.relayer.address, hex(ETHER // 2))
    # It is the look before signing that finds it, and the next looks say nothing more.
    await world.file(1)
    await world.settle()
    world.clock.move(60)
    await world.settle()
    assert [notice.cause for notice in notices] == ["balance_low"]
    assert "less than 1 ETH" in notices[0].message
    assert (await account(world)).low_since is not None
    # A process that starts again does not say it again.
    again = await World.make(
        database, anvil, glisk_contract, chain, clock=world.clock, holder="test", **options
    )
    again.clock.move(60)
    await again.steps()
    assert len(notices) == 1
    await anvil.rpc("anvil_setBalance", world.relayer.address, hex(2 * ETHER))
    again.clock.move(60)
    await again.steps()
    assert [notice.cause for notice in notices] == ["balance_low", "balance_restored"]
    assert (await account(world)).low_since is None


async def test_a_notice_that_cannot_be_kept_is_given_again(
    database: Database, anvil: AnvilNode, glisk_contract: GliskContract, chain: EvmChain
) -> None:
    kept: list[Notice] = []
    broken = True

    async def on_notice(_session: AsyncSession, notice: Notice) -> None:
        if broken:
            raise ZeroDivisionError
        kept.append(notice)

    settings = RelayerSettings(lease_s=600, balance_warning_wei=10**30)
    world = await World.make(
        database, anvil, glisk_contract, chain, settings=settings, on_notice=on_notice
    )
    did = await world.relayer.step(world.lease)
    assert [type(error) for error in did.errors] == [ZeroDivisionError]
    broken = False
    world.clock.move(60)
    await world.steps()
    assert [notice.cause for notice in kept] == ["balance_low"]


async def test_a_unit_that_sends_more_along_than_is_allowed_fails_alone(world: World) -> None:
    def encode(units: Sequence[Unit]) -> Call:
        call = honest(units)
        sends = any(unit.payload["token_id"] == 2 for unit in units)
        return Call(call.to, call.data, 5 * ETHER if sends else 0)

    honest = world.kind.encode
    object.__setattr__(world.kind, "encode", encode)
    await world.file(1, 2, 3)
    await world.settle()
    await world.exactly_once(1, 3)
    assert (await world.units())[2] == ("failed", None)
    async with world.database.transaction() as session:
        row = await session.scalar(select(UnitRow).where(UnitRow.unit_key == key(2)))
    assert row is not None
    assert row.error == "the contract refuses it: it sends 5 ETH, allowed is 0 ETH"
