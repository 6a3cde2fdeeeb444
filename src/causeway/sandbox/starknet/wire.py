"""What goes over the wire of a Starknet node, as strict types: JSON-RPC 0.10.

Written after the OpenRPC documents of starkware-libs/starknet-specs (v0.10.2). Everything the node
is asked and everything it answers goes through these, so that it neither accepts nor says what they
forbid: other spellings of a felt, fields that are missing, unknown or of another type.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Felt = Annotated[str, msgspec.Meta(pattern=r"^0x(0|[a-fA-F1-9][a-fA-F0-9]{0,62})$")]
TxHash = Felt
U64 = Annotated[str, msgspec.Meta(pattern=r"^0x(0|[a-fA-F1-9][a-fA-F0-9]{0,15})$")]
U128 = Annotated[str, msgspec.Meta(pattern=r"^0x(0|[a-fA-F1-9][a-fA-F0-9]{0,31})$")]
ChainId = Annotated[str, msgspec.Meta(pattern=r"^0x[a-fA-F0-9]+$")]
Number = Annotated[int, msgspec.Meta(ge=0)]
Tag = Literal["latest", "pre_confirmed", "l1_accepted"]
Finality = Literal["PRE_CONFIRMED", "ACCEPTED_ON_L2", "ACCEPTED_ON_L1"]


class Strict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An object without fields that are not named."""


class AtHash(Strict):
    """A block by its hash."""

    block_hash: Felt


class AtNumber(Strict):
    """A block by its number."""

    block_number: Number


def block_id(given: Any) -> AtHash | AtNumber | str:
    """Return which block is meant; `ValidationError` when it is none."""
    if isinstance(given, dict) and "block_hash" in given:
        return msgspec.convert(given, AtHash)
    if isinstance(given, dict):
        return msgspec.convert(given, AtNumber)
    return msgspec.convert(given, Tag)


class EventFilter(Strict):
    """What `starknet_getEvents` is asked for."""

    chunk_size: Annotated[int, msgspec.Meta(ge=1)]
    from_block: Any = None
    to_block: Any = None
    address: Felt | list[Felt] | None = None
    keys: list[list[Felt]] = []
    continuation_token: str | None = None


class FunctionCall(Strict):
    """A call of a view."""

    contract_address: Felt
    entry_point_selector: Felt
    calldata: list[Felt]


class Bounds(Strict):
    """How much of a resource may be used, and at which price in fri at most."""

    max_amount: U64
    max_price_per_unit: U128


class ResourceBounds(Strict):
    """The bounds of the three resources."""

    l1_gas: Bounds
    l1_data_gas: Bounds
    l2_gas: Bounds


DaMode = Literal["L1", "L2"]


class InvokeV3(Strict):
    """An invoke transaction as it is sent."""

    type: Literal["INVOKE"]
    sender_address: Felt
    calldata: list[Felt]
    version: Literal["0x3", "0x100000000000000000000000000000003"]
    signature: list[Felt]
    nonce: Felt
    resource_bounds: ResourceBounds
    tip: U64
    paymaster_data: list[Felt]
    account_deployment_data: list[Felt]
    nonce_data_availability_mode: DaMode
    fee_data_availability_mode: DaMode


class Price(Strict):
    """The price of a resource."""

    price_in_fri: Felt
    price_in_wei: Felt


class Header(Strict, kw_only=True):
    """A block's header."""

    block_hash: Felt
    parent_hash: Felt
    block_number: Number
    new_root: Felt
    timestamp: Number
    sequencer_address: Felt
    l1_gas_price: Price
    l2_gas_price: Price
    l1_data_gas_price: Price
    l1_da_mode: Literal["BLOB", "CALLDATA"]
    starknet_version: str
    event_commitment: Felt
    transaction_commitment: Felt
    receipt_commitment: Felt
    state_diff_commitment: Felt
    event_count: Number
    transaction_count: Number
    state_diff_length: Number


