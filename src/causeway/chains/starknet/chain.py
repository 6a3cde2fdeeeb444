"""Starknet read and written through its provider pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    ConfigurationError,
    ProviderUnavailable,
)
from causeway.chains.errors import NonceTooHigh, NonceTooLow, RpcError, WrongAnswer
from causeway.chains.evm.hashing import keccak
from causeway.chains.pool import Acceptance, ProviderPool
from causeway.chains.protocol import Block, Finality, Log, LogFilter
from causeway.chains.rpc import Call
from causeway.chains.settling import FeeHistory, Receipt
from causeway.chains.starknet import felts
from causeway.chains.starknet.abi import EventAbi, to_bytes, to_felts
from causeway.chains.starknet.agreeing import AgreedHeads, coherent, headers_in
from causeway.chains.starknet.decoder import EventDecoder
from causeway.chains.starknet.errors import (
    CONTRACT_NOT_FOUND,
    INVALID_NONCE,
    TRANSACTION_NOT_FOUND,
    reason,
)
from causeway.chains.starknet.heads import HeadFeed
from causeway.chains.starknet.ranges import LogRange, header_call, read_block, read_range
from causeway.chains.starknet.transactions import Bounds, ContractCall, Invoke, execution
from causeway.chains.starknet.wire import (
    WireBlock,
    WireEstimate,
    WireLog,
    WireReceipt,
    WireSent,
    WireStatus,
    full,
)

T = TypeVar("T")

#: The token that fees are paid in, at the same address on every public network.
STRK = "0x04718f5a0fc34cc1af16a1cdee98ffb20c31f5cd61d6ab07201858f4287c938d"
#: Most L2 gas of one transaction, and what is set aside for an account's validation.
_MOST_L2_GAS = 1_000_000_000
_VALIDATION_L2_GAS = 1_000_000
#: Where to read state: a block number, a block hash, or a tag (`latest`, `pre_confirmed`, ...).
At = int | str


@dataclass(frozen=True, slots=True)
class Prices:
    """What a unit of each resource costs in a block, in fri."""

    l1_gas: int
    l1_data_gas: int
    l2_gas: int


@dataclass(frozen=True, slots=True)
class Shares:
    """What a transaction uses of each resource, and their prices in fri."""

    l2_gas: int
    l2_gas_price: int
    l1_data_gas: int
    l1_data_gas_price: int
    l1_gas: int
    l1_gas_price: int

    @property
    def total(self) -> int:
        """All of it in units of L2 gas, rounded up."""
        rest = self.l1_data_gas * self.l1_data_gas_price + self.l1_gas * self.l1_gas_price
        return self.l2_gas - -rest // self.l2_gas_price

    def bounds(self, gas: int, price: int) -> Bounds:
        """Return bounds that together cost no more than so much gas at this price, in fri.

        Each resource has the same share of it as in the estimate, and each price the same room.
        """

        def part(amount: int, up: int, of: int) -> int:
            return amount * up // of

        l1_data = part(self.l1_data_gas, gas, self.total)
        l1 = part(self.l1_gas, gas, self.total)
        data_price = part(self.l1_data_gas_price, price, self.l2_gas_price)
        l1_price = part(self.l1_gas_price, price, self.l2_gas_price)
        left = gas - -(-(l1_data * data_price + l1 * l1_price) // price)
        return Bounds(left, price, l1_data, data_price, l1, l1_price)


def number_of(network: int) -> int:
    """Return the number of 63 bits under which a network's rows are kept.

    Starknet's chain ids are texts of up to 31 characters, other chains' ids numbers that fit into
    a `bigint`. This one is made of the text's hash, with a bit that no other chain's id has set.
    """
    digest = keccak(network.to_bytes(32, "big"))
    return 1 << 62 | int.from_bytes(digest[:8], "big") >> 2


def named(network: str) -> Callable[[str, int, ProviderPool], StarknetChain]:
    """Return what opens the chain of a network, for `ChainConfig.opens`.

    The id in the configuration must be the network's (`number_of`); `ConfigurationError` otherwise.
    """

    def opens(name: str, chain_id: int, pool: ProviderPool) -> StarknetChain:
        made = StarknetChain(name, network, pool)
        if made.chain_id != chain_id:
            raise ConfigurationError(
                f"chain {name!r}: the id of {network} is {made.chain_id}, not {chain_id}"
            )
        return made

    return opens


class StarknetChain:
    """A Starknet network. Implements `causeway.chains.protocol.Chain`.

    `network`: the short string that is its chain id, like `SN_MAIN`, or that string's number.
    Hashes and addresses have all their 64 digits. Every method raises a `TransientError` when no
    provider could answer.
    """

    #: What follows a node that tells of new heads.
    feed_type = HeadFeed

    def __init__(self, name: str, network: int | str, pool: ProviderPool) -> None:
        self._name = name
        #: The chain id as the network has it, which transactions are signed for.
        self.network = (
            felts.from_short_string(network) if isinstance(network, str) else felts.felt(network)
        )
        self._chain_id = number_of(self.network)
        self.pool = pool
        self._heads = AgreedHeads(pool)
        #: Nodes that tell of new heads; empty: the chain is looked at in intervals only.
        self.feeds: tuple[HeadFeed, ...] = ()
        pool.require_chain_id(self.network, "starknet_chainId", first_block=header_call(0))

    @property
    def name(self) -> str:
        """The name it is configured under."""
        return self._name

    @property
    def chain_id(self) -> int:
        """The number its rows go by: see `number_of`."""
        return self._chain_id

    def __repr__(self) -> str:
        return f"StarknetChain({self._name!r}, {felts.short_string(self.network)})"

    async def verify(self) -> None:
        """Check that the providers serve this chain; `ConfigurationError` when they do not."""
        await self.pool.verify()

    async def close(self) -> None:
        """Close the pool's connections."""
        await self.pool.close()

    def address(self, text: str) -> str:
        """Return an address with all its 64 digits."""
        return felts.address(text)

    def decoder(self, event: EventAbi) -> EventDecoder:
        """Return what decodes the logs of an event."""
        return EventDecoder(event)

    # Blocks and events

    async def head(self) -> Block:
        """Return the newest accepted block."""
        block = await self.block("latest")
        if block is None:
            raise ProviderUnavailable(f"{self._name}: the provider has no latest block")
        return block

    async def block(self, at: int | str | Finality) -> Block | None:
        """Return the block with that number, hash or finality tag; None when there is none."""
        return (await self.look(at))[0]

    async def look(self, *places: At) -> list[Block | None]:
        """Return the blocks at these numbers, hashes or tags, all seen by one endpoint at once.

        `finalized` and `safe` are the newest block accepted on layer 1. None where there is no such
        block, or the tag is not offered.
        """
        return [None if wire is None else wire.block() for wire in await self._headers(places)]

    async def blocks(self, first: int, last: int) -> list[Block]:
        """Return blocks `first` to `last`, both included; `ChainBehind` if any is missing.

        They come from one endpoint, but a reorg may happen in between: check the parent hashes.
        """
        found = await self.look(*range(first, last + 1))
        if None in found:
            raise ChainBehind(f"{self._name}: block {first + found.index(None)} is not there")
        return [one for one in found if one is not None]

    async def logs(
        self, wanted: LogFilter, first: int, last: int, *, last_hash: str | None = None
    ) -> list[Log]:
        """Return the events of blocks `first` to `last` in chain order, all from one endpoint.

        Raises `ChainBehind` when none has block `last` (under `last_hash`), and `RangeTooLarge`
        when the provider refuses the range.
        """
        found = await self.read_range(
            [wanted], first, last, last_hash=last_hash, every_header=False
        )
        return [wire.log() for wires in found.logs.values() for wire in wires]

    async def logs_of(self, wanted: LogFilter, block_hashes: Sequence[str]) -> list[Log]:
        """Return the events of the blocks with these hashes, in that order.

        Raises `ChainBehind` when one of them is not known.
        """
        logs: list[Log] = []
        for block, block_hash in zip(await self.look(*block_hashes), block_hashes, strict=True):
            if block is None:
                raise ChainBehind(f"{self._name}: block {block_hash} is not there")
            found = await self.read_block([wanted], block)
            logs += [wire.log() for wires in found.logs.values() for wire in wires]
        return logs

    async def read_range(
        self,
        wanted: Sequence[LogFilter],
        first: int,
        last: int,
        *,
        last_hash: str | None = None,
        every_header: bool = True,
    ) -> LogRange:
        """Return the events of a range with its headers, checked; see `ranges.read_range`."""
        return await read_range(
            self.pool, wanted, first, last, last_hash=last_hash, every_header=every_header
        )

    async def read_block(self, wanted: Sequence[LogFilter], block: Block) -> LogRange:
        """Return the events of a block whose header is known; see `ranges.read_block`."""
        return await read_block(self.pool, wanted, block)

    # State

    async def call(
        self, to: str, data: bytes, *, sender: str | None = None, at: At = "latest"
    ) -> bytes:
        """Run a view; return its felts, 32 bytes each.

        Nobody is the caller, `sender` is not looked at. `data`: the selector and the inputs as
        `Abi.encode` makes them. Raises `TransactionReverted` in the contract's words, and
        `RpcError` with code 20 where there is no contract, 21 where it has no such function.
        """
        function, *calldata = to_felts(data)
        request = {
            "contract_address": felts.wire(to),
            "entry_point_selector": hex(function),
            "calldata": [hex(one) for one in calldata],
        }
        found = await self.pool.call("starknet_call", (request, _at(at)), reply=list[str])
        return to_bytes(felts.felt(one) for one in found)

    async def code(self, address: str, at: At = "latest") -> bytes:
        """Return the hash of the class at an address; empty where there is no contract."""
        call = ("starknet_getClassHashAt", (_at(at), felts.wire(address)))
        try:
            return bytes.fromhex(full(await self.pool.call(*call, reply=str))[2:])
        except RpcError as error:
            if error.code != CONTRACT_NOT_FOUND:
                raise
            return b""

    async def storage(self, address: str, key: int, at: At = "latest") -> int:
        """Return a value of a contract's storage."""
        call = ("starknet_getStorageAt", (felts.wire(address), hex(key), _at(at)))
        return felts.felt(await self.pool.call(*call, reply=str))

    async def balance(self, address: str, at: At = "latest") -> int:
        """Return what an account can pay fees with: its STRK, in fri."""
        data = to_bytes([felts.selector("balance_of"), felts.felt(address)])
        try:
            low, high = to_felts(await self.call(STRK, data, at=at))
        except RpcError as error:
            if error.code != CONTRACT_NOT_FOUND:
                raise
            return 0
        return high << 128 | low

    async def nonce(self, address: str, at: At = "latest") -> int:
        """Return an account's next nonce as of a block (`pending`: of the one being made)."""
        call = ("starknet_getNonce", (_at(at), felts.wire(address)))
        return felts.felt(await self.pool.call(*call, reply=str))

    # Transactions

    async def prices(self) -> Prices:
        """Return what resources cost in the newest block, in fri."""
        wire = (await self._headers(["latest"]))[0]
        if wire is None or wire.l2_gas_price is None:
            raise ProviderUnavailable(f"{self._name}: the newest block tells no prices")
        return Prices(
            *(
                0 if price is None else int(price.price_in_fri, 16)
                for price in (wire.l1_gas_price, wire.l1_data_gas_price, wire.l2_gas_price)
            )
        )

    async def fee_history(self, blocks: int, percentiles: Sequence[float]) -> FeeHistory:
        """Return the price of L2 gas in the newest block, as that of the next one too.

        The protocol moves it slowly; what others tipped is told by no method, so there is none.
        """
        price = (await self.prices()).l2_gas
        return FeeHistory((price, price), ())

    async def max_priority_fee(self) -> int:
        """Return 0: nodes suggest no tip."""
        return 0

    async def gas_limit_of_block(self, at: At = "latest") -> int:
        """Return how much L2 gas one transaction may use at most, by the protocol's rules."""
        return _MOST_L2_GAS

    async def estimate_gas(self, sender: str, to: str, data: bytes, value: int = 0) -> int:
        """Return what an invoke transaction of one call would cost now, in units of L2 gas.

        What it uses of other resources is counted in it by their prices, and so is its validation.
        Raises `TransactionReverted` in the contract's words when it would fail.
        """
        return (await self.shares(sender, to, data)).total

    async def shares(self, sender: str, to: str, data: bytes) -> Shares:
        """Return how the cost of an invoke transaction is divided among resources now."""
        tx = Invoke(
            felts.address(sender),
            execution([ContractCall.from_data(to, data)] if data else []),
            await self.nonce(sender, "pre_confirmed"),
            Bounds(0, 0),
        )
        told = await self.estimate_fee(tx, query=True)
        l2_price = int(told.l2_gas_price, 16)
        if not l2_price:
            raise ProviderUnavailable(f"{self._name}: the provider tells no price of L2 gas")
        return Shares(
            int(told.l2_gas_consumed, 16) + _VALIDATION_L2_GAS,
            l2_price,
            int(told.l1_data_gas_consumed, 16),
            int(told.l1_data_gas_price, 16),
            int(told.l1_gas_consumed, 16),
            int(told.l1_gas_price, 16),
        )

    async def estimate_fee(self, tx: Invoke, *, query: bool = True) -> WireEstimate:
        """Return what a transaction would use and cost now.

        `query`: its signature is over the version that is only for estimates. Without a signature
        the account is not asked whether it agrees. Raises `TransactionReverted` with the contract's
        reason when it would fail.
        """
        flags = [] if tx.signature else ["SKIP_VALIDATE"]
        params = ([tx.to_wire(query=query)], flags, "pre_confirmed")
        found = await self.pool.call("starknet_estimateFee", params, reply=list[WireEstimate])
        return found[0]

    async def send_raw(self, raw: bytes) -> str:
        """Send a signed transaction to all providers; return its hash once one has taken it.

        Raises the `SendRejected` family, or a `TransientError` after which only the same bytes
        may be sent again: a provider may have them.
        """
        tx = Invoke.from_bytes(raw)
        try:
            sent = await self.pool.send(
                ("starknet_addInvokeTransaction", (tx.to_wire(),)), WireSent
            )
        except NonceTooLow as error:
            if error.code != INVALID_NONCE or tx.nonce < await self.nonce(tx.sender):
                raise
            raise NonceTooHigh(error.message, code=error.code) from None
        return full(sent.transaction_hash)

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """Return the receipt of an accepted transaction; None while it is not in a block.

        What is only pre-confirmed may still vanish and has no receipt here.
        """
        wire = await self._one("starknet_getTransactionReceipt", tx_hash, WireReceipt)
        if wire is None or wire.block_hash is None or wire.block_number is None:
            return None
        done = wire.execution_status == "SUCCEEDED"
        fee, gas = int(wire.actual_fee.amount, 16), _gas_used(wire)
        number, block_hash = wire.block_number, full(wire.block_hash)
        return Receipt(
            full(wire.transaction_hash),
            number,
            block_hash,
            int(done),
            gas,
            fee // gas,
            tuple(
                WireLog(
                    full(one.from_address),
                    one.keys,
                    one.data,
                    number,
                    block_hash,
                    full(wire.transaction_hash),
                    "0x0",
                    hex(place),
                ).log()
                for place, one in enumerate(wire.events)
            ),
            fee % gas,
            None if done else reason(wire.revert_reason) or "reverted without a reason",
        )

    async def nonce_without(self, address: str, at: int, tx_hashes: Sequence[str]) -> int | None:
        """Return an account's next nonce as of a block.

        None when the endpoint that says so has a receipt of one of these: both are asked in one
        batch.
        """
        calls: list[Call] = [("starknet_getNonce", (_at(at), felts.wire(address)))]
        calls += [("starknet_getTransactionReceipt", (felts.wire(one),)) for one in tx_hashes]
        count, *receipts = await self.pool.batch(
            calls, replies=[str, *[WireReceipt] * len(tx_hashes)]
        )
        if isinstance(count, CausewayError):
            raise count
        for one in receipts:
            if isinstance(one, WireReceipt):
                return None
            if not isinstance(one, RpcError) or one.code != TRANSACTION_NOT_FOUND:
                raise cast("CausewayError", one)
        return felts.felt(cast("str", count))

    async def status(self, tx_hash: str) -> WireStatus | None:
        """Return how far a transaction is; None when the node does not know it."""
        return await self._one("starknet_getTransactionStatus", tx_hash, WireStatus)

    async def transaction(self, tx_hash: str) -> dict[str, object] | None:
        """Return a transaction as the node writes it, None when the node does not know it."""
        return await self._one("starknet_getTransactionByHash", tx_hash, dict[str, object])

    async def _headers(self, places: Sequence[At]) -> list[WireBlock | None]:
        calls = [header_call(place) for place in places]
        accept: Acceptance | None = None
        if "latest" in places and any(isinstance(at, int) for at in places):
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
            said = await self.pool.batch(calls, replies=[WireBlock] * len(calls), accept=accept)
            found = headers_in(calls, said)
        final = found[places.index("finalized")] if "finalized" in places else None
        if final is not None:
            kept = self.pool.final_answers
            kept.final = max(kept.final, final.block_number)
        return found

    async def _one(self, method: str, key: str, kind: type[T]) -> T | None:
        """Return the thing with that hash; None only when no endpoint that answers knows it."""

        def known(found: list[object]) -> None:
            if isinstance(found[0], RpcError) and found[0].code == TRANSACTION_NOT_FOUND:
                raise ChainBehind(f"{self._name}: {key} is not known")

        calls: list[Call] = [(method, (felts.wire(key),))]
        try:
            (found,) = await self.pool.batch(calls, replies=[kind], accept=known)
        except ChainBehind:
            return None
        if isinstance(found, CausewayError):
            raise found
        return cast("T", found)


def _at(at: At) -> object:
    if isinstance(at, int):
        return {"block_number": at}
    if at.startswith("0x"):
        return {"block_hash": felts.wire(at)}
    return _TAGS.get(at, at)


#: Tags of Ethereum, and what comes closest to them.
_TAGS = {"pending": "pre_confirmed", "finalized": "l1_accepted", "safe": "l1_accepted"}


def _gas_used(wire: WireReceipt) -> int:
    """Return the L2 gas that was used; 1 where an older node does not tell it."""
    told = wire.execution_resources.get("l2_gas")
    return told if isinstance(told, int) and told > 0 else 1
