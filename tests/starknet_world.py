"""A local Starknet for tests: contracts deployed, accounts with keys, a ledger like the EVM one."""

from __future__ import annotations

import asyncio
import atexit
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eth_abi.abi import decode

from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.pool import ProviderPool
from causeway.chains.starknet import felts
from causeway.chains.starknet.abi import Abi
from causeway.chains.starknet.chain import STRK, StarknetChain
from causeway.chains.starknet.signer import LocalKey
from causeway.chains.starknet.transactions import Bounds, ContractCall, Invoke, execution
from causeway.indexing.source import OnUndone, Source
from causeway.sandbox.starknet.engine import Engine, install
from causeway.sandbox.starknet.node import StarknetNode, running
from tests.chain.ledger import LEDGER, Book, Ledger

BUILD = Path(__file__).parents[1] / "contracts" / "build" / "starknet"


def abi_of(contract: str) -> Abi:
    """Return the ABI of one of our contracts."""
    return Abi.from_json(json.loads((BUILD / f"{contract}.json").read_text())["sierra"])


LEDGER_ABI = abi_of("ledger")
_DROP = LEDGER.event("Drop").topic0


class StarknetLedger(Ledger):
    """The ledger's contract on a local Starknet, told the same things in the same words."""

    def __init__(self, node: StarknetNode) -> None:
        self.node = node
        self.address = ""

    async def deploy(self) -> None:
        """Put the contract on the chain and stop automatic sealing."""
        class_hash = await self.node.ledger.declare(BUILD / "ledger.json")
        await self.node.ledger.deploy(class_hash, 0x1ED6E4)
        self.node.ledger.automine = False
        self.node.ledger.l1_depth = 64
        self.address = f"0x{0x1ED6E4:064x}"

    async def block(self, *calls: str) -> int:
        """Make one block with these calls, in this order; return its number."""
        await self._tell(calls)
        return (await self.node.seal()).number

    async def mine(self, blocks: int) -> int:
        """Make empty blocks; return the head's number."""
        for _ in range(blocks):
            await self.node.seal()
        return await self.head()

    async def head(self) -> int:
        """Return the head's number."""
        return self.node.ledger.newest.number

    async def reorg(self, depth: int, moved: list[tuple[str, int]] | None = None) -> None:
        """Replace the newest `depth` blocks; `moved`: calls and the new block (0..) they are in."""
        await self.node.reorganise(depth, blocks=0)
        for at in range(depth):
            await self._tell([call for call, place in moved or [] if place == at])
            await self.node.seal()

    async def shrink(self, blocks: int) -> None:
        """Take the newest blocks away."""
        await self.node.reorganise(blocks, blocks=0)

    async def _tell(self, calls: list[str] | tuple[str, ...]) -> None:
        """Have the contract tell what these calls of the EVM contract would have."""
        into: list[int] = []
        for call in calls:
            plain = bytes.fromhex(call[2:])
            dropped = call.startswith(_DROP)
            amount, note = (0, "") if dropped else decode(["uint256", "string"], plain[64:])
            move = {
                "dropped": dropped,
                "key": int.from_bytes(plain[32:64], "big"),
                "amount": amount,
                "note": note,
            }
            LEDGER_ABI.function("tell").inputs[1].reader.write([move], part := [])
            into += part[1:]
        if calls:
            await self.node.ledger.handle(self.address, "tell", [len(calls), *into])


@dataclass(frozen=True)
class StarknetBook(Book):
    """The tables of the ledger, filled from Starknet."""

    def source(
        self, name: str, address: str, start_block: int, on_undone: OnUndone | None = None
    ) -> Source:
        """Return the source that fills the tables."""
        return Source(
            name=name,
            chain="ledger",
            abi=LEDGER_ABI,
            addresses=(address,),
            start_block=start_block,
            handlers={"Put": self.put, "Drop": self.drop},
            derived=self.derived,
            on_undone=on_undone,
        )


def starknet_at(url: str, chain_id: int | str, *more: str) -> StarknetChain:
    """Return the chain read through these endpoints; the caller closes it."""
    endpoints = [Endpoint(SecretUrl(one), f"node{n}") for n, one in enumerate((url, *more))]
    return StarknetChain("ledger", chain_id, ProviderPool(endpoints, timeout_s=20))


@cache
def engine() -> Engine:
    """Return an engine for all tests of this process: starting one takes seconds."""
    made = Engine(asyncio.run(install()))
    made.start()
    atexit.register(made.stop)
    return made


@asynccontextmanager
async def starknet(seed: int | None = 0) -> AsyncGenerator[StarknetNode]:
    """Run a node; with a seed its pages of events are of random sizes."""
    # The first call installs what is missing, in a loop of its own.
    shared = await asyncio.to_thread(engine)
    pages = None if seed is None else random.Random(seed)
    async with running(engine=shared, pages=pages) as node:
        yield node


TOKEN_ABI = abi_of("token")
#: Resources for transactions that set the stage.
ENOUGH = Bounds(10**9, 10**12, 10**6, 10**12)


@dataclass(frozen=True)
class Account:
    """An account contract with one key."""

    address: str
    key: LocalKey


async def deploy_account(node: StarknetNode, number: int = 1) -> Account:
    """Deploy an account with a key of its own."""
    key = LocalKey(hex(0x1234567890ABCDEF + number))
    class_hash = await node.ledger.declare(BUILD / "account.json")
    await node.ledger.deploy(class_hash, 0xACC0 + number, [key.public_key])
    return Account(felts.padded(0xACC0 + number), key)


async def deploy_token(node: StarknetNode, address: str = STRK) -> str:
    """Deploy a token that anybody may mint; return its address."""
    class_hash = await node.ledger.declare(BUILD / "token.json")
    await node.ledger.deploy(class_hash, int(address, 16))
    return felts.padded(address)


async def invoke(node: StarknetNode, account: Account, *calls: tuple[str, bytes]) -> str:
    """Send a signed transaction with these calls; return its hash."""
    tx = Invoke(
        account.address,
        execution([ContractCall.from_data(to, data) for to, data in calls]),
        node.ledger.nonce(int(account.address, 16)),
        ENOUGH,
    )
    signature = await account.key.sign_hash(tx.hash(node.ledger.chain_id))
    return await node.ledger.add(tx.signed(signature))
