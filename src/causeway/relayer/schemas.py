"""How transactions, accounts and pauses look over HTTP and in `--json`.

Amounts are in wei and go as strings, as every integer does that a JSON reader may not keep exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from causeway.base.clock import iso
from causeway.relayer.pauses import Pause, account_of
from causeway.relayer.views import AccountView, AttemptView, TransactionView
from causeway.relayer.words import reason

Purpose = Literal["first", "higher fees", "cancellation"]
Wei = Annotated[int, PlainSerializer(str, return_type=str)]
Instant = Annotated[datetime, PlainSerializer(iso, return_type=str)]


class Wire(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(from_attributes=True)


class UnitOut(Wire):
    """One thing owed that the transaction carries or carried."""

    key: str
    payload: dict[str, Any]
    state: str
    requested_by: str | None
    settled_cause: str | None
    settled_hash: str | None
    error: str | None


class IntentOut(Wire):
    """What it is for."""

    to: str
    value_wei: Wei
    #: The first four bytes of the call data, hex; empty for a plain transfer.
    selector: str
    data: str
    gas_limit: int
    units: list[UnitOut]


class AttemptOut(Wire):
    """Signed bytes by their hash, and what they offer."""

    n: int
    hash: str
    purpose: Purpose
    max_fee_per_gas_wei: Wei
    max_priority_fee_per_gas_wei: Wei
    gas_limit: int
    state: str
    created_at: Instant
    sent_at: Instant | None
    sends: int
    refused: str | None


class ReceiptOut(Wire):
    """What the chain says."""

    transaction_hash: str
    block_number: int
    block_hash: str
    status: int
    gas_used: int
    effective_gas_price_wei: Wei
    l1_fee_wei: Wei | None


class StoryOut(Wire):
    """One thing that happened to it."""

    at: Instant
    what: str
    detail: dict[str, Any]


class TransactionLine(Wire):
    """A transaction in a list."""

    id: UUID
    app: str
    kind: str
    chain_id: int
    account: str
    nonce: int | None
    state: str
    reason: str
    hash: str | None
    units: int
    requested_by: str | None
    cost_wei: Wei | None
    created_at: Instant
    updated_at: Instant


class TransactionPage(Wire):
    """A transaction with everything that is known of it."""

    id: UUID
    app: str
    kind: str
    chain_id: int
    account: str
    nonce: int | None
    state: str
    reason: str
    requested_by: str | None
    intent: IntentOut
    attempts: list[AttemptOut]
    hashes: list[str]
    hash: str | None
    receipt: ReceiptOut | None
    fee_wei: Wei | None
    cost_wei: Wei | None
    #: The most it may cost as it is offered now.
    most_wei: Wei | None
    created_at: Instant
    signed_at: Instant | None
    sent_at: Instant | None
    mined_at: Instant | None
    confirmed_at: Instant | None
    final_at: Instant | None
    story: list[StoryOut]


class TransactionList(Wire):
    """A page of transactions, newest first."""

    transactions: list[TransactionLine]
    next_cursor: str | None


class WaitOut(Wire):
    """A kind of unit that waits, and why."""

    app: str
    kind: str
    cause: str
    reason: str
    since: Instant


class AccountOut(Wire):
    """An account that signs."""

    chain_id: int
    sender: str
    mode: str
    reason: str | None
    mode_by: str | None
    mode_since: Instant
    balance_wei: Wei | None
    low_since: Instant | None
    needed_wei: Wei | None
    gas_price_wei: Wei | None
    checked_at: Instant | None
    waits: list[WaitOut]


class PauseOut(Wire):
    """A pause in force; null stands for any."""

    app: str | None
    chain_id: int | None
    account: str | None
    mode: str
    reason: str | None
    by: str
    since: Instant


class AccountList(Wire):
    """Accounts, and what an operator has stopped."""

    accounts: list[AccountOut]
    pauses: list[PauseOut]


class ScopeBody(BaseModel):
    """What to resume; null stands for any."""

    model_config = ConfigDict(extra="forbid")

    app: str | None = Field(None, max_length=100)
    chain_id: int | None = Field(None, ge=1, le=2**63 - 1)
    account: str | None = Field(None, max_length=64)


class PauseBody(ScopeBody):
    """What to stop, how far, and why."""

    mode: Literal["no-new", "no-sign", "cancel-open"] = "no-sign"
    reason: str | None = Field(None, max_length=500)
    by: str = Field("operator", min_length=1, max_length=100)


def line(view: TransactionView) -> TransactionLine:
    """Return a transaction for a list."""
    return TransactionLine(
        id=view.id,
        app=view.app,
        kind=view.kind,
        chain_id=view.chain_id,
        account=view.sender,
        nonce=view.nonce,
        state=view.state,
        reason=reason(view),
        hash=view.hash,
        units=len(view.units),
        requested_by=view.requested_by,
        cost_wei=view.cost_wei,
        created_at=view.created_at,
        updated_at=view.updated_at,
    )


def _purpose(one: AttemptView) -> Purpose:
    if one.is_cancel:
        return "cancellation"
    return "first" if one.n == 1 else "higher fees"


def page(view: TransactionView) -> TransactionPage:
    """Return a transaction with everything."""
    return TransactionPage(
        id=view.id,
        app=view.app,
        kind=view.kind,
        chain_id=view.chain_id,
        account=view.sender,
        nonce=view.nonce,
        state=view.state,
        reason=reason(view),
        requested_by=view.requested_by,
        intent=IntentOut(
            to=account_of(view.to_address, "to"),
            value_wei=view.value,
            selector="0x" + view.calldata[:4].hex() if view.calldata else "",
            data="0x" + view.calldata.hex(),
            gas_limit=view.gas_limit,
            units=[UnitOut.model_validate(unit) for unit in view.units],
        ),
        attempts=[
            AttemptOut(
                n=one.n,
                hash=one.hash,
                purpose=_purpose(one),
                max_fee_per_gas_wei=one.cap_wei,
                max_priority_fee_per_gas_wei=one.tip_wei,
                gas_limit=one.gas_limit,
                state=one.state,
                created_at=one.created_at,
                sent_at=one.sent_at,
                sends=one.sends,
                refused=one.rejected_reason,
            )
            for one in view.attempts
        ],
        hashes=[one.hash for one in view.attempts],
        hash=view.hash,
        receipt=None if view.receipt is None else ReceiptOut.model_validate(view.receipt),
        fee_wei=view.fee_wei,
        cost_wei=view.cost_wei,
        most_wei=view.most_wei,
        created_at=view.created_at,
        signed_at=view.signed_at,
        sent_at=view.sent_at,
        mined_at=view.mined_at,
        confirmed_at=view.confirmed_at,
        final_at=view.final_at,
        story=[StoryOut.model_validate(one) for one in view.events],
    )


def pause_out(one: Pause) -> PauseOut:
    """Return a pause."""
    scope = one.scope
    return PauseOut(
        app=scope.app,
        chain_id=scope.chain_id,
        account=scope.sender,
        mode=one.mode,
        reason=one.reason,
        by=one.by,
        since=one.since,
    )


def account_list(accounts: Sequence[AccountView], pauses: Sequence[Pause]) -> AccountList:
    """Return accounts with the pauses."""
    return AccountList(
        accounts=[AccountOut.model_validate(one) for one in accounts],
        pauses=[pause_out(one) for one in pauses],
    )
