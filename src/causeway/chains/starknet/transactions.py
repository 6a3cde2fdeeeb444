"""Invoke transactions of version 3: what an account is asked to do, what it may cost, their hash.

The hash is Poseidon over all fields, as the protocol's documentation has it; it needs the packages
of the extra `causeway[starknet]`, which are imported when the first hash is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from causeway.base.errors import ConfigurationError, InvalidInput
from causeway.chains.starknet.felts import felt, padded, wire

#: Added to the version of a transaction that is only estimated, so that it can never be executed.
QUERY = 1 << 128


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of each resource may be used, and the most paid for a unit of it, in fri."""

    l2_gas: int
    l2_gas_price: int
    l1_data_gas: int = 0
    l1_data_gas_price: int = 0
    l1_gas: int = 0
    l1_gas_price: int = 0

    @property
    def most_fri(self) -> int:
        """The most that a transaction with these bounds can cost without its tip, in fri."""
        return (
            self.l2_gas * self.l2_gas_price
            + self.l1_data_gas * self.l1_data_gas_price
            + self.l1_gas * self.l1_gas_price
        )


@dataclass(frozen=True, slots=True)
class Invoke:
    """An invoke transaction. `tip` is paid for each unit of L2 gas, in fri."""

    sender: str
    calldata: tuple[int, ...]
    nonce: int
    bounds: Bounds
    tip: int = 0
    signature: tuple[int, ...] = ()

    def hash(self, chain_id: int, *, query: bool = False) -> int:
        """Return the transaction's hash on a chain."""
        try:
            from starknet_py.hash.transaction import (
                CommonTransactionV3Fields,
                TransactionHashPrefix,
                compute_invoke_v3_transaction_hash,
            )
            from starknet_py.net.client_models import (
                DAMode,
                ResourceBounds,
                ResourceBoundsMapping,
            )
        except ImportError:
            raise ConfigurationError(
                "writing to Starknet needs packages that are not installed",
                hint="install causeway[starknet]",
            ) from None
        limits = self.bounds
        common = CommonTransactionV3Fields(
            tx_prefix=TransactionHashPrefix.INVOKE,
            version=3 + QUERY if query else 3,
            address=int(self.sender, 16),
            tip=self.tip,
            resource_bounds=ResourceBoundsMapping(
                l1_gas=ResourceBounds(limits.l1_gas, limits.l1_gas_price),
                l2_gas=ResourceBounds(limits.l2_gas, limits.l2_gas_price),
                l1_data_gas=ResourceBounds(limits.l1_data_gas, limits.l1_data_gas_price),
            ),
            paymaster_data=[],
            chain_id=chain_id,
            nonce=self.nonce,
            nonce_data_availability_mode=DAMode.L1,
            fee_data_availability_mode=DAMode.L1,
        )
        return compute_invoke_v3_transaction_hash(
            account_deployment_data=[], calldata=list(self.calldata), common_fields=common
        )

    def signed(self, signature: Sequence[int]) -> Invoke:
        """Return the same transaction with a signature."""
        return replace(self, signature=tuple(signature))

    def to_wire(self, *, query: bool = False) -> dict[str, Any]:
        """Return it as `starknet_addInvokeTransaction` takes it."""
        limits = self.bounds
        return {
            "type": "INVOKE",
            "sender_address": wire(self.sender),
            "calldata": [hex(one) for one in self.calldata],
            "version": hex(3 + QUERY) if query else "0x3",
            "signature": [hex(one) for one in self.signature],
            "nonce": hex(self.nonce),
            "resource_bounds": {
                "l1_gas": _bound(limits.l1_gas, limits.l1_gas_price),
                "l1_data_gas": _bound(limits.l1_data_gas, limits.l1_data_gas_price),
                "l2_gas": _bound(limits.l2_gas, limits.l2_gas_price),
            },
            "tip": hex(self.tip),
            "paymaster_data": [],
            "account_deployment_data": [],
            "nonce_data_availability_mode": "L1",
            "fee_data_availability_mode": "L1",
        }

    def to_bytes(self) -> bytes:
        """Return the bytes that go out, the same for the same transaction."""
        return msgspec.json.encode(self.to_wire())

    @classmethod
    def from_wire(cls, given: Mapping[str, Any]) -> Invoke:
        """Return the transaction in the form of `to_wire`; `InvalidInput` when it is none."""
        try:
            limits = {
                name: (int(one["max_amount"], 16), int(one["max_price_per_unit"], 16))
                for name, one in cast("Mapping[str, Any]", given["resource_bounds"]).items()
            }
            if given["paymaster_data"] or given["account_deployment_data"]:
                raise ValueError("a paymaster or a deployment with an invoke transaction")
            return cls(
                padded(str(given["sender_address"])),
                tuple(felt(str(one)) for one in given["calldata"]),
                felt(str(given["nonce"])),
                Bounds(*limits["l2_gas"], *limits["l1_data_gas"], *limits["l1_gas"]),
                int(str(given["tip"]), 16),
                tuple(felt(str(one)) for one in given["signature"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not an invoke transaction: {error!r}") from error

    @classmethod
    def from_bytes(cls, raw: bytes) -> Invoke:
        """Return the transaction in the bytes of `to_bytes`; `InvalidInput` when it is none."""
        try:
            return cls.from_wire(msgspec.json.decode(raw, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            raise InvalidInput(f"not an invoke transaction: {error}") from error


@dataclass(frozen=True, slots=True)
class ContractCall:
    """A function of a contract and its calldata."""

    to: str
    selector: int
    calldata: tuple[int, ...]

    @classmethod
    def from_data(cls, to: str, data: bytes) -> ContractCall:
        """Return the call that `Abi.encode` made: the selector, then the inputs."""
        if len(data) % 32 or not data:
            raise InvalidInput(f"{len(data)} bytes are no selector and felts of 32 bytes each")
        felts = [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
        return cls(to, felts[0], tuple(felts[1:]))


def execution(calls: Sequence[ContractCall]) -> tuple[int, ...]:
    """Return the calldata with which an account makes these calls, all or none."""
    felts = [len(calls)]
    for one in calls:
        felts += [int(one.to, 16), one.selector, len(one.calldata), *one.calldata]
    return tuple(felts)


def _bound(amount: int, price: int) -> dict[str, str]:
    return {"max_amount": hex(amount), "max_price_per_unit": hex(price)}
