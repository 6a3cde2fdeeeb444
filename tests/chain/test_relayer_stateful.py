"""The relayer on a real node is held against its model, whatever happens in whatever order.

After each look of the relayer at the world, what is new in its ledger must be something that the
model's rules lead to; after everything, the model's promises must hold; and at the end, once the
world leaves it alone, each unit is done once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar, TypeVar, cast

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from causeway.base.errors import CausewayError, InvalidStateTransition
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.wire import WireLog
from causeway.relayer import pauses
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.pauses import Scope
from causeway.sandbox.anvil import AnvilNode, RpcFailure
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store.engine import Database
from tests.chain.reveals import ABI, KEEPER_ROLE, TestClock, World, chain_at, key
from tests.chain.send_proxy import SendProxy, Sends, send_proxy
from tests.relayer_model import (
    PENDING,
    SETTLED,
    Entry,
    Foreign,
    Model,
    Ours,
    Outsider,
    State,
    Tx,
    leads_to,
)

T = TypeVar("T")

TOKENS = 6
#: Blocks above an entry that make it one that stays.
DEEP = 2

_EMPTY = """
TRUNCATE causeway.relayer_units, causeway.relayer_transactions, causeway.relayer_transaction_units,
    causeway.relayer_attempts, causeway.relayer_receipts, causeway.relayer_accounts,
    causeway.relayer_waits, causeway.relayer_events, causeway.relayer_pauses, causeway.leases,
    public.reveals CASCADE
