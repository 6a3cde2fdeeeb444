"""The relayer on Starknet: the same ledger, lanes and steps, through the chain's own words.

The account is a Cairo contract that the node executes: it checks every signature itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import TransactionReverted
from causeway.chains.errors import NonceTooHigh, NonceTooLow, SendRejected
from causeway.chains.protocol import LogFilter
from causeway.chains.starknet.chain import STRK, StarknetChain
from causeway.chains.starknet.felts import padded
from causeway.chains.starknet.signer import StarknetSigner
from causeway.chains.starknet.transactions import Invoke
from causeway.relayer.kind import (
    At,
    Call,
    Done,
    NotDone,
    Outcome,
    SettledBatch,
    Unit,
    UnitKind,
    UnitRequest,
)
from causeway.relayer.lane import Did, RelayerSettings
from causeway.relayer.relayer import Relayer
from causeway.relayer.views import TransactionView, transactions_of
from causeway.sandbox.starknet.node import StarknetNode
from causeway.store.engine import Database
from causeway.store.lease import Lease
from tests.chain.reveals import TestClock
from tests.starknet_world import (
    TOKEN_ABI,
    Account,
    deploy_account,
    deploy_token,
    invoke,
    starknet,
    starknet_at,
)

TOKEN = padded(0x70C)


def recipient(number: int) -> str:
    return padded(0xBEEF00 + number)


class World:
    """A relayer that owes tokens to many, each once."""

    def __init__(
        self, database: Database, node: StarknetNode, chain: StarknetChain, account: Account
    ) -> None:
        self.database, self.node, self.chain, self.account = database, node, chain, account
        self.settled: list[tuple[str, str | None]] = []
        self.failed: list[tuple[str, str]] = []
        self.clock = TestClock()
        self.kind = UnitKind(
            name="pay",
            app="test",
            chain="ledger",
            encode=self.encode,
            is_done=self.is_done,
            on_settled=self.on_settled,
            on_failed=self.on_failed,
            abi=TOKEN_ABI,
            max_batch=1,
            finality=1,
            stuck_after_s=60,
        )
        self.relayer = Relayer(
            database,
            chain,
            StarknetSigner(chain, account.address, account.key),
            [self.kind],
            clock=self.clock,
            settings=RelayerSettings(lease_s=600),
        )
        self.lease: Lease | None = None

    def encode(self, units: Sequence[Unit]) -> Call:
        (unit,) = units
        call = str(unit.payload.get("call", "mint"))
        to = recipient(int(unit.payload["to"]))
        return Call(TOKEN, TOKEN_ABI.encode(call, to, int(unit.payload["amount"])))

    async def is_done(self, chain: Any, units: Sequence[Unit], at: At) -> Mapping[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for unit in units:
            data = TOKEN_ABI.encode("balance_of", recipient(int(unit.payload["to"])))
            (has,) = TOKEN_ABI.decode_result("balance_of", await chain.call(TOKEN, data, at=at))
            outcomes[unit.key] = Done() if has else NotDone()
        return outcomes

    async def on_settled(self, session: AsyncSession, batch: SettledBatch) -> None:
        self.settled += [(unit.key, batch.hashes.get(unit.key)) for unit in batch.units]

    async def on_failed(self, session: AsyncSession, unit: Unit, reason: str) -> None:
        self.failed.append((unit.key, reason))

    async def file(self, *numbers: int, **payload: object) -> None:
        requests = [
            UnitRequest(f"pay:{n}", {"to": n, "amount": str(10 + n), **payload}) for n in numbers
        ]
        async with self.database.transaction() as session:
            await self.relayer.file(session, self.kind, requests)

    async def step(self) -> Did:
        if self.lease is None:
            self.lease = await self.relayer.acquire("test")
        assert self.lease is not None
        did = await self.relayer.step(self.lease)
        assert not did.errors, did.errors
        return did

    async def steps(self, most: int = 40) -> None:
        for _ in range(most):
            if not (await self.step()).progress:
                return
        raise AssertionError("it never comes to rest")

    async def transactions(self) -> list[TransactionView]:
        async with self.database.transaction() as session:
            return (await transactions_of(session, "test", limit=100))[::-1]

    async def paid(self) -> dict[str, list[int]]:
        """Return what everybody was paid, from the chain's own events."""
        wanted = LogFilter((TOKEN,), (TOKEN_ABI.event("Transfer").topic0,))
        found: dict[str, list[int]] = {}
        for log in await self.chain.logs(wanted, 0, (await self.chain.head()).number):
            args = TOKEN_ABI.event("Transfer").decode(log)
            found.setdefault(args["to"], []).append(args["value"])
        return found


@pytest.fixture
async def world(database: Database) -> AsyncGenerator[World]:
    async with starknet() as node:
        account = await deploy_account(node)
        await deploy_token(node)
        await deploy_token(node, TOKEN)
        funds = TOKEN_ABI.encode("mint", account.address, 10**24)
        await invoke(node, await deploy_account(node, 2), (STRK, funds))
        node.ledger.automine = False
        chain = starknet_at(node.url, node.ledger.chain_id)
        yield World(database, node, chain, account)
        await chain.close()


