"""The local chain itself: accounts, the mempool, blocks, and reorganisations."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError
from causeway.chains.evm.hashing import keccak
from causeway.chains.starknet.felts import selector
from causeway.chains.starknet.transactions import Invoke
from causeway.sandbox.starknet import wire
from causeway.sandbox.starknet.engine import ContractFailed, Engine

_MASK = (1 << 250) - 1
#: Prices of a unit of each resource, in fri.
L1_GAS, L2_GAS, DATA_GAS = 30_000_000_000_000, 3_000_000_000, 1_000_000_000
#: Gas of layer 2 for a step of the engine, and what every transaction takes besides.
_GAS_A_STEP = 100
_GAS_AT_LEAST = 50_000
_DATA_GAS_AT_LEAST = 128
SEQUENCER = "0x1176a1bd84444c89232ec27754698e5d2e7e1a7f1539f12027f28b23ec9f3d8"
#: Transactions of one account that may wait for an earlier nonce.
_AHEAD = 200
_TOO_LITTLE = "The transaction's resources don't cover validation or the minimal fee"


class Refused(CausewayError):
    """The node does not do what it was asked, with a code of the specification."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def hashed(*parts: object) -> str:
    """Return a felt that depends on everything given."""
    digest = keccak(json.dumps(parts, default=str).encode())
    return hex(int.from_bytes(digest, "big") & _MASK)


@dataclass
class Transaction:
    """A transaction, and what became of it where it was executed."""

    hash: str
    sender: str
    tx: Invoke | None
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    reverted: str | None = None
    steps: int = 0
    #: Where there is no account: the contract that was deployed.
    deployed: str | None = None
    #: The hash of the message from layer 1 that it handles.
    message: str | None = None

    @property
    def resources(self) -> wire.Resources:
        """What it used."""
        return wire.Resources(0, _DATA_GAS_AT_LEAST, _GAS_AT_LEAST + _GAS_A_STEP * self.steps)

    @property
    def fee(self) -> int:
        """What it cost, in fri."""
        used = self.resources
        if self.tx is None:
            return 0
        return used.l2_gas * (L2_GAS + self.tx.tip) + used.l1_data_gas * DATA_GAS


@dataclass(frozen=True)
class Block:
    """A sealed block."""

    number: int
    hash: str
    parent: str
    timestamp: int
    transactions: tuple[Transaction, ...]
    #: Nonces of the accounts after it.
    nonces: Mapping[int, int]

    def header(self) -> dict[str, Any]:
        """Return the header as the wire has it."""
        events = sum(len(one.events) for one in self.transactions)
        return {
            "block_hash": self.hash,
            "parent_hash": self.parent,
            "block_number": self.number,
            "new_root": hashed("root", self.hash),
            "timestamp": self.timestamp,
            "event_commitment": hashed("events", self.hash),
            "transaction_commitment": hashed("transactions", self.hash),
            "receipt_commitment": hashed("receipts", self.hash),
            "state_diff_commitment": hashed("state", self.hash),
            "event_count": events,
            "transaction_count": len(self.transactions),
            "state_diff_length": events,
            **surroundings(),
        }


def surroundings() -> dict[str, Any]:
    """Return what all blocks have in common."""
    return {
        "sequencer_address": SEQUENCER,
        "l1_gas_price": {"price_in_fri": hex(L1_GAS), "price_in_wei": "0x1"},
        "l2_gas_price": {"price_in_fri": hex(L2_GAS), "price_in_wei": "0x1"},
        "l1_data_gas_price": {"price_in_fri": hex(DATA_GAS), "price_in_wei": "0x1"},
        "l1_da_mode": "BLOB",
        "starknet_version": "0.14.2",
    }


