"""How Starknet nodes write blocks, events and receipts: typed replies (RPC 0.8 to 0.10).

Felts come without leading zeros; hashes and addresses are kept with all their digits. What later
versions added is optional, so that older nodes are read too.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from causeway.base.errors import ProviderUnavailable
from causeway.chains.protocol import Block, Log

_REMEMBERED = 1 << 16
_padded: dict[str, str] = {}


def full(text: str) -> str:
    """Return a hash or an address with all its digits; `ValueError` when it is no felt."""
    known = _padded.get(text)
    if known is None:
        if text[:2] != "0x" or not 2 < len(text) <= 66:
            raise ValueError("no felt")
        if len(_padded) >= _REMEMBERED:
            _padded.clear()
        known = _padded[text] = f"0x{int(text, 16):064x}"
    return known


class WirePrice(msgspec.Struct):
    """The price of a resource."""

    price_in_fri: str


class WireBlock(msgspec.Struct):
    """The header fields we use; without hash and parent it is the block that is being made."""

    block_number: int
    timestamp: int
    block_hash: str | None = None
    parent_hash: str | None = None
    status: str | None = None
    event_count: int | None = None
    l1_gas_price: WirePrice | None = None
    l2_gas_price: WirePrice | None = None
    l1_data_gas_price: WirePrice | None = None

    def block(self) -> Block:
        """Return it as a block."""
        if self.block_hash is None or self.parent_hash is None:
            raise ProviderUnavailable("a block in the making where an accepted one was asked for")
        return Block(
            self.block_number,
            full(self.block_hash),
            full(self.parent_hash),
            datetime.fromtimestamp(self.timestamp, UTC),
        )


class WireEvent(msgspec.Struct, gc=False):
    """An event as `starknet_getEvents` gives it."""

    from_address: str
    keys: tuple[str, ...]
    data: tuple[str, ...]
    transaction_hash: str
    block_hash: str | None = None
    block_number: int | None = None
    transaction_index: int | None = None
    event_index: int | None = None


class WirePage(msgspec.Struct):
    """A page of events; with a token there is another."""

    events: list[WireEvent]
    continuation_token: str | None = None


class WireLog(msgspec.Struct, gc=False):
    """An event in the form in which chains give logs: its keys are the topics."""

    address: str
    topics: tuple[str, ...]
    data: tuple[str, ...]
    number: int
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    #: Nodes do not tell the time with an event.
    block_timestamp: str | None = None

    @property
    def block_number(self) -> str:
        """The block's number, as hex."""
        return hex(self.number)

    def log(self) -> Log:
        """Return it as a log: each felt of its data as 32 bytes."""
        return Log(
            self.address,
            self.topics,
            b"".join([int(felt, 16).to_bytes(32, "big") for felt in self.data]),
            self.number,
            self.block_hash,
            self.transaction_hash,
            int(self.transaction_index, 16),
            int(self.log_index, 16),
        )

    def block(self) -> Block:
        """Raise `ProviderUnavailable`: an event does not tell its block's time."""
        raise ProviderUnavailable("the event does not tell its block's time")


class WireFee(msgspec.Struct):
    """What was paid."""

    amount: str
    unit: str = "FRI"


class WireTold(msgspec.Struct):
    """An event in a receipt."""

    from_address: str
    keys: tuple[str, ...]
    data: tuple[str, ...]


class WireReceipt(msgspec.Struct):
    """What became of a transaction."""

    transaction_hash: str
    execution_status: str
    finality_status: str
    actual_fee: WireFee
    events: list[WireTold] = []
    block_hash: str | None = None
    block_number: int | None = None
    revert_reason: str | None = None
    execution_resources: dict[str, object] = {}


class WireEstimate(msgspec.Struct):
    """What a transaction would use and cost; prices in fri, older nodes say only some of it."""

    overall_fee: str
    l2_gas_consumed: str = "0x0"
    l2_gas_price: str = "0x0"
    l1_data_gas_consumed: str = "0x0"
    l1_data_gas_price: str = "0x0"
    l1_gas_consumed: str = "0x0"
    l1_gas_price: str = "0x0"


class WireStatus(msgspec.Struct):
    """How far a transaction is."""

    finality_status: str
    execution_status: str | None = None
    failure_reason: str | None = None


class WireSent(msgspec.Struct):
    """The hash of a transaction that was taken."""

    transaction_hash: str
