"""Signing for an account contract on Starknet: invoke transactions and typed data (SNIP-12)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic import SecretStr

from causeway.base.errors import ConfigurationError, InvalidInput
from causeway.chains.settling import SignedTransaction
from causeway.chains.starknet.chain import StarknetChain
from causeway.chains.starknet.felts import address, padded
from causeway.chains.starknet.transactions import ContractCall, Invoke, execution

#: The order of the curve's points: keys are below it.
_ORDER = 0x800000000000010FFFFFFFFFFFFFFFFB781126DCAE7B2321E66A241ADC64D2F


class HashSigner(Protocol):
    """Who signs a hash in the way that an account's contract expects."""

    async def sign_hash(self, message_hash: int) -> Sequence[int]:
        """Return the signature's felts."""
        ...


class LocalKey:
    """A key of the STARK curve in this process's memory; for accounts with one such key."""

    __slots__ = ("_key",)

    def __init__(self, secret: SecretStr | str) -> None:
        """Take a private key: hex with or without 0x.

        Raises `ConfigurationError` that does not contain the key.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        digits = text.strip().removeprefix("0x").removeprefix("0X")
        number = int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]{1,64}", digits) else 0
        if not 0 < number < _ORDER:
            raise ConfigurationError("the private key is not a number of the STARK curve")
        self._key = number

    @property
    def public_key(self) -> int:
        """The public key: what the account's contract is made with."""
        from starknet_py.hash.utils import private_to_stark_key

        return private_to_stark_key(self._key)

    async def sign_hash(self, message_hash: int) -> Sequence[int]:
        """Return the signature's two numbers; always the same for a hash (RFC 6979)."""
        from starknet_py.hash.utils import message_signature

        return await asyncio.to_thread(message_signature, message_hash, self._key)

    def __repr__(self) -> str:
        return "LocalKey()"

    def __reduce__(self) -> str:
        raise TypeError("a key is not written down")


@dataclass(frozen=True)
class StarknetSigner:
    """Signs for one account contract; the chain tells what a transaction uses of each resource.

    Implements `causeway.chains.settling.Signer`.
    """

    chain: StarknetChain
    account: str
    key: HashSigner

    def __post_init__(self) -> None:
        object.__setattr__(self, "account", address(self.account, name="account"))

    @property
    def address(self) -> str:
        """The account's address, with all its digits."""
        return self.account

    async def sign(self, tx: Mapping[str, object]) -> SignedTransaction:
        """Sign an invoke transaction (version 3) with one call, or with none for empty data.

        `gas` and `maxFeePerGas` are for all resources together, in units of L2 gas; what each may
        use and cost is divided as an estimate has it now, so that all cost no more than that.
        Raises what estimating raises, and `InvalidInput` for a `value`: there is none here.
        """
        if tx.get("value"):
            raise InvalidInput("a transaction on Starknet sends no value along; call the token")
        to, data = str(tx["to"]), cast("bytes", tx["data"])
        numbers: dict[str, Any] = dict(tx)
        tip = int(numbers["maxPriorityFeePerGas"])
        price = int(numbers["maxFeePerGas"]) - tip
        if price <= 0:
            raise InvalidInput("the fee per gas leaves nothing besides the tip")
        shares = await self.chain.shares(self.account, to, data)
        # The tip is paid for L2 gas besides its price.
        made = Invoke(
            self.account,
            execution([ContractCall.from_data(to, data)] if data else []),
            int(numbers["nonce"]),
            shares.bounds(int(numbers["gas"]), price),
            tip,
        )
        hash_ = made.hash(self.chain.network)
        signed = made.signed(await self.key.sign_hash(hash_))
        return SignedTransaction(signed.to_bytes(), padded(hash_))

    def __repr__(self) -> str:
        return f"StarknetSigner({self.account})"
