"""From a block as a node gives it to the rows that are stored. Pure functions.

Chains differ in what they add to a transaction and a receipt, and providers in how they write it:
what only informs and cannot be read is left out, what decides is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from causeway.apps.mobs import fees
from causeway.apps.mobs.decoding import Decoder, clean
from causeway.base.errors import InvalidInput
from causeway.chains.evm.blocks import FullBlock, Receipt, Transaction

#: The sender of the transaction in which an OP-stack block tells of its L1 origin.
SYSTEM = bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001")
#: Of a transaction's input so much is kept.
INPUT_KEPT = 4096

_BIGINT = 2**63 - 1
_SMALLINT = 2**15 - 1


def quantity(text: str | None) -> int | None:
    """Return a quantity as an integer: hex, or decimal as some chains write scalars; else None."""
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None


def raw(text: str | None) -> bytes | None:
    """Return hex data as bytes; None for nothing, and for what is no hex."""
    if not text or not text.startswith("0x"):
        return None
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        return None


@dataclass(frozen=True)
class Labels:
    """What is known of contracts when a block is written down."""

    decoder: Decoder = field(default_factory=Decoder)
    #: Ids of watched contracts by address.
    contracts: Mapping[bytes, int] = field(default_factory=dict[bytes, int])
    profile: fees.Profile = "mantle"
    #: Transactions of blocks above this may still go away.
    settled: int = -1
    #: Whether failed transactions are to be traced.
    traced: bool = True


def block_row(full: FullBlock, now: int) -> dict[str, Any]:
    """Return the row of a block in `blocks`."""
    header = full.header
    return {
        "number": full.block.number,
        "hash": bytes.fromhex(full.block.hash[2:]),
        "parent_hash": bytes.fromhex(full.block.parent_hash[2:]),
        "timestamp": full.timestamp,
        "tx_count": len(full.transactions),
        "failed_count": sum(receipt.status == "0x0" for receipt in full.receipts),
        "gas_used": int(header.gas_used, 16),
        "gas_limit": min(int(header.gas_limit, 16), _BIGINT),
        "base_fee": quantity(header.base_fee_per_gas),
        "size": quantity(header.size),
        "indexed_at": now,
    }


def tx_rows(full: FullBlock, labels: Labels, now: int) -> list[dict[str, Any]]:
    """Return the rows of a block's transactions in `txs`, all with the same columns.

    Raises `InvalidInput` for a receipt without a status: whether it failed is not guessed.
    """
    return [
        _tx_row(full, transaction, receipt, index, labels, now)
        for index, (transaction, receipt) in enumerate(
            zip(full.transactions, full.receipts, strict=True)
        )
    ]


def _tx_row(
    full: FullBlock, tx: Transaction, receipt: Receipt, index: int, labels: Labels, now: int
) -> dict[str, Any]:
    if receipt.status is None:
        raise InvalidInput(
            f"transaction {tx.hash} has a receipt without a status",
            hint="a provider that offers debug_traceBlockByHash tells whether it failed",
        )
    status = int(receipt.status, 16)
    sender = bytes.fromhex(tx.from_[2:])
    to = raw(tx.to)
    created = raw(receipt.contract_address) if status else None
    data = bytes.fromhex(tx.input[2:])
    is_call = to is not None and len(data) >= 4
    gas_used = int(receipt.gas_used, 16)
    price = quantity(receipt.effective_gas_price)
    if price is None:
        price = quantity(tx.gas_price) or 0
    cost = fees.fee(
        labels.profile,
        full.timestamp,
        gas_used,
        price,
        quantity(receipt.l1_fee),
        quantity(receipt.operator_fee_scalar),
        quantity(receipt.operator_fee_constant),
        has_footprint=receipt.da_footprint_gas_scalar is not None,
    )
    counterpart = to if to is not None else created
    row: dict[str, Any] = {
        "status": status,
        "block_timestamp": full.timestamp,
        "block_number": full.block.number,
        "tx_index": index,
        "hash": bytes.fromhex(tx.hash[2:]),
        "from_address": sender,
        "to_address": to,
        "contract_id": None if counterpart is None else labels.contracts.get(counterpart),
        "value_wei": int(tx.value, 16),
        "gas_used": gas_used,
        "gas_limit": min(int(tx.gas, 16), _BIGINT),
        "gas_price": price,
        "max_fee_per_gas": quantity(tx.max_fee_per_gas),
        "max_priority_fee_per_gas": quantity(tx.max_priority_fee_per_gas),
        "l1_fee": cost.l1,
        "operator_fee": cost.operator,
        "total_fee": cost.total,
        "tx_type": min(tx.kind, _SMALLINT),
        "nonce": min(quantity(tx.nonce) or 0, _BIGINT),
        "is_system": tx.kind == fees.DEPOSIT and (sender == SYSTEM or bool(tx.is_system_tx)),
        "method_id": data[:4] if is_call else None,
        "method_name": labels.decoder.method(data, to) if is_call else None,
        "input_head": data[:INPUT_KEPT],
        "input_size": len(data),
        "created_contract": created,
        "error_raw": None,
        "error_signature": None,
        "error_decoded": None,
        "error_params": None,
        "error_candidates": None,
        "error_source": None,
        "trace_state": None,
        "is_tentative": full.block.number > labels.settled,
        "ingested_at": now,
    }
    if not status:
        row |= _reason(receipt, to, labels)
    return row


def _reason(receipt: Receipt, to: bytes | None, labels: Labels) -> dict[str, Any]:
    """Return why a transaction failed where its receipt says so (Besu's does), else to trace it."""
    told = receipt.revert_reason
    if not told or told == "0x":
        return {"error_source": "none", "trace_state": "queued" if labels.traced else "skipped"}
    data = raw(told)
    if data is None:  # in words, not in bytes
        said = clean(told)
        found: dict[str, Any] = {"error_decoded": said, "error_params": {"message": said}}
    else:
        decoded = labels.decoder.error(data, to)
        found = {
            "error_raw": data,
            "error_signature": decoded.signature,
            "error_decoded": decoded.text,
            "error_params": decoded.params,
            "error_candidates": list(decoded.candidates) or None,
        }
    return found | {"error_source": "receipt", "trace_state": "done"}
