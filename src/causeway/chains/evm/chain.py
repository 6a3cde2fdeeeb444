"""An EVM chain read and written through its provider pool, without web3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    ProviderUnavailable,
    TransactionReverted,
)
from causeway.chains.errors import BlockUnknown, WrongAnswer
from causeway.chains.evm.abi import EventAbi
from causeway.chains.evm.agreeing import AgreedHeads, coherent, headers_in
from causeway.chains.evm.heads import HeadFeed
from causeway.chains.evm.ranges import LogRange, read_block, read_range
from causeway.chains.evm.wire import WireBlock, WireFeeHistory, WireLog, WireReceipt
from causeway.chains.evm.words import WordDecoder
from causeway.chains.pool import Acceptance, ProviderPool
from causeway.chains.protocol import Block, Finality, Log, LogFilter
from causeway.chains.rpc import Call
from causeway.chains.settling import FeeHistory, Receipt

T = TypeVar("T")

_FIRST_BLOCK: Call = ("eth_getBlockByNumber", ("0x0", False))
#: How long a second endpoint is waited for after the first has answered, seconds.
_GRACE_S = 0.25

#: Where to read state: a block number, a block hash, or a tag (`latest`, `pending`, ...).
At = int | str


class EvmChain:
    """A chain of the EVM family. Implements `causeway.chains.protocol.Chain`.

    Every method raises a `TransientError` when no provider could answer.
    """

    #: What follows a node that tells of new heads.
    feed_type = HeadFeed

    def __init__(self, name: str, chain_id: int, pool: ProviderPool) -> None:
        self._name = name
        self._chain_id = chain_id
        self.pool = pool
        self._heads = AgreedHeads(pool)
        #: Nodes that tell of new heads; empty: the chain is looked at in intervals only.
        self.feeds: tuple[HeadFeed, ...] = ()
        pool.require_chain_id(chain_id, first_block=_FIRST_BLOCK)

    @property
    def name(self) -> str:
        """The name it is configured under."""
        return self._name

    @property
    def chain_id(self) -> int:
        """The chain id it must have (EIP-155)."""
        return self._chain_id

    def __repr__(self) -> str:
        return f"EvmChain({self._name!r}, {self._chain_id})"

    async def verify(self) -> None:
        """Check that the providers serve this chain; `ConfigurationError` when they do not."""
        await self.pool.verify()

    async def close(self) -> None:
        """Close the pool's connections."""
        await self.pool.close()

    def decoder(self, event: EventAbi) -> WordDecoder:
        """Return what decodes the logs of an event."""
        return WordDecoder(event)

    def address(self, text: str) -> str:
        """Return an address with its checksum (EIP-55)."""
        return str(to_checksum_address(text))

    # Blocks and logs

    async def head(self) -> Block:
        """Return the newest block."""
        block = await self.block("latest")
        if block is None:
            raise ProviderUnavailable(f"{self._name}: the provider has no latest block")
        return block

    async def block(self, at: int | str | Finality) -> Block | None:
        """Return the block with that number, hash or finality tag; None when there is none."""
        return (await self.look(at))[0]

    async def look(self, *places: At) -> list[Block | None]:
        """Return the blocks at these numbers, hashes or tags, all seen by one endpoint at once.

        None where there is no such block, or the tag is not offered.
        """
        return [None if wire is None else wire.block() for wire in await self._headers(places)]

    async def blocks(self, first: int, last: int) -> list[Block]:
        """Return blocks `first` to `last`, both included; `ChainBehind` if any is missing.

        They come from one endpoint, but a reorg may happen in between: check the parent hashes.
        """
        numbers = range(first, last + 1)

        def all_there(found: list[object]) -> None:
            for number, one in zip(numbers, found, strict=True):
                if one is None or isinstance(one, BlockUnknown):
                    raise ChainBehind(f"{self._name}: block {number} is not there")

        wires = await self._headers(numbers, all_there)
        return [wire.block() for wire in wires if wire is not None]

    async def logs(
        self, wanted: LogFilter, first: int, last: int, *, last_hash: str | None = None
    ) -> list[Log]:
        """Return the logs of blocks `first` to `last` in chain order, all from one endpoint.

        With `last_hash` the endpoint must have block `last` under that hash, otherwise another is
        asked; without it, it must have a block `last`. Raises `ChainBehind` when none has, and
        `RangeTooLarge` when the provider refuses the range or the size of the answer.
        """
        query = {"fromBlock": hex(first), "toBlock": hex(last), **_filter(wanted)}
        calls: list[Call] = [
            ("eth_getLogs", (query,)),
            ("eth_getBlockByNumber", (hex(last), False)),
        ]

        def pinned(found: list[object]) -> None:
            block = found[1]
            if not isinstance(block, WireBlock):
                raise ChainBehind(f"{self._name}: block {last} is not there")
            if last_hash is not None and (block.hash or "").lower() != last_hash:
                raise ChainBehind(f"{self._name}: block {last} is another one at this provider")

        found = await self.pool.batch(
            calls,
            replies=[list[WireLog], WireBlock | None],
            accept=pinned,
            log_span=last - first + 1,
        )
        if isinstance(found[0], CausewayError):
            raise found[0]
        return _in_order(cast("list[WireLog]", found[0]))

    async def logs_of(self, wanted: LogFilter, block_hashes: Sequence[str]) -> list[Log]:
        """Return the logs of the blocks with these hashes, in that order; all from one endpoint.

        Raises `ChainBehind` when one of them is not known.
        """
        calls: list[Call] = [
            ("eth_getLogs", ({"blockHash": block_hash, **_filter(wanted)},))
            for block_hash in block_hashes
        ]

        def all_there(found: list[object]) -> None:
            if None in found:  # some nodes answer null for a block they do not have
                raise ChainBehind(f"{self._name}: block {block_hashes[found.index(None)]}")

        found = await self._all(calls, list[WireLog], accept=all_there)
        return [log for wires in found if wires for log in _in_order(wires)]

    async def read_range(
        self,
        wanted: Sequence[LogFilter],
        first: int,
        last: int,
        *,
        last_hash: str | None = None,
        every_header: bool = True,
    ) -> LogRange:
        """Return the logs of a range with its headers, proved complete; see `ranges.read_range`."""
        return self._note(
            await read_range(
                self.pool, wanted, first, last, last_hash=last_hash, every_header=every_header
            )
        )

    async def read_block(self, wanted: Sequence[LogFilter], block: Block) -> LogRange:
        """Return the logs of a block whose header is known; see `ranges.read_block`."""
        return self._note(await read_block(self.pool, wanted, block))

    def _note(self, found: LogRange) -> LogRange:
        if found.proved:
            self._heads.proved = found.headers[max(found.headers)]
        return found

    # State

    async def call(
        self, to: str | None, data: bytes, *, sender: str | None = None, at: At = "latest"
    ) -> bytes:
        """Run a call without a transaction; return its output.

        Without `to`, `data` is creation code and the output what it would leave as its code.
        Raises `TransactionReverted` with the revert data.
        """
        return _bytes(
            await self.pool.call("eth_call", (_transaction(to, data, sender), _at(at)), reply=str)
        )

    async def call_many(
        self, calls: Sequence[tuple[str, bytes]], at: At = "latest"
    ) -> list[bytes | TransactionReverted]:
        """Run several calls in one batch; a revert takes the place of the output."""
        found = await self.pool.batch(
            [("eth_call", (_transaction(to, data, None), _at(at))) for to, data in calls],
            replies=[str] * len(calls),
        )
        outputs: list[bytes | TransactionReverted] = []
        for one in found:
            if isinstance(one, TransactionReverted):
                outputs.append(one)
            elif isinstance(one, Exception):
                raise one
            else:
                outputs.append(_bytes(cast("str", one)))
        return outputs

    async def code(self, address: str, at: At = "latest") -> bytes:
        """Return the code at an address; empty where there is no contract."""
        return _bytes(await self.pool.call("eth_getCode", (address, _at(at)), reply=str))

    async def balance(self, address: str, at: At = "latest") -> int:
        """Return the balance in wei."""
        return await self._quantity("eth_getBalance", address, _at(at))

    async def nonce(self, address: str, at: At = "latest") -> int:
        """Return the number of transactions mined from an address (`pending`: and waiting).

        About the tip the highest that two endpoints know: one may not have heard of the last.
        """
        if isinstance(at, int) or at.startswith("0x"):
            return await self._quantity("eth_getTransactionCount", address, _at(at))
        call: Call = ("eth_getTransactionCount", (address, _at(at)))
        answers = await self.pool.everybody([call], [str], at_most=2, grace_s=_GRACE_S)
        counts = [int(one, 16) for _, (one,) in answers if isinstance(one, str)]
        if not counts:
            raise next(one for _, (one,) in answers if isinstance(one, CausewayError))
        return max(counts)

    async def nonce_without(self, address: str, at: int, tx_hashes: Sequence[str]) -> int | None:
        """Return the number of transactions mined from an address as of a block.

        None when the endpoint that says so has a receipt of one of these: one batch, so that count
        and receipts come from the same one.
        """
        calls: list[Call] = [("eth_getTransactionCount", (address, hex(at)))]
        calls += [("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in tx_hashes]
        answers = await self.pool.batch(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        count, *receipts = answers
        return None if any(receipts) else int(str(count), 16)

    # Fees

    async def fee_history(self, blocks: int, percentiles: Sequence[float]) -> FeeHistory:
        """Return base fees and tips of the last `blocks` blocks (EIP-1559)."""
        wire = await self.pool.call(
            "eth_feeHistory", (hex(blocks), "latest", list(percentiles)), reply=WireFeeHistory
        )
        return FeeHistory(
            tuple(int(fee, 16) for fee in wire.base_fee_per_gas),
            tuple(tuple(int(tip, 16) for tip in tips) for tips in wire.reward or ()),
        )

    async def max_priority_fee(self) -> int:
        """Return the tip in wei per gas that the provider suggests."""
        return await self._quantity("eth_maxPriorityFeePerGas")

    async def gas_limit_of_block(self, at: At = "latest") -> int:
        """Return how much gas a block can hold."""
        wire = (await self._headers([at]))[0]
        if wire is None:
            raise ChainBehind(f"{self._name}: block {at} is not there")
        return int(wire.gas_limit, 16)

    async def estimate_gas(self, sender: str, to: str, data: bytes, value: int = 0) -> int:
        """Return the gas a transaction would need now.

        Raises `TransactionReverted` with the revert data when it would fail.
        """
        transaction = _transaction(to, data, sender)
        if value:
            transaction["value"] = hex(value)
        return await self._quantity("eth_estimateGas", transaction)

    # Transactions

    async def send_raw(self, raw: bytes) -> str:
        """Send a signed transaction to all providers; return its hash once one has taken it.

        Raises the `SendRejected` family, or a `TransientError` after which only the same bytes
        may be sent again: a provider may have them.
        """
        await self.pool.send_raw("0x" + raw.hex())
        return "0x" + keccak(raw).hex()

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """Return the receipt, None while the transaction is not mined as far as is known."""
        wire = await self._one("eth_getTransactionReceipt", tx_hash, WireReceipt)
        if wire is None:
            return None
        return Receipt(
            wire.transaction_hash.lower(),
            int(wire.block_number, 16),
            wire.block_hash.lower(),
            int(wire.status, 16) if wire.status is not None else 1,
            int(wire.gas_used, 16),
            int(wire.effective_gas_price or "0x0", 16),
            tuple(_in_order(wire.logs)),
            int(wire.l1_fee, 16) if wire.l1_fee is not None else None,
        )

    async def transaction(self, tx_hash: str) -> dict[str, object] | None:
        """Return a transaction as the node writes it, None when the node does not know it."""
        return await self._one("eth_getTransactionByHash", tx_hash, dict[str, object])

    async def _headers(
        self, places: Sequence[At], accept: Acceptance | None = None
    ) -> list[WireBlock | None]:
        calls: list[Call] = []
        for at in places:
            by_hash = isinstance(at, str) and at.startswith("0x")
            method = "eth_getBlockByHash" if by_hash else "eth_getBlockByNumber"
            calls.append((method, (hex(at) if isinstance(at, int) else at, False)))
        if "latest" in places and accept is None and any(isinstance(at, int) for at in places):
            latest = places.index("latest")

            def fits(found: list[object]) -> None:
                if not coherent(calls, found, latest):
                    raise WrongAnswer(
                        "incoherent", f"{self._name}: a block below the head is not there"
                    )

            accept = fits
        if "latest" in places and self._heads.due():
            found = await self._heads.agreed(calls, places.index("latest"))
        else:
            found = headers_in(
                calls,
                await self.pool.batch(
                    calls, replies=[WireBlock | None] * len(calls), accept=accept
                ),
            )
        final = found[places.index("finalized")] if "finalized" in places else None
        if final is not None and final.number is not None:
            kept = self.pool.final_answers
            kept.final = max(kept.final, int(final.number, 16))
        return found

    async def _one(self, method: str, key: str, kind: type[T]) -> T | None:
        """Return the thing with that hash; None only when no endpoint that answers knows it."""

        def known(found: list[object]) -> None:
            if found[0] is None:
                raise ChainBehind(f"{self._name}: {key} is not known")

        try:
            return (await self._all([(method, (key,))], kind, accept=known))[0]
        except ChainBehind:
            return None

    async def _all(
        self, calls: Sequence[Call], kind: type[T], accept: Acceptance | None = None
    ) -> list[T | None]:
        """Return all results, from one endpoint, null as None; raise the first error."""
        found = await self.pool.batch(calls, replies=[kind | None] * len(calls), accept=accept)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return cast("list[T | None]", found)

    async def _quantity(self, method: str, *params: object) -> int:
        return int(await self.pool.call(method, params, reply=str), 16)


def _filter(wanted: LogFilter) -> dict[str, object]:
    query: dict[str, object] = {"address": list(wanted.addresses)} if wanted.addresses else {}
    if wanted.topics:
        query["topics"] = [list(wanted.topics)]
    return query


def _in_order(wires: list[WireLog]) -> list[Log]:
    logs = [wire.log() for wire in wires if not wire.removed]
    logs.sort(key=lambda log: (log.block_number, log.log_index))
    return logs


def _transaction(to: str | None, data: bytes, sender: str | None) -> dict[str, object]:
    transaction: dict[str, object] = {"data": "0x" + data.hex()}
    if to is not None:
        transaction["to"] = to
    if sender is not None:
        transaction["from"] = sender
    return transaction


def _at(at: At) -> object:
    if isinstance(at, int):
        return hex(at)
    # EIP-1898: state after the block with that hash.
    return {"blockHash": at} if at.startswith("0x") else at


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
