"""How EVM nodes write blocks, logs and receipts: typed replies, decoded without detours.

Numbers are `0x` quantities without padding, hashes and addresses `0x` hex in any case; unknown
fields are skipped by the decoder, fields a pending object lacks are optional.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from causeway.base.errors import ProviderUnavailable
from causeway.chains.protocol import Block, Log


class WireBlock(msgspec.Struct, rename="camel"):
    """The header fields we use."""

    number: str | None
    hash: str | None
    parent_hash: str
    timestamp: str
    gas_limit: str
    logs_bloom: str | None = None

    def block(self) -> Block:
        """Return it as a block."""
        if self.number is None or self.hash is None:
            raise ProviderUnavailable("a pending block where a mined one was asked for")
        return Block(
            int(self.number, 16),
            self.hash.lower(),
            self.parent_hash.lower(),
            instant(self.timestamp),
            None if self.logs_bloom is None else int(self.logs_bloom, 16),
        )


class WireLog(msgspec.Struct, rename="camel", gc=False):
    """A log as `eth_getLogs` and receipts give it. It holds text only: no cycles to collect."""

    address: str
    topics: tuple[str, ...]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    removed: bool = False
    block_timestamp: str | None = None

    def log(self) -> Log:
        """Return it as a log."""
        return Log(
            self.address.lower(),
            tuple([topic.lower() for topic in self.topics]),
            bytes.fromhex(self.data[2:]),
            int(self.block_number, 16),
            self.block_hash.lower(),
            self.transaction_hash.lower(),
            int(self.transaction_index, 16),
            int(self.log_index, 16),
            None if self.block_timestamp is None else instant(self.block_timestamp),
        )

    def block(self) -> Block:
        """Return what is known of its block: not the parent; only where the log tells the time."""
        if self.block_timestamp is None:
            raise ProviderUnavailable("the log does not tell its block's time")
        return Block(
            int(self.block_number, 16), self.block_hash.lower(), "", instant(self.block_timestamp)
        )


class WireReceipt(msgspec.Struct, rename="camel"):
    """A receipt; `l1Fee` is what OP-stack chains add."""

    transaction_hash: str
    block_number: str
    block_hash: str
    gas_used: str
    logs: list[WireLog]
    status: str | None = None
    effective_gas_price: str | None = None
    l1_fee: str | None = None


class WireFeeHistory(msgspec.Struct, rename="camel"):
    """The reply to `eth_feeHistory`."""

    base_fee_per_gas: list[str]
    reward: list[list[str]] | None = None


def instant(quantity: str) -> datetime:
    """Return the time a quantity of seconds since 1970 stands for (some nodes write decimals)."""
    return datetime.fromtimestamp(int(quantity, 0), UTC)