class BlockWithTxHashes(Header, kw_only=True):
    """A block and the hashes of its transactions."""

    status: Finality
    transactions: list[TxHash]


class PreConfirmed(Strict, kw_only=True):
    """The block that is being made."""

    block_number: Number
    timestamp: Number
    sequencer_address: Felt
    l1_gas_price: Price
    l2_gas_price: Price
    l1_data_gas_price: Price
    l1_da_mode: Literal["BLOB", "CALLDATA"]
    starknet_version: str
    transactions: list[TxHash]


class Event(Strict):
    """An event in a receipt."""

    from_address: Felt
    keys: list[Felt]
    data: list[Felt]


class EmittedEvent(Strict, kw_only=True):
    """An event with its place; one of the pre-confirmed block has neither number nor hash."""

    from_address: Felt
    keys: list[Felt]
    data: list[Felt]
    transaction_hash: TxHash
    transaction_index: Number
    event_index: Number
    block_hash: Felt | msgspec.UnsetType = msgspec.UNSET
    block_number: Number | msgspec.UnsetType = msgspec.UNSET


class EventsChunk(Strict):
    """A page of events; with a token there is another."""

    events: list[EmittedEvent]
    continuation_token: str | msgspec.UnsetType = msgspec.UNSET


class Fee(Strict):
    """What was paid."""

    amount: Felt
    unit: Literal["WEI", "FRI"]


class Resources(Strict):
    """What was used."""

    l1_gas: Number
    l1_data_gas: Number
    l2_gas: Number


class Receipt(Strict, kw_only=True):
    """What became of a transaction."""

    type: Literal["INVOKE", "DEPLOY", "L1_HANDLER"]
    transaction_hash: TxHash
    actual_fee: Fee
    finality_status: Finality
    execution_status: Literal["SUCCEEDED", "REVERTED"]
    messages_sent: list[Any]
    events: list[Event]
    execution_resources: Resources
    revert_reason: str | msgspec.UnsetType = msgspec.UNSET
    contract_address: Felt | msgspec.UnsetType = msgspec.UNSET
    message_hash: Felt | msgspec.UnsetType = msgspec.UNSET
    block_hash: Felt | msgspec.UnsetType = msgspec.UNSET
    block_number: Number


class Status(Strict):
    """How far a transaction is."""

    finality_status: Literal[
        "RECEIVED", "CANDIDATE", "PRE_CONFIRMED", "ACCEPTED_ON_L2", "ACCEPTED_ON_L1"
    ]
    execution_status: Literal["SUCCEEDED", "REVERTED"] | msgspec.UnsetType = msgspec.UNSET
    failure_reason: str | msgspec.UnsetType = msgspec.UNSET


class FeeEstimate(Strict):
    """What a transaction would use and cost, prices in fri."""

    l1_gas_consumed: U64
    l1_gas_price: U128
    l2_gas_consumed: U64
    l2_gas_price: U128
    l1_data_gas_consumed: U64
    l1_data_gas_price: U128
    overall_fee: U128
    unit: Literal["FRI"]


class HashAndNumber(Strict):
    """A block's place."""

    block_hash: Felt
    block_number: Number


class Added(Strict):
    """The hash of a transaction that was taken."""

    transaction_hash: TxHash


class Reorg(Strict):
    """Blocks that were replaced, the first and the last of them."""

    starting_block_hash: Felt
    starting_block_number: Number
    ending_block_hash: Felt
    ending_block_number: Number


class SentTransaction(Strict, kw_only=True):
    """An invoke transaction as the node knows it."""

    type: Literal["INVOKE"]
    sender_address: Felt
    calldata: list[Felt]
    version: Literal["0x3"]
    signature: list[Felt]
    nonce: Felt
    resource_bounds: ResourceBounds
    tip: U64
    paymaster_data: list[Felt]
    account_deployment_data: list[Felt]
    nonce_data_availability_mode: DaMode
    fee_data_availability_mode: DaMode
    transaction_hash: TxHash