"""


class Scene:
    """A node, a database and a relayer that can be made anew for each example."""

    def __init__(
        self, database: Database, node: AnvilNode, contract: GliskContract, proxy: SendProxy
    ) -> None:
        self.database = database
        self.node = node
        self.contract = contract
        self.proxy = proxy
        self.snapshot = ""
        self.clock = TestClock()
        self.filed: list[int] = []
        self._opened: list[EvmChain] = []
        self._blocks: dict[str, list[dict[str, Any]]] = {}

    @classmethod
    async def open(cls, stack: AsyncExitStack, url: str) -> Scene:
        database = Database(url, pool_size=4)
        stack.push_async_callback(database.close)
        node = await stack.enter_async_context(AnvilNode.start())
        contract = await GliskContract.deploy(node, keeper_address=node.accounts[1].address)
        await contract.transact(
            node.accounts[0], "grantRole", KEEPER_ROLE, node.accounts[0].address
        )
        await contract.mint(node.accounts[3], node.accounts[2].address, TOKENS)
        await node.mine(DEEP + 1)
        await node.rpc("evm_setAutomine", False)
        proxy = await stack.enter_async_context(send_proxy(node.url))
        scene = cls(database, node, contract, proxy)
        scene.snapshot = await node.rpc("evm_snapshot")
        stack.push_async_callback(scene.close)
        return scene

    async def close(self) -> None:
        for chain in self._opened:
            await chain.close()
        self._opened.clear()

    async def begin(self) -> None:
        """Bring node and database back to the beginning, and start a relayer."""
        await self.node.rpc("anvil_dropAllTransactions")
        await self.node.rpc("evm_revert", self.snapshot)
        self.snapshot = await self.node.rpc("evm_snapshot")
        self.first_block = await self.node.height()
        self.clock = TestClock()
        self.filed = []
        self.heal()
        self.proxy.raw.clear()
        await self.restart(first=True)

    def heal(self) -> None:
        self.proxy.sends = "pass"
        self.proxy.countdown = None
        self.proxy.reached.clear()
        self.proxy.let_go.clear()

    async def restart(self, *, first: bool = False) -> None:
        """Start a relayer that knows nothing but what is in the database."""
        await self.close()
        chain = chain_at(self.proxy.url, self.node.chain_id)
        self._opened.append(chain)
        if first:
            async with self.database.transaction() as session:
                await session.execute(
                    text("CREATE TABLE IF NOT EXISTS public.reveals (token_id bigint)")
                )
                await session.execute(text("DROP TABLE public.reveals"))
        self.world = await World.make(
            self.database,
            self.node,
            self.contract,
            chain,
            clock=self.clock,
            settings=RelayerSettings(lease_s=600, in_flight_max=3),
            max_batch=2,
            finality=DEEP,
        )
        if first:
            async with self.database.transaction() as session:
                await session.execute(text(_EMPTY))
            lease = await self.world.relayer.acquire("test")
            assert lease is not None
            self.world.lease = lease
            self.world.leases = [lease]

    # What the ledger and the chain are, as the model writes them

    async def ledger(self) -> State:
        transactions = await self.world.transactions()
        index = {tx.id: number for number, tx in enumerate(transactions)}
        unit_of = {key(token): number for number, token in enumerate(self.filed)}
        async with self.database.transaction() as session:
            rows = await session.execute(
                text("SELECT unit_key, state, tx_id FROM causeway.relayer_units")
            )
            units = [PENDING] * len(self.filed)
            for unit_key, state, tx_id in rows:
                assert state in ("pending", "bound", "settled"), (unit_key, state)
                places = {"pending": PENDING, "settled": SETTLED}
                units[unit_of[unit_key]] = places[state] if state in places else index[tx_id]
        txs = tuple(
            Tx(
                cast("Any", tx.state),
                tx.nonce,
                tuple(unit_of[unit.key] for unit in tx.units),
                tuple(attempt.is_cancel for attempt in tx.attempts),
            )
            for tx in transactions
        )
        chain, deep = await self._chain(
            {a.hash: Ours(index[tx.id], a.n - 1) for tx in transactions for a in tx.attempts}
        )
        return State(tuple(units), txs, chain, deep)

    async def _chain(self, ours: dict[str, Ours]) -> tuple[tuple[Entry, ...], int]:
        head = await self.node.height()
        me = self.world.relayer.address.lower()
        entries: list[Entry] = []
        deep = 0
        for number in range(self.first_block + 1, head + 1):
            block = await self.node.rpc("eth_getBlockByNumber", hex(number), True)
            for tx in block["transactions"]:
                if tx["from"].lower() == me:
                    entries.append(ours.get(tx["hash"].lower(), Foreign()))
                elif (token := self._outsider.get(tx["hash"])) is not None:
                    if token in self.filed:
                        entries.append(Outsider(self.filed.index(token)))
            if number <= head - DEEP:
                deep = len(entries)
        return tuple(entries), deep

    _outsider: ClassVar[dict[str, int]] = {}

    # What happens

    async def file(self, quantity: int) -> None:
        tokens = [t for t in range(1, TOKENS + 1) if t not in self.filed][:quantity]
        if tokens:
            await self.world.file(*tokens)
            self.filed += tokens

    async def step(self) -> None:
        """Look once; what a provider does to us may fail, nothing else."""
        did = await self.world.relayer.step(self.world.lease)
        for error in did.errors:
            assert isinstance(error, CausewayError), error

    async def crash(self, after: int) -> None:
        """Die in a step, at its n-th question to the node, and start again."""
        self.proxy.countdown = after
        stepping = asyncio.ensure_future(self.world.relayer.step(self.world.lease))
        reached = asyncio.ensure_future(self.proxy.reached.wait())
        await asyncio.wait((stepping, reached), return_when=asyncio.FIRST_COMPLETED)
        for task in (stepping, reached):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.proxy.let_go.set()
        await self.close()
        self.heal()
        await self.restart()

    async def reorg(self, depth: int) -> None:
        if await self.node.height() - self.first_block > depth:
            await self.node.rpc("anvil_reorg", depth, [])

    async def echo(self, number: int) -> None:
        """Somebody who has seen bytes of ours sends them again."""
        if self.proxy.raw:
            with suppress(RpcFailure):
                await self.node.rpc(
                    "eth_sendRawTransaction", self.proxy.raw[number % len(self.proxy.raw)]
                )

    async def send_first_again(self) -> None:
        """The first bytes for the lowest nonce that waits turn up again, whatever came after."""
        async with self.database.transaction() as session:
            raw = await session.scalar(
                text(
                    "SELECT a.raw FROM causeway.relayer_attempts a "
                    "JOIN causeway.relayer_transactions t ON t.id = a.tx_id "
                    "WHERE t.state IN ('signed', 'sent') AND a.n = 1 AND a.sends > 0 "
                    "ORDER BY t.nonce LIMIT 1"
                )
            )
        if raw is not None:
            with suppress(RpcFailure):
                await self.node.rpc("eth_sendRawTransaction", "0x" + bytes(raw).hex())

    async def foreign(self) -> None:
        """Another program uses the key."""
        me = self.world.relayer.address
        nonce = await self.node.rpc("eth_getTransactionCount", me, "latest")
        fields = {"from": me, "to": me, "value": "0x1", "nonce": nonce}
        fees = {"maxFeePerGas": hex(500 * 10**9), "maxPriorityFeePerGas": hex(400 * 10**9)}
        with suppress(RpcFailure):
            await self.node.rpc("eth_sendTransaction", fields | fees)
        await self.node.mine()

    async def outsider(self, token: int) -> None:
        """Somebody else reveals a token, before what is waiting."""
        tip = 100 * 10**9
        sent = await self.node.rpc(
            "eth_sendTransaction",
            {
                "from": self.node.accounts[0].address,
                "to": self.contract.address,
                "data": self.contract.encode("revealTokens", [token], ["ipfs://theirs"]),
                "gas": hex(300_000),
                "maxFeePerGas": hex(300 * 10**9),
                "maxPriorityFeePerGas": hex(tip),
            },
        )
        await self.node.mine()
        receipt = await self.node.rpc("eth_getTransactionReceipt", sent)
        if receipt is not None and receipt["status"] == "0x1":
            self._outsider[sent] = token

    async def cancel(self) -> None:
        for tx in reversed(await self.world.transactions()):
            if tx.state in ("signed", "sent"):
                with suppress(InvalidStateTransition):
                    await self.world.relayer.cancel(tx.id, by="ada")
                return

    async def pause(self, mode: str | None) -> None:
        async with self.database.transaction() as session:
            if mode is None:
                await pauses.resume(session, Scope())
            else:
                now = self.clock.now()
                await pauses.pause(session, Scope(), mode, reason=None, by="ada", now=now)

    async def revealed(self) -> list[int]:
        """Return the tokens of all reveals on the chain, from the node itself."""
        wanted = {"address": self.contract.address, "fromBlock": "0x0"}
        tokens: list[int] = []
        for log in await self.node.rpc("eth_getLogs", wanted):
            if log["topics"][0] == ABI.event("TokensRevealed").topic0:
                found = ABI.decode_log(msgspec.convert(log, WireLog).log())
                assert found is not None
                tokens += [int(token) for token in cast("list[int]", found.args["tokenIds"])]
        return tokens

    async def calm(self) -> State:
        """Leave it alone until everything is done."""
        self.heal()
        await self.pause(None)
        state = await self.ledger()
        for _ in range(60):
            if all(unit == SETTLED for unit in state.units):
                return state
            for _ in range(4):
                await self.step()
            await self.node.mine(DEEP + 1)
            self.clock.move(61)
            state = await self.ledger()
        raise AssertionError(f"it never ends: {state}")


class RelayerMachine(RuleBasedStateMachine):
    """What may happen, in any order."""

    scene: ClassVar[Scene]
    runner: ClassVar[asyncio.Runner]
    model = Model(guarded=True)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    @initialize(quantity=st.integers(1, 3))
    def begin(self, quantity: int) -> None:
        self.run(self.scene.begin())
        self.run(self.scene.file(quantity))
        self.state = self.run(self.scene.ledger())

    def relayer(self, what: Coroutine[Any, Any, None]) -> None:
        """Let the relayer move, and see that the model has such moves."""
        before = self.run(self.scene.ledger())
        self.run(what)
        after = self.run(self.scene.ledger())
        assert leads_to(before, after, guarded=True), f"no rule leads from\n{before}\nto\n{after}"

    @rule(quantity=st.integers(1, 2))
    def file(self, quantity: int) -> None:
        self.run(self.scene.file(quantity))

    @rule(times=st.integers(2, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.relayer(self.scene.step())

    @rule(sends=st.sampled_from(["swallow", "500_after", "cut_after", "cut_before", "error"]))
    def step_with_a_provider_that_lies(self, sends: Sends) -> None:
        self.scene.proxy.sends = sends
        self.relayer(self.scene.step())
        self.scene.proxy.sends = "pass"

    @rule(after=st.integers(0, 14))
    def crash(self, after: int) -> None:
        self.relayer(self.scene.crash(after))

    @rule(blocks=st.integers(1, DEEP + 1))
    def mine(self, blocks: int) -> None:
        self.run(self.scene.node.mine(blocks))

    @rule(depth=st.integers(1, DEEP))
    def reorg(self, depth: int) -> None:
        self.run(self.scene.reorg(depth))

    @rule(depth=st.integers(1, DEEP))
    def reorg_of_what_was_seen(self, depth: int) -> None:
        self.run(self.scene.node.mine())
        self.relayer(self.scene.step())
        self.run(self.scene.reorg(depth))
        self.relayer(self.scene.step())

    @rule(seconds=st.sampled_from([200, 1000]))
    def first_bytes_win(self, seconds: int) -> None:
        self.relayer(self.scene.step())
        self.scene.clock.move(seconds)
        for _ in range(2):
            self.relayer(self.scene.step())
        self.run(self.scene.node.rpc("anvil_dropAllTransactions"))
        self.run(self.scene.send_first_again())
        self.run(self.scene.node.mine())
        self.relayer(self.scene.step())

    @rule()
    def drop(self) -> None:
        self.run(self.scene.node.rpc("anvil_dropAllTransactions"))

    @rule(number=st.integers(0, 20))
    def echo(self, number: int) -> None:
        self.run(self.scene.echo(number))

    @rule(seconds=st.sampled_from([3, 16, 61, 200, 1000]))
    def wait(self, seconds: int) -> None:
        self.scene.clock.move(seconds)

    @rule()
    def cancel(self) -> None:
        self.run(self.scene.cancel())

    @rule()
    def foreign(self) -> None:
        self.run(self.scene.foreign())

    @rule(token=st.integers(1, TOKENS))
    def outsider(self, token: int) -> None:
        self.run(self.scene.outsider(token))

    @rule(mode=st.sampled_from([None, None, "no-new", "no-sign", "cancel-open"]))
    def pause(self, mode: str | None) -> None:
        self.run(self.scene.pause(mode))

    @invariant()
    def the_promises_hold(self) -> None:
        state = self.run(self.scene.ledger())
        broken = self.model.broken(state)
        assert broken is None, f"{broken}: {state}"

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        state = self.run(self.scene.calm())
        assert self.model.broken(state) is None
        done = self.run(self.scene.revealed())
        assert sorted(token for token in done if token in self.scene.filed) == sorted(
            self.scene.filed
        )


def run_machine(url: str, examples: int, steps: int, *, derandomize: bool) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=derandomize,
        database=None,
        # What fails is told as it came: on a real node it would take minutes to make it smaller.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        RelayerMachine.runner = runner
        RelayerMachine.scene = runner.run(Scene.open(stack, url))
        try:
            run_state_machine_as_test(RelayerMachine, settings=how)
        finally:
            runner.run(stack.aclose())


def test_the_code_moves_as_the_model_does(database_url: str) -> None:
    run_machine(database_url, 12, 25, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_code_moves_as_the_model_does_at_length(database_url: str) -> None:
    run_machine(database_url, 150, 50, derandomize=False)