class Ledger:
    """Blocks and what is on its way into them.

    With `automine` each transaction is executed at once and has a block of its own; without it they
    gather in the pre-confirmed block until `seal`. With `hold` they stay in the mempool.
    """

    def __init__(self, engine: Engine, chain_id: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self.engine = engine
        self.chain_id = chain_id
        self.automine = True
        self.hold = False
        #: Blocks below the newest from which on they count as accepted on layer 1.
        self.l1_depth = 1_000_000
        self.blocks: list[Block] = []
        self.pending: list[Transaction] = []
        self.mempool: dict[tuple[int, int], tuple[Transaction, Invoke]] = {}
        self.classes: dict[str, dict[str, Any]] = {}
        self.deployed: dict[int, str] = {}
        #: Called with each sealed block, and with each reorganisation.
        self.sealed: list[Callable[[Block], None]] = []
        self.replaced: list[Callable[[wire.Reorg], None]] = []
        #: A block's time is this, where it is set; then the next second each.
        self.next_time: int | None = None
        self._nonces: dict[int, int] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._clock = clock
        self._messages = 0

    async def start(self) -> None:
        """Make the first block."""
        await self.seal()

    @property
    def newest(self) -> Block:
        """The newest sealed block."""
        return self.blocks[-1]

    @property
    def l1_accepted(self) -> int:
        """The newest block that is accepted on layer 1; -1 when there is none."""
        return self.newest.number - self.l1_depth

    def now(self) -> int:
        """Return the time of the block that is being made, Unix seconds."""
        last = self.newest.timestamp if self.blocks else 0
        wanted = self.next_time
        if wanted is None:
            wanted = int(self._clock.now().timestamp())
        return max(last + 1, wanted) if self.blocks else wanted

    def surrounding(self) -> dict[str, int]:
        """Return number and time of the block that is being made."""
        return {"number": len(self.blocks), "timestamp": self.now()}

    # Classes and contracts

    async def declare(self, build: Path) -> str:
        """Learn a compiled class (the folder's build output); return its hash."""
        data = json.loads(await asyncio.to_thread(build.read_text))
        await self.engine.ask("declare", hash=data["class_hash"], casm=data["casm"])
        self.classes[data["class_hash"]] = data
        return str(data["class_hash"])

    async def deploy(
        self, class_hash: str, address: int, calldata: Sequence[int] = ()
    ) -> Transaction:
        """Put a contract at an address; its constructor's events are in the next block."""
        answer = await self.engine.ask(
            "deploy",
            address=hex(address),
            class_hash=class_hash,
            calldata=[hex(one) for one in calldata],
            block=self.surrounding(),
        )
        self.deployed[address] = class_hash
        made = Transaction(
            hashed("deploy", address, len(self.blocks)),
            "0x0",
            None,
            list(answer["events"]),
            deployed=hex(address),
        )
        self.pending.append(made)
        if self.automine:
            await self.seal()
        return made

    async def handle(
        self, contract: str, function: str, payload: Sequence[int], *, sender: int = 0x11
    ) -> Transaction:
        """Bring a message of a contract on layer 1 to one here; it needs no account."""
        to = int(contract, 16)
        calldata = [hex(one) for one in (sender, *payload)]
        answer = await self.engine.ask(
            "handle",
            to=hex(to),
            selector=hex(selector(function)),
            calldata=calldata,
            block=self.surrounding(),
        )
        self._messages += 1
        hash_ = hashed("message", self._messages, to, function, calldata)
        made = Transaction(
            hash_,
            "0x0",
            None,
            list(answer["events"]),
            answer["reverted"],
            int(answer["steps"]),
            message=hashed("payload", hash_),
        )
        self.pending.append(made)
        if self.automine:
            await self.seal()
        return made

    # Transactions

    def nonce(self, address: int, block: Block | None = None) -> int:
        """Return an account's next nonce: after everything executed, or as of a block."""
        return (block.nonces if block is not None else self._nonces).get(address, 0)

    async def add(self, tx: Invoke) -> str:
        """Take a signed transaction; return its hash. Raises `Refused` as the write API has it."""
        sender = int(tx.sender, 16)
        hash_ = hex(tx.hash(self.chain_id))
        if self.find(hash_) is not None:
            raise Refused(59, "A transaction with the same hash already exists in the mempool")
        if sender not in self.deployed:
            raise Refused(55, "Account validation failed", "the account is not deployed")
        expected = self.nonce(sender)
        if not expected <= tx.nonce < expected + _AHEAD:
            detail = f"expected {expected}, the transaction has {tx.nonce}"
            raise Refused(52, "Invalid transaction nonce", detail)
        before = self.mempool.get((sender, tx.nonce))
        if before is not None and not _outbids(tx, before[1]):
            raise Refused(64, "Replacement transaction is underpriced")
        made = Transaction(hash_, hex(sender), tx)
        trial = await self._execute(made, apply=False)
        if not trial["validated"]:
            raise Refused(55, "Account validation failed", trial["reason"])
        made.steps = int(trial.get("steps", 0))
        bounds = tx.bounds
        used = made.resources
        if bounds.l2_gas < used.l2_gas or bounds.l1_data_gas < used.l1_data_gas:
            raise Refused(53, _TOO_LITTLE)
        if bounds.l2_gas_price < L2_GAS or bounds.l1_data_gas_price < DATA_GAS:
            raise Refused(53, _TOO_LITTLE)
        self.mempool[(sender, tx.nonce)] = (made, tx)
        if not self.hold:
            await self.work()
            if self.automine and self.pending:
                await self.seal()
        return hash_

    async def work(self) -> None:
        """Execute what waits in the mempool, in the order of nonces, into the next block."""
        found = True
        while found:
            found = False
            for (sender, nonce), (one, _) in sorted(self.mempool.items()):
                if nonce != self.nonce(sender):
                    continue
                answer = await self._execute(one, apply=True)
                del self.mempool[(sender, nonce)]
                found = True
                if not answer["validated"]:
                    continue
                one.events = list(answer["events"])
                one.reverted = answer["reverted"]
                one.steps = int(answer["steps"])
                self._nonces[sender] = nonce + 1
                self.pending.append(one)

    async def estimate(self, tx: Invoke, *, validate: bool, query: bool) -> Transaction:
        """Return a transaction as it would be executed now; `Refused` when it would be reverted."""
        made = Transaction(hex(tx.hash(self.chain_id, query=query)), tx.sender, tx)
        answer = await self._execute(made, apply=False, validate=validate)
        reason = answer.get("reason") if not answer["validated"] else answer["reverted"]
        if reason is not None:
            data = {"transaction_index": 0, "execution_error": reason}
            raise Refused(41, "Transaction execution error", data)
        made.steps = int(answer["steps"])
        return made

    async def _execute(
        self, one: Transaction, *, apply: bool, validate: bool = True
    ) -> Mapping[str, Any]:
        tx = one.tx
        if tx is None:
            raise CausewayError("a deployment is not executed")
        return await self.engine.ask(
            "transact",
            block=self.surrounding(),
            apply=apply,
            validate=validate,
            tx={
                "sender": one.sender,
                "calldata": [hex(felt) for felt in tx.calldata],
                "signature": [hex(felt) for felt in tx.signature],
                "hash": one.hash,
                "nonce": hex(tx.nonce),
            },
        )

    # Blocks

    async def seal(self) -> Block:
        """Close the pre-confirmed block; return it."""
        number = len(self.blocks)
        parent = self.newest.hash if self.blocks else "0x0"
        content = [[one.hash, one.events, one.reverted] for one in self.pending]
        # The salt makes another branch's block another one, even with the same content.
        hash_ = hashed(parent, number, self.now(), content, secrets.token_hex(8))
        block = Block(number, hash_, parent, self.now(), tuple(self.pending), dict(self._nonces))
        self.next_time = None
        self.blocks.append(block)
        for index, one in enumerate(self.pending):
            self._places[one.hash] = (number, index)
        self.pending = []
        await self.engine.ask("keep", number=number)
        for told in self.sealed:
            told(block)
        return block

    async def abort(self, first: int) -> list[Transaction]:
        """Take back block `first` and those after it; return their transactions, which are gone."""
        if not 0 < first <= self.newest.number:
            raise Refused(24, "Block not found")
        gone = self.blocks[first:]
        self.blocks = self.blocks[:first]
        dropped = [*[one for block in gone for one in block.transactions], *self.pending]
        self.pending = []
        for one in dropped:
            self._places.pop(one.hash, None)
            if one.deployed is not None:
                self.deployed.pop(int(one.deployed, 16), None)
        self._nonces = dict(self.newest.nonces)
        await self.engine.ask("back", number=self.newest.number)
        reorg = wire.Reorg(gone[0].hash, gone[0].number, gone[-1].hash, gone[-1].number)
        for told in self.replaced:
            told(reorg)
        return dropped

    def at(self, wanted: wire.AtHash | wire.AtNumber | str) -> Block | None:
        """Return the block that is meant, None for the pre-confirmed one; `Refused` without one."""
        if isinstance(wanted, wire.AtHash):
            number = int(wanted.block_hash, 16)
            for block in reversed(self.blocks):
                if int(block.hash, 16) == number:
                    return block
        elif isinstance(wanted, wire.AtNumber):
            if wanted.block_number < len(self.blocks):
                return self.blocks[wanted.block_number]
        elif wanted == "pre_confirmed":
            return None
        elif wanted == "latest":
            return self.newest
        elif self.l1_accepted >= 0:
            return self.blocks[self.l1_accepted]
        raise Refused(24, "Block not found")

    def find(self, hash_: str) -> tuple[Transaction, Block | None, int] | None:
        """Return a transaction with its block (None: not sealed yet) and its place in it."""
        key = hex(int(hash_, 16))
        place = self._places.get(key)
        if place is not None:
            block = self.blocks[place[0]]
            return block.transactions[place[1]], block, place[1]
        for index, one in enumerate(self.pending):
            if one.hash == key:
                return one, None, index
        for one, _ in self.mempool.values():
            if one.hash == key:
                return one, None, -1
        return None

    async def call(
        self, to: int, function: int, calldata: Sequence[int], block: Block | None
    ) -> list[str]:
        """Return what a view answers as of a block; `Refused` when it does not."""
        if to not in self.deployed:
            raise Refused(20, "Contract not found")
        surrounding = (
            self.surrounding()
            if block is None
            else {"number": block.number, "timestamp": block.timestamp}
        )
        try:
            answer = await self.engine.ask(
                "call",
                state=None if block is None else block.number,
                block=surrounding,
                to=hex(to),
                selector=hex(function),
                calldata=[hex(one) for one in calldata],
            )
        except ContractFailed as error:
            if "Entry point" in error.message:
                raise Refused(21, "Requested entrypoint does not exist in the contract") from None
            raise Refused(40, "Contract error", {"revert_error": error.message}) from None
        return list(answer["result"])

    async def read(self, contract: str, function: str, *calldata: int) -> list[int]:
        """Return what a view answers now, for whoever sets the stage."""
        found = await self.call(int(contract, 16), selector(function), calldata, None)
        return [int(one, 16) for one in found]

    def finality(self, block: Block | None) -> str:
        """Return how settled a block is, as the wire has it."""
        if block is None:
            return "PRE_CONFIRMED"
        return "ACCEPTED_ON_L1" if block.number <= self.l1_accepted else "ACCEPTED_ON_L2"


def _outbids(new: Invoke, old: Invoke) -> bool:
    """Say whether a transaction may take the place of another with its nonce: a tenth more."""
    return all(
        10 * ours >= 11 * theirs
        for ours, theirs in (
            (new.tip, old.tip),
            (new.bounds.l2_gas_price, old.bounds.l2_gas_price),
        )
    )
