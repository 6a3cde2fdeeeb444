"""What the node answers to each method of RPC 0.10. Every answer goes through `wire`."""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from causeway.base.errors import InvalidInput
from causeway.chains.starknet.transactions import Invoke
from causeway.sandbox.starknet import wire
from causeway.sandbox.starknet.ledger import (
    DATA_GAS,
    L1_GAS,
    L2_GAS,
    Block,
    Ledger,
    Refused,
    Transaction,
    surroundings,
)

SPEC_VERSION = "0.10.2"
#: Events in one page, and filters of keys, at most.
_LARGEST_PAGE = 1024
_MOST_KEYS = 1024

_Answer = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class _Page:
    """Where a page of events begins: the question it belongs to, and the place."""

    question: bytes
    block: int
    event: int


class Methods:
    """The methods by name. `pages`: how many events the next page has at most, given the most."""

    def __init__(self, ledger: Ledger, pages: random.Random | None = None) -> None:
        self.ledger = ledger
        #: Without a source of chance pages are as long as asked for.
        self.pages = pages
        #: The widest range of blocks that events are given for; None: any.
        self.widest: int | None = None
        self._tokens: dict[str, _Page] = {}
        self._methods: dict[str, tuple[_Answer, tuple[str, ...]]] = {
            "specVersion": (self._spec_version, ()),
            "chainId": (self._chain_id, ()),
            "syncing": (self._syncing, ()),
            "blockNumber": (self._block_number, ()),
            "blockHashAndNumber": (self._hash_and_number, ()),
            "getBlockWithTxHashes": (self._block, ("block_id",)),
            "getBlockTransactionCount": (self._count, ("block_id",)),
            "getEvents": (self._events, ("filter",)),
            "call": (self._call, ("request", "block_id")),
            "getNonce": (self._nonce, ("block_id", "contract_address")),
            "getClassHashAt": (self._class_hash, ("block_id", "contract_address")),
            "getClassAt": (self._class, ("block_id", "contract_address")),
            "getStorageAt": (self._storage, ("contract_address", "key", "block_id")),
            "estimateFee": (self._estimate, ("request", "simulation_flags", "block_id")),
            "addInvokeTransaction": (self._add, ("invoke_transaction",)),
            "getTransactionStatus": (self._status, ("transaction_hash",)),
            "getTransactionReceipt": (self._receipt, ("transaction_hash",)),
            "getTransactionByHash": (self._transaction, ("transaction_hash",)),
        }

    async def answer(self, method: str, params: object) -> Any:
        """Return the result of a call; `Refused` with the code that the specification has."""
        found = self._methods.get(method.removeprefix("starknet_"))
        if found is None or not method.startswith("starknet_"):
            raise Refused(-32601, f"Method not found: {method}")
        answer, names = found
        if isinstance(params, dict):
            named = cast("dict[str, Any]", params)
        elif isinstance(params, list):
            listed = cast("list[Any]", params)
            named = dict(zip(names, listed, strict=False))
            if len(listed) > len(names):
                raise Refused(-32602, f"{method}: too many parameters")
        else:
            raise Refused(-32602, f"{method}: parameters are a list or an object")
        if set(named) - set(names) or set(names) - set(named):
            raise Refused(-32602, f"{method} has the parameters {', '.join(names) or 'none'}")
        try:
            return msgspec.to_builtins(await answer(*[named[name] for name in names]))
        except msgspec.ValidationError as error:
            raise Refused(-32602, "Invalid params", str(error)) from None
        except InvalidInput as error:
            raise Refused(-32602, "Invalid params", error.message) from None

    # Blocks

    async def _spec_version(self) -> str:
        return SPEC_VERSION

    async def _chain_id(self) -> str:
        return said(hex(self.ledger.chain_id), wire.ChainId)

    async def _syncing(self) -> bool:
        return False

    async def _block_number(self) -> int:
        return self.ledger.newest.number

    async def _hash_and_number(self) -> wire.HashAndNumber:
        newest = self.ledger.newest
        return said({"block_hash": newest.hash, "block_number": newest.number}, wire.HashAndNumber)

    async def _block(self, block_id: Any) -> wire.BlockWithTxHashes | wire.PreConfirmed:
        block = self.ledger.at(wire.block_id(block_id))
        if block is None:
            made = {
                "block_number": len(self.ledger.blocks),
                "timestamp": self.ledger.now(),
                "transactions": [one.hash for one in self.ledger.pending],
                **surroundings(),
            }
            return said(made, wire.PreConfirmed)
        status = {"status": self.ledger.finality(block)}
        hashes = {"transactions": [one.hash for one in block.transactions]}
        return said({**block.header(), **status, **hashes}, wire.BlockWithTxHashes)

    async def _count(self, block_id: Any) -> int:
        block = self.ledger.at(wire.block_id(block_id))
        return len(self.ledger.pending if block is None else block.transactions)

    # Events

    async def _events(self, given: Any) -> wire.EventsChunk:
        wanted = msgspec.convert(given, wire.EventFilter)
        if wanted.chunk_size > _LARGEST_PAGE:
            raise Refused(31, "Requested page size is too big")
        if sum(map(len, wanted.keys)) > _MOST_KEYS:
            raise Refused(34, "Too many keys provided in a filter")
        first = self._number(wanted.from_block, 0)
        last = self._number(wanted.to_block, len(self.ledger.blocks))
        if self.widest is not None and last - first >= self.widest:
            raise Refused(-32000, f"block range too large: at most {self.widest} blocks")
        question = msgspec.json.encode([first, last, wanted.address, wanted.keys])
        at_block, at_event = first, 0
        if wanted.continuation_token is not None:
            page = self._tokens.get(wanted.continuation_token)
            if page is None or page.question != question:
                raise Refused(33, "The supplied continuation token is invalid or unknown")
            at_block, at_event = page.block, page.event
        most = wanted.chunk_size
        if self.pages is not None:  # short pages and empty ones are as good as others
            most = self.pages.choice([most, self.pages.randint(0, most)])
        found: list[dict[str, Any]] = []
        for number in range(at_block, min(last, len(self.ledger.blocks)) + 1):
            events = self._in_block(number, wanted)
            for place in range(at_event, len(events)):
                if len(found) == most:
                    token = secrets.token_urlsafe(12)
                    self._tokens[token] = _Page(question, number, place)
                    return said({"events": found, "continuation_token": token}, wire.EventsChunk)
                found.append(events[place])
            at_event = 0
        return said({"events": found}, wire.EventsChunk)

    def _number(self, given: Any, default: int) -> int:
        """Return the number of a bound; that of the pre-confirmed block is the next one."""
        if given is None:
            return default
        wanted = wire.block_id(given)
        if isinstance(wanted, wire.AtNumber):
            return wanted.block_number
        block = self.ledger.at(wanted)
        return len(self.ledger.blocks) if block is None else block.number

    def _in_block(self, number: int, wanted: wire.EventFilter) -> list[dict[str, Any]]:
        pending = number == len(self.ledger.blocks)
        block = None if pending else self.ledger.blocks[number]
        transactions = self.ledger.pending if block is None else block.transactions
        addresses = wanted.address
        listed = [addresses] if isinstance(addresses, str) else addresses
        from_these = None if listed is None else {int(one, 16) for one in listed}
        keys = [{int(one, 16) for one in options} for options in wanted.keys]
        found: list[dict[str, Any]] = []
        for at, transaction in enumerate(transactions):
            for index, event in enumerate(transaction.events):
                if from_these is not None and int(event["from"], 16) not in from_these:
                    continue
                if not _matches(event["keys"], keys):
                    continue
                place = (
                    {}
                    if block is None
                    else {"block_hash": block.hash, "block_number": block.number}
                )
                found.append(
                    {
                        "from_address": event["from"],
                        "keys": event["keys"],
                        "data": event["data"],
                        "transaction_hash": transaction.hash,
                        "transaction_index": at,
                        "event_index": index,
                        **place,
                    }
                )
        return found

    # State

    async def _call(self, request: Any, block_id: Any) -> list[str]:
        call = msgspec.convert(request, wire.FunctionCall)
        block = self.ledger.at(wire.block_id(block_id))
        answer = await self.ledger.call(
            int(call.contract_address, 16),
            int(call.entry_point_selector, 16),
            [int(one, 16) for one in call.calldata],
            block,
        )
        return said(answer, list[wire.Felt])

    async def _nonce(self, block_id: Any, contract_address: Any) -> str:
        address = int(msgspec.convert(contract_address, wire.Felt), 16)
        block = self.ledger.at(wire.block_id(block_id))
        if address not in self.ledger.deployed:
            raise Refused(20, "Contract not found")
        return said(hex(self.ledger.nonce(address, block)), wire.Felt)

    async def _class_hash(self, block_id: Any, contract_address: Any) -> str:
        address = int(msgspec.convert(contract_address, wire.Felt), 16)
        self.ledger.at(wire.block_id(block_id))
        found = self.ledger.deployed.get(address)
        if found is None:
            raise Refused(20, "Contract not found")
        return said(found, wire.Felt)

    async def _class(self, block_id: Any, contract_address: Any) -> Any:
        build = self.ledger.classes[await self._class_hash(block_id, contract_address)]
        return build["sierra"]

    async def _storage(self, contract_address: Any, key: Any, block_id: Any) -> str:
        address = msgspec.convert(contract_address, wire.Felt)
        block = self.ledger.at(wire.block_id(block_id))
        if int(address, 16) not in self.ledger.deployed:
            raise Refused(20, "Contract not found")
        answer = await self.ledger.engine.ask(
            "storage",
            state=None if block is None else block.number,
            address=address,
            key=msgspec.convert(key, wire.Felt),
        )
        return said(answer["value"], wire.Felt)

    # Transactions

    async def _estimate(
        self, request: Any, simulation_flags: Any, block_id: Any
    ) -> list[wire.FeeEstimate]:
        wire.block_id(block_id)
        validate = not msgspec.convert(simulation_flags, list[str])
        made: list[wire.FeeEstimate] = []
        for one in msgspec.convert(request, list[wire.InvokeV3]):
            tx = Invoke.from_wire(msgspec.to_builtins(one))
            done = await self.ledger.estimate(tx, validate=validate, query=one.version != "0x3")
            used = done.resources
            made.append(
                said(
                    {
                        "l1_gas_consumed": hex(used.l1_gas),
                        "l1_gas_price": hex(L1_GAS),
                        "l2_gas_consumed": hex(used.l2_gas),
                        "l2_gas_price": hex(L2_GAS),
                        "l1_data_gas_consumed": hex(used.l1_data_gas),
                        "l1_data_gas_price": hex(DATA_GAS),
                        "overall_fee": hex(done.fee),
                        "unit": "FRI",
                    },
                    wire.FeeEstimate,
                )
            )
        return made

    async def _add(self, given: Any) -> wire.Added:
        sent = msgspec.convert(given, wire.InvokeV3)
        if sent.version != "0x3":
            raise Refused(61, "The transaction version is not supported")
        tx = Invoke.from_wire(msgspec.to_builtins(sent))
        return said({"transaction_hash": await self.ledger.add(tx)}, wire.Added)

    def _find(self, given: Any) -> tuple[Transaction, Block | None, int]:
        found = self.ledger.find(msgspec.convert(given, wire.Felt))
        if found is None:
            raise Refused(29, "Transaction hash not found")
        return found

    async def _status(self, transaction_hash: Any) -> wire.Status:
        one, block, index = self._find(transaction_hash)
        if index < 0:
            return said({"finality_status": "RECEIVED"}, wire.Status)
        made: dict[str, Any] = {
            "finality_status": self.ledger.finality(block),
            "execution_status": "SUCCEEDED" if one.reverted is None else "REVERTED",
        }
        if one.reverted is not None:
            made["failure_reason"] = one.reverted
        return said(made, wire.Status)

    async def _receipt(self, transaction_hash: Any) -> wire.Receipt:
        one, block, index = self._find(transaction_hash)
        if index < 0:
            raise Refused(29, "Transaction hash not found")
        return said(
            {
                "type": _type(one),
                "transaction_hash": one.hash,
                "actual_fee": {"amount": hex(one.fee), "unit": "FRI"},
                "finality_status": self.ledger.finality(block),
                "execution_status": "SUCCEEDED" if one.reverted is None else "REVERTED",
                "messages_sent": [],
                "events": [
                    {"from_address": e["from"], "keys": e["keys"], "data": e["data"]}
                    for e in one.events
                ],
                "execution_resources": one.resources,
                "block_number": len(self.ledger.blocks) if block is None else block.number,
                **({} if one.reverted is None else {"revert_reason": one.reverted}),
                **({} if one.deployed is None else {"contract_address": one.deployed}),
                **({} if one.message is None else {"message_hash": one.message}),
                **({} if block is None else {"block_hash": block.hash}),
            },
            wire.Receipt,
        )

    async def _transaction(self, transaction_hash: Any) -> wire.SentTransaction:
        one, _, _ = self._find(transaction_hash)
        if one.tx is None:
            raise Refused(29, "Transaction hash not found")
        return said({**one.tx.to_wire(), "transaction_hash": one.hash}, wire.SentTransaction)


def _type(one: Transaction) -> str:
    if one.tx is not None:
        return "INVOKE"
    return "L1_HANDLER" if one.message is not None else "DEPLOY"


def said(made: Any, kind: Any) -> Any:
    """Return an answer as the type that the specification has for it.

    Raises `AssertionError` when it is another: the node would say what it must not.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(made), kind)
    except msgspec.ValidationError as error:
        raise AssertionError(f"the node would answer what is forbidden: {error}") from error


def _matches(keys: Sequence[str], wanted: Sequence[set[int]]) -> bool:
    """Say whether an event has one of the wanted keys in each place; an empty set allows any."""
    if len(keys) < len(wanted):
        return False
    return all(
        not options or int(key, 16) in options for key, options in zip(keys, wanted, strict=False)
    )
