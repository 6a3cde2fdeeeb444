"""Whole blocks: header, transactions and receipts, checked against one another.

A block counts only if everything fits: as many receipts as transactions, all of this block and
in order, their gas adding up to the header's, their logs giving the header's bloom. What does not
fit is dropped and another endpoint asked; what is not there yet is `ChainBehind`, never an empty
list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import msgspec

from causeway.base.errors import CausewayError, ChainBehind
from causeway.chains.errors import BlockUnknown, RpcError, WrongAnswer
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.ranges import bits
from causeway.chains.evm.wire import WireLog, instant
from causeway.chains.protocol import Block
from causeway.chains.rpc import Call

#: Blocks asked for at the same time; one of 5,000 transactions is some 10 MB with its receipts.
_BLOCKS_AT_ONCE = 4
_RECEIPTS_AT_ONCE = 100
_BATCHES_AT_ONCE = 10
#: The root of an empty trie.
_NO_TRANSACTIONS = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


class Header(msgspec.Struct, rename="camel"):
    """A block's header, with all that is shown of it."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    gas_used: str
    gas_limit: str
    transactions: list[Transaction]
    transactions_root: str | None = None
    logs_bloom: str | None = None
    base_fee_per_gas: str | None = None
    size: str | None = None
    miner: str | None = None


class Transaction(msgspec.Struct, rename="camel"):
    """A transaction as a block gives it. `type` may be any number, known or not."""

    hash: str
    from_: str = msgspec.field(name="from")
    gas: str
    value: str
    input: str
    transaction_index: str | None = None
    to: str | None = None
    nonce: str = "0x0"
    type: str | int | None = None
    gas_price: str | None = None
    max_fee_per_gas: str | None = None
    max_priority_fee_per_gas: str | None = None
    #: OP stack: made by the chain itself.
    is_system_tx: bool | None = None
    mint: str | None = None

    @property
    def kind(self) -> int:
        """The transaction's type as a number (EIP-2718); 126 is a deposit of the OP stack."""
        return int(self.type or "0x0", 0) if not isinstance(self.type, int) else self.type


class Receipt(msgspec.Struct, rename="camel"):
    """A receipt, with what OP-stack chains and Mantle add."""

    transaction_hash: str
    block_hash: str
    block_number: str
    gas_used: str
    cumulative_gas_used: str
    logs: list[WireLog]
    transaction_index: str
    status: str | None = None
    #: The state after it: before Byzantium receipts had this instead of a status.
    root: str | None = None
    effective_gas_price: str | None = None
    contract_address: str | None = None
    logs_bloom: str | None = None
    #: Besu gives it; nobody else.
    revert_reason: str | None = None
    l1_fee: str | None = None
    operator_fee_scalar: str | None = None
    operator_fee_constant: str | None = None
    token_ratio: str | None = None
    da_footprint_gas_scalar: str | None = None


class Frame(msgspec.Struct, rename="camel"):
    """One call of a `callTracer` trace."""

    type: str
    from_: str = msgspec.field(name="from")
    to: str | None = None
    value: str | None = None
    gas: str = "0x0"
    gas_used: str = "0x0"
    input: str = "0x"
    output: str | None = None
    error: str | None = None
    revert_reason: str | None = None
    calls: list[Frame] = []


class _Traced(msgspec.Struct, rename="camel"):
    result: Frame | None = None
    error: str | None = None
    tx_hash: str | None = None


@dataclass(frozen=True)
class FullBlock:
    """A block with everything in it, in the order of the block."""

    header: Header
    receipts: tuple[Receipt, ...]
    #: One call tree a transaction where they were asked for; empty otherwise.
    traces: tuple[Frame | None, ...] = ()

    @property
    def transactions(self) -> list[Transaction]:
        """The transactions."""
        return self.header.transactions

    @cached_property
    def block(self) -> Block:
        """The block's place on the chain."""
        header = self.header
        return Block(
            int(header.number, 16),
            header.hash.lower(),
            header.parent_hash.lower(),
            instant(header.timestamp),
            None if header.logs_bloom is None else int(header.logs_bloom, 16),
        )

    @cached_property
    def timestamp(self) -> int:
        """The block's time, Unix seconds."""
        return int(self.header.timestamp, 16)


async def full_blocks(
    chain: EvmChain, numbers: Sequence[int], *, traces: bool = False
) -> list[FullBlock]:
    """Return these blocks with receipts and, if asked for, traces; a few at a time.

    Raises `ChainBehind` when one is not there, or no endpoint gave one that fits together.
    """
    slots = asyncio.Semaphore(_BLOCKS_AT_ONCE)

    async def one(number: int) -> FullBlock:
        async with slots:
            return await full_block(chain, number, traces=traces)

    async with _first_error() as group:
        tasks = [group.create_task(one(number)) for number in numbers]
    return [task.result() for task in tasks]