async def test_units_are_settled_once_with_receipts_in_the_ledger(world: World) -> None:
    await world.file(1, 2, 3)
    for _ in range(8):
        await world.steps()
        await world.node.seal()
    await world.steps()
    assert await world.paid() == {recipient(n): [10 + n] for n in (1, 2, 3)}
    transactions = await world.transactions()
    assert [one.state for one in transactions] == ["confirmed"] * 3
    assert [one.nonce for one in transactions] == [0, 1, 2]
    assert sorted(world.settled) == [(f"pay:{n + 1}", t.hash) for n, t in enumerate(transactions)]
    for one in transactions:
        receipt = one.receipt
        assert receipt is not None
        paid = receipt.gas_used * receipt.effective_gas_price_wei + (receipt.l1_fee_wei or 0)
        made = world.node.ledger.find(str(one.hash))
        assert made is not None
        assert paid == made[0].fee > 0
        (attempt,) = one.attempts
        assert paid <= attempt.gas_limit * attempt.cap_wei
        sent = made[0].tx
        assert sent is not None
        bounds = sent.bounds
        most = bounds.most_fri + bounds.l2_gas * sent.tip
        assert most <= attempt.gas_limit * attempt.cap_wei


async def test_a_stuck_transaction_is_replaced_by_the_protocols_rules(world: World) -> None:
    world.node.ledger.hold = True
    await world.file(1)
    await world.steps()
    (tx,) = await world.transactions()
    assert (tx.state, len(tx.attempts)) == ("sent", 1)
    world.clock.move(61)
    await world.steps()
    (tx,) = await world.transactions()
    assert [one.state for one in tx.attempts] == ["sent", "sent"]
    ((waiting, _),) = world.node.ledger.mempool.values()
    assert padded(waiting.hash) == tx.attempts[1].hash
    world.node.ledger.hold = False
    await world.node.ledger.work()
    for _ in range(3):
        await world.node.seal()
        await world.steps()
    assert await world.paid() == {recipient(1): [11]}
    assert world.settled == [("pay:1", tx.attempts[1].hash)]


async def test_what_a_contract_refuses_fails_in_its_words(world: World) -> None:
    await world.file(7, call="transfer")
    await world.steps()
    ((key, reason),) = world.failed
    assert key == "pay:7"
    assert "ERC20: insufficient balance" in reason
    assert await world.transactions() == []


async def test_a_transaction_that_is_reverted_says_why(world: World) -> None:
    mint = TOKEN_ABI.encode("mint", world.account.address, 50)
    await invoke(world.node, await deploy_account(world.node, 3), (TOKEN, mint))
    await world.node.seal()
    world.node.ledger.hold = True
    await world.file(5, call="transfer", amount="40")
    await world.steps()
    (tx,) = await world.transactions()
    # Before it is executed the money is gone: the blocks that brought it are replaced.
    await world.node.reorganise(1)
    world.node.ledger.hold = False
    await world.node.ledger.work()
    await world.node.seal()
    receipt = await world.chain.receipt(str(tx.hash))
    assert receipt is not None
    assert (receipt.status, receipt.revert_reason) == (0, "ERC20: insufficient balance")
    for _ in range(3):
        await world.steps()
        await world.node.seal()
    (tx, *_) = await world.transactions()
    assert tx.state == "reverted"
    assert await world.paid() == {}


async def test_a_reorganisation_brings_a_transaction_back_and_it_is_paid_once(
    world: World,
) -> None:
    await world.file(1)
    await world.steps()
    await world.node.seal()
    await world.steps()
    (tx,) = await world.transactions()
    assert tx.state == "mined"
    await world.node.reorganise(1)
    assert await world.paid() == {}
    world.clock.move(20)
    for _ in range(4):
        await world.steps()
        world.clock.move(20)
        await world.node.seal()
    await world.steps()
    assert await world.paid() == {recipient(1): [11]}
    assert world.settled[-1] == ("pay:1", tx.hash)
    assert [one.nonce for one in await world.transactions()] == [0]


async def test_nonces_and_signatures_are_judged_as_the_specification_says(world: World) -> None:
    signer = StarknetSigner(world.chain, world.account.address, world.account.key)
    fields: dict[str, object] = {
        "to": TOKEN,
        "data": TOKEN_ABI.encode("mint", recipient(1), 1),
        "gas": 10_000_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 0,
    }
    far = await signer.sign({**fields, "nonce": 1000})
    with pytest.raises(NonceTooHigh):
        await world.chain.send_raw(far.raw)
    good = await signer.sign({**fields, "nonce": 0})
    tx = Invoke.from_bytes(good.raw)
    forged = tx.signed([tx.signature[0], tx.signature[1] + 1])
    with pytest.raises(SendRejected, match="invalid signature"):
        await world.chain.send_raw(forged.to_bytes())
    assert await world.chain.send_raw(good.raw) == good.hash
    with pytest.raises(SendRejected, match="same hash"):
        await world.chain.send_raw(good.raw)
    await world.node.seal()
    spent = await signer.sign({**fields, "nonce": 0, "gas": 11_000_000})
    with pytest.raises(NonceTooLow):
        await world.chain.send_raw(spent.raw)
    receipt = await world.chain.receipt(good.hash)
    assert receipt is not None
    assert receipt.status == 1
    with pytest.raises(TransactionReverted, match="ERC20: insufficient balance"):
        await world.chain.estimate_gas(
            world.account.address, TOKEN, TOKEN_ABI.encode("transfer", recipient(2), 10**30)
        )
