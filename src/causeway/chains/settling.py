"""What the relayer asks of a chain that it writes to, and of those who sign for it.

Amounts are integers of the smallest unit (wei, fri). A family whose transactions pay for several
resources tells them in one: gas is what carries the price, the others are counted in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from causeway.base.errors import TransactionReverted
from causeway.chains.protocol import Chain, Log


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction."""

    transaction_hash: str
    block_number: int
    block_hash: str
    #: 1: done; 0: reverted, with its gas spent.
    status: int
    gas_used: int
    effective_gas_price: int
    logs: tuple[Log, ...]
    #: What was paid besides the gas; None where there is no such thing.
    l1_fee: int | None
    #: Where the chain itself says why it was reverted.
    revert_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FeeHistory:
    """Prices of recent blocks, oldest first."""

    #: One more entry than blocks: the last is the next block's.
    base_fee_per_gas: tuple[int, ...]
    #: For each block the tips at the percentiles asked for.
    rewards: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """The bytes that go out, and the hash they will have."""

    raw: bytes
    hash: str


class Signer(Protocol):
    """Who signs."""

    @property
    def address(self) -> str:
        """The account's address, as its chain writes it."""
        ...

    async def sign(self, tx: Mapping[str, object]) -> SignedTransaction:
        """Sign the fields of a transaction (`chainId`, `nonce`, `to`, `data`, `value`, `gas`,
        `maxFeePerGas`, `maxPriorityFeePerGas`, all integers).
        """
        ...


class RevertAbi(Protocol):
    """A contract's interface, as far as it says why calls are refused."""

    def explain(self, error: TransactionReverted) -> TransactionReverted:
        """Return the revert with its reason in the contract's words, where they are known."""
        ...


class SettlingChain(Chain, Protocol):
    """A chain that transactions are written to. State is read at a block's number or a tag."""

    def address(self, text: str) -> str:
        """Return an address as this chain writes it."""
        ...

    async def code(self, address: str, at: Any = "latest") -> bytes:
        """Return what tells the contract at an address; empty where there is none."""
        ...

    async def call(
        self, to: str, data: bytes, *, sender: str | None = None, at: Any = "latest"
    ) -> bytes:
        """Run a call without a transaction; raises `TransactionReverted`."""
        ...

    async def balance(self, address: str, at: Any = "latest") -> int:
        """Return what an account can pay fees with."""
        ...

    async def nonce(self, address: str, at: Any = "latest") -> int:
        """Return an account's next nonce."""
        ...

    async def fee_history(self, blocks: int, percentiles: Sequence[float]) -> FeeHistory:
        """Return prices and tips of the last blocks."""
        ...

    async def max_priority_fee(self) -> int:
        """Return the tip per gas that the provider suggests."""
        ...

    async def gas_limit_of_block(self, at: Any = "latest") -> int:
        """Return how much gas a block can hold."""
        ...

    async def estimate_gas(self, sender: str, to: str, data: bytes, value: int = 0) -> int:
        """Return the gas a transaction would need now; raises `TransactionReverted`."""
        ...

    async def send_raw(self, raw: bytes) -> str:
        """Send a signed transaction to all providers; return its hash once one has taken it."""
        ...

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """Return the receipt, None while the transaction is not mined as far as is known."""
        ...

    async def transaction(self, tx_hash: str) -> dict[str, object] | None:
        """Return a transaction as the node writes it, None when the node does not know it."""
        ...

    async def nonce_without(self, address: str, at: int, tx_hashes: Sequence[str]) -> int | None:
        """Return an account's next nonce as of a block, from an endpoint that knows none of these.

        None when it has a receipt of one of them: both answers are of one endpoint.
        """
        ...