class _first_error:
    """A task group that raises the first error itself, not a group of it."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._group.__aexit__(*error)  # pyright: ignore[reportArgumentType]
        except BaseExceptionGroup as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = cast("BaseException", first.exceptions[0])  # pyright: ignore[reportUnknownMemberType]
            raise first from None


async def full_block(chain: EvmChain, number: int, *, traces: bool = False) -> FullBlock:
    """Return one block with everything in it. Raises as `full_blocks` does."""
    header, receipts = await _header_and_receipts(chain, number)
    if receipts is None:
        receipts = await _single_receipts(chain, header)
    frames = await trace_block(chain, header.hash, len(header.transactions)) if traces else ()
    return FullBlock(header, await _with_status(chain, header, receipts, frames), frames)


async def _header_and_receipts(
    chain: EvmChain, number: int
) -> tuple[Header, tuple[Receipt, ...] | None]:
    """Return a block and its receipts, None where the endpoint does not offer them by block.

    Both are asked of one endpoint at once, so that they prove or refute each other: were receipts
    compared with a header of somebody else, one liar would have honest endpoints' answers dropped.
    """

    def fit(found: list[object]) -> None:
        if found[0] is None or isinstance(found[0], BlockUnknown):
            raise ChainBehind(f"{chain.name}: block {number} is not there")
        if isinstance(found[0], CausewayError):
            raise found[0]
        header = cast("Header", found[0])
        try:
            check_header(header, number)
            if header.transactions and not isinstance(found[1], CausewayError):
                check_receipts(header, cast("list[Receipt] | None", found[1]))
        except ValueError as error:
            raise WrongAnswer("malformed", f"block {number} cannot be read: {error}") from error

    calls: list[Call] = [
        ("eth_getBlockByNumber", (hex(number), True)),
        ("eth_getBlockReceipts", (hex(number),)),
    ]
    found = await chain.pool.batch(calls, replies=[Header | None, list[Receipt] | None], accept=fit)
    header = cast("Header", found[0])
    if not header.transactions:
        return header, ()
    if isinstance(found[1], RpcError):
        return header, None
    if isinstance(found[1], CausewayError):
        raise found[1]
    return header, tuple(cast("list[Receipt]", found[1]))


async def _with_status(
    chain: EvmChain,
    header: Header,
    receipts: tuple[Receipt, ...],
    frames: tuple[Frame | None, ...],
) -> tuple[Receipt, ...]:
    """Return receipts that all have a status, by trace where they are older than statuses.

    Where nobody offers traces they are returned as they are: whether those failed is not known.
    """
    if all(one.status is not None for one in receipts):
        return receipts
    if not frames:
        try:
            frames = await trace_block(chain, header.hash, len(receipts))
        except RpcError:
            return receipts
    return tuple(
        receipt
        if receipt.status is not None or frame is None
        else msgspec.structs.replace(receipt, status="0x1" if frame.error is None else "0x0")
        for receipt, frame in zip(receipts, frames, strict=True)
    )


def check_header(header: Header, number: int) -> None:
    """Raise `WrongAnswer` unless this can be block `number` with all its transactions."""
    if int(header.number, 16) != number:
        raise WrongAnswer("another_block", f"asked for block {number}, given another")
    root = header.transactions_root
    if not header.transactions and (
        int(header.gas_used, 16) or (root is not None and root.lower() != _NO_TRANSACTIONS)
    ):
        raise WrongAnswer("transactions", f"block {number} came without its transactions")
    _is_hex(header.hash, 32)
    _is_hex(header.parent_hash, 32)
    for quantity in (header.timestamp, header.gas_limit):
        _is_word(quantity)
    for index, one in enumerate(header.transactions):
        if one.transaction_index is not None and int(one.transaction_index, 16) != index:
            raise WrongAnswer("transactions", f"block {number}: transaction {index} is another one")
        _is_hex(one.hash, 32)
        _is_hex(one.from_, 20)
        if one.to is not None:
            _is_hex(one.to, 20)
        _is_hex(one.input)
        for quantity in (one.value, one.gas, one.nonce, one.gas_price or "0x0"):
            _is_word(quantity)


def _is_hex(text: str, size: int | None = None) -> None:
    """Raise `ValueError` unless this is hex data, of so many bytes."""
    if text[:2] != "0x" or (size is not None and len(text) != 2 + 2 * size):
        raise ValueError(f"{text[:12]!r} is no data of {size or 'whole'} bytes")
    bytes.fromhex(text[2:])


def _is_word(text: str) -> None:
    """Raise `ValueError` unless this is a quantity of at most 256 bits."""
    if int(text, 0) >> 256:
        raise ValueError("a quantity of more than 256 bits")


async def _single_receipts(chain: EvmChain, header: Header) -> tuple[Receipt, ...]:
    """Read receipts by transaction, a hundred in a batch; ten at once where batches are refused."""
    hashes = [one.hash for one in header.transactions]
    size = min(_RECEIPTS_AT_ONCE, max(one.max_batch for one in chain.pool.endpoints))
    slots = asyncio.Semaphore(_BATCHES_AT_ONCE)

    async def some(start: int) -> list[Receipt]:
        calls: list[Call] = [
            ("eth_getTransactionReceipt", (one,)) for one in hashes[start : start + size]
        ]

        def fit(found: list[object]) -> None:
            for one in found:
                if one is None:
                    raise ChainBehind(f"a receipt of block {header.number} is not there")
                if isinstance(one, CausewayError):
                    raise one
            _check_each(header, cast("list[Receipt]", found), start)

        async with slots:
            found = await chain.pool.batch(calls, replies=[Receipt | None] * len(calls), accept=fit)
        return cast("list[Receipt]", found)

    async with _first_error() as group:
        tasks = [group.create_task(some(start)) for start in range(0, len(hashes), size)]
    receipts = [receipt for task in tasks for receipt in task.result()]
    check_receipts(header, receipts)
    return tuple(receipts)


def check_receipts(header: Header, receipts: Sequence[Receipt] | None) -> None:
    """Raise unless these are all the receipts of this block, in order and unchanged.

    `ChainBehind` when they are not there yet, `WrongAnswer` when they cannot be the block's.
    """
    number = int(header.number, 16)
    if receipts is None:
        raise ChainBehind(f"the receipts of block {number} are not there")
    if len(receipts) != len(header.transactions):
        raise WrongAnswer(
            "receipt_count",
            f"block {number} has {len(header.transactions)} transactions, "
            f"the answer {len(receipts)} receipts",
        )
    _check_each(header, receipts, 0)
    gas = 0
    for receipt in receipts:
        gas += int(receipt.gas_used, 16)
        if int(receipt.cumulative_gas_used, 16) != gas:
            raise WrongAnswer("receipt_gas", f"the gas of block {number} does not add up")
    if receipts and gas != int(header.gas_used, 16):
        raise WrongAnswer("receipt_gas", f"the receipts of block {number} use another gas")
    _check_logs(header, receipts)


def _check_logs(header: Header, receipts: Sequence[Receipt]) -> None:
    """Raise `WrongAnswer` unless the logs are those of the blooms and none is left out between.

    A bloom does not count: of two equal logs one could be missing, but then an index is, too.
    """
    number = int(header.number, 16)
    whole, before = 0, 0
    for receipt in receipts:
        bloom = 0
        for place, log in enumerate(receipt.logs):
            # Some chains count within the transaction.
            if int(log.log_index, 16) not in (before, place):
                raise WrongAnswer("receipt_logs", f"block {number}: a log is missing")
            before += 1
            bloom |= bits(log.address)
            for topic in log.topics:
                bloom |= bits(topic)
        if receipt.logs_bloom is not None and int(receipt.logs_bloom, 16) != bloom:
            raise WrongAnswer("receipt_logs", f"block {number}: the logs of a receipt changed")
        whole |= bloom
    if header.logs_bloom is not None and whole != int(header.logs_bloom, 16):
        raise WrongAnswer("receipt_logs", f"the logs of block {number} are not its bloom's")


def _check_each(header: Header, receipts: Sequence[Receipt], start: int) -> None:
    """Raise `WrongAnswer` unless receipt `i` is of the block's transaction `start + i`."""
    number = int(header.number, 16)
    for index, receipt in enumerate(receipts, start=start):
        if receipt.block_hash.lower() != header.hash.lower():
            raise WrongAnswer("another_fork", f"a receipt of block {number} is of another block")
        if (
            receipt.transaction_hash.lower() != header.transactions[index].hash.lower()
            or int(receipt.transaction_index, 16) != index
        ):
            raise WrongAnswer("receipt_order", f"receipt {index} of block {number} is another one")
        if receipt.status is None and receipt.root is None:
            raise WrongAnswer("receipt_status", f"block {number}: a receipt without a status")
        if receipt.status not in ("0x0", "0x1", None):
            raise WrongAnswer("receipt_status", f"block {number}: status {receipt.status[:10]!r}")


async def trace_block(chain: EvmChain, block_hash: str, count: int) -> tuple[Frame | None, ...]:
    """Return the call tree of each transaction of a block (`callTracer`); None where one failed.

    Raises `RpcError` where no endpoint offers traces, `ChainBehind` when they do not fit.
    """
    if not count:
        return ()

    def fit(found: list[object]) -> None:
        if isinstance(found[0], CausewayError):
            return
        if len(cast("list[object]", found[0] or [])) != count:
            raise WrongAnswer("trace_count", f"block {block_hash} has {count} transactions")

    (found,) = await chain.pool.batch(
        [("debug_traceBlockByHash", (block_hash, {"tracer": "callTracer"}))],
        replies=[list[_Traced] | None],
        accept=fit,
    )
    if isinstance(found, CausewayError):
        raise found
    return tuple([one.result for one in cast("list[_Traced]", found)])
