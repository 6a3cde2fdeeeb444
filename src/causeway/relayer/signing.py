"""Step 2, sign: nonce, bytes and hash in one commit, before anything leaves; and later attempts.

All attempts of a transaction carry its one nonce, so at most one of them can be mined.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import CausewayError, LeaseLost, TransactionReverted
from causeway.base.faults import fault_point
from causeway.chains.errors import IntrinsicGasTooLow
from causeway.chains.evm.abi import Abi
from causeway.chains.settling import SignedTransaction
from causeway.relayer import account, budget, ledger
from causeway.relayer.fees import (
    Fees,
    Quote,
    bumped_fees,
    doubled,
    gas_limit,
    is_underpriced,
    starting_fees,
)
from causeway.relayer.filing import drop
from causeway.relayer.kind import Call, UnitKind
from causeway.relayer.lane import Did, Lane, Sight, alarm
from causeway.relayer.ledger import Held
from causeway.relayer.models import AccountRow, AttemptRow, TransactionRow
from causeway.relayer.pauses import gate, hold_still
from causeway.relayer.planning import gwei
from causeway.store.lease import Lease

#: Where chains of the OP family say what the data of a transaction costs outside the gas.
ORACLE = "0x420000000000000000000000000000000000000F"
_ORACLE_ABI = Abi.from_json(
    [
        {
            "type": "function",
            "name": "getL1Fee",
            "inputs": [{"name": "_data", "type": "bytes"}],
            "outputs": [{"name": "", "type": "uint256"}],
        }
    ]
)
#: What a signed transaction has around its call data, at most, without any zero that is cheaper.
_ENVELOPE = b"\xff" * 140

#: Gas of a transfer, and how much more a client may ask that charged too little for the bytes.
_TRANSFER_GAS = 21_000
_MORE_GAS_PPM = 1_500_000


async def sign(lane: Lane, sight: Sight, lease: Lease, planned: TransactionRow, did: Did) -> None:
    """Give a planned transaction its nonce and its first signed bytes, if it may go now."""
    kind = lane.kind(planned.app, planned.kind)
    async with lane.database.transaction() as session:
        row = await ledger.account(session, lane)
        open_ones = await ledger.held(session, lane, "signed", "sent")
        if row is None or len(open_ones) >= lane.settings.in_flight_max:
            return
        nonce = await ledger.next_nonce(session, lane, max(sight.mined, row.nonce_floor))
        now_open = await gate(session, row, planned.app)
    if not (now_open.may_sign or now_open.is_hold):
        await _leave(lane, lease, kind, planned.id, str(now_open), did)
        return
    if now_open.is_hold and not lane.turn("funds", lane.settings.hold_check_s):
        return
    quote = await sight.quote(kind)
    ceiling = lane.ceiling(kind)
    fees = starting_fees(quote, ceiling)
    if fees is None:
        reason = f"the gas price is {gwei(quote.price_wei)}, the most allowed {gwei(ceiling or 0)}"
        await account.wait(lane, lease, kind, "gas_price", reason)
        await _say(lane, lease, planned.id, reason)
        return
    data_fee = await _data_fee(lane, planned.calldata)
    cost = planned.gas_limit * fees.cap_wei + planned.value + (data_fee or 0)
    short = await account.check_means(lane, lease, cost)
    if short is not None:
        await _leave(lane, lease, kind, planned.id, short, did)
        return
    call = Call(planned.to_address, planned.calldata, planned.value)
    is_old = lane.now() - planned.created_at > timedelta(seconds=lane.settings.plan_valid_s)
    try:
        # Also for a plan that is too old: while the signer fails, no new plan is made.
        signed = await _signature(lane, nonce, call, planned.gas_limit, fees)
    except CausewayError as error:
        reason = f"the signer fails: {error.message}"
        if is_old:
            await _leave(lane, lease, kind, planned.id, reason, did)
        else:
            await _say(lane, lease, planned.id, reason)
        raise
    fault_point("relayer.signed_unsaved")
    now = lane.now()
    if is_old:
        async with lane.commit(lease) as session:
            tx = await ledger.locked(session, planned.id, "planned")
            if tx is not None:
                await drop(session, tx, now, "the plan is too old: planned anew")
                did.dropped += 1
        return
    async with lane.commit(lease) as session:
        await hold_still(session)
        row = await ledger.account(session, lane, lock=True)
        tx = await ledger.locked(session, planned.id, "planned")
        if tx is None or row is None or not (await gate(session, row, tx.app)).may_sign:
            return  # the signature never left
        if row.fence > lease.fence:
            raise LeaseLost(f"{lane.lease_name} was held by another since")
        if nonce != await ledger.next_nonce(session, lane, max(sight.mined, row.nonce_floor)):
            return  # the signature never left: signed again with the right nonce
        row.fence = lease.fence
        account.note_price(row, quote)
        tx.nonce = nonce
        tx.data_fee_wei = data_fee
        ledger.move(
            session,
            tx,
            now,
            "signed",
            hash=signed.hash,
            tip_wei=str(fees.tip_wei),
            cap_wei=str(fees.cap_wei),
        )
        _attempt(session, lane, tx, 1, signed, fees, tx.gas_limit, is_cancel=False)
    fault_point("relayer.signed")
    did.signed += 1


async def outbid(lane: Lane, sight: Sight, lease: Lease, lowest: Held, did: Did) -> None:
    """Sign the lowest open nonce again with higher fees: when it is stuck, too cheap, or refused.

    A transaction that is to be cancelled gets a transfer of nothing to ourselves at its nonce.
    """
    kind = lane.kind(lowest.tx.app, lowest.tx.kind)
    cancel = lowest.tx.cancel_requested_at is not None
    first_cancel = cancel and not lowest.last.is_cancel
    quote = await sight.quote(kind)
    why = "cancelled" if first_cancel else _why(lane, kind, lowest, quote)
    if why is None:
        return
    async with lane.database.transaction() as session:
        row = await ledger.account(session, lane)
        if row is None or not await _may_outbid(session, row, lowest.tx.app, cancel=cancel):
            return
    highest = Fees(
        max(one.tip_wei for one in lowest.attempts), max(one.cap_wei for one in lowest.attempts)
    )
    # Getting rid of a transaction must not fail for the price of a transfer.
    ceiling = None if cancel else lane.ceiling(kind)
    fees = bumped_fees(highest, quote, lane.settings.bump_factor_ppm, ceiling)
    if fees is None:
        reason = f"its fees are at the ceiling of {gwei(ceiling or 0)} and it is not mined"
        if await _say(lane, lease, lowest.tx.id, reason):
            alarm("ceiling", "relayer_at_ceiling", kind=kind.label, nonce=lowest.nonce)
        return
    call = Call(lowest.tx.to_address, lowest.tx.calldata, lowest.tx.value)
    limit = lowest.last.gas_limit
    if cancel:
        call = Call(lane.sender, b"")
        limit = await _transfer_gas(lane, kind)
    elif why == "gas":
        limit = gas_limit(limit, _MORE_GAS_PPM)
    signed = await _signature(lane, lowest.nonce, call, limit, fees)
    fault_point("relayer.signed_unsaved")
    async with lane.commit(lease) as session:
        await hold_still(session)
        row = await ledger.account(session, lane, lock=True)
        tx = await ledger.locked(session, lowest.tx.id, "signed", "sent")
        if tx is None or row is None:
            return
        if not await _may_outbid(session, row, tx.app, cancel=cancel):
            return
        if not cancel and not await _budget_allows(session, lane, lowest, limit * fees.cap_wei):
            ledger.wait_for(session, tx, lane.now(), "the day's budget allows no higher fees")
            return
        n = len(lowest.attempts) + 1
        _attempt(session, lane, tx, n, signed, fees, limit, is_cancel=cancel)
        tx.waiting = None
        tx.updated_at = lane.now()
        ledger.record(
            session,
            tx,
            lane.now(),
            "cancelling" if cancel else "bumped",
            why=why,
            attempt=n,
            hash=signed.hash,
            tip_wei=str(fees.tip_wei),
            cap_wei=str(fees.cap_wei),
        )
    fault_point("relayer.bumped")
    did.bumped += 1


async def _may_outbid(session: AsyncSession, row: AccountRow, app: str, *, cancel: bool) -> bool:
    """Return whether another signature for a nonce already taken is allowed."""
    if row.mode == "no-sign" and row.mode_by == account.KERNEL:
        return False  # after nonces were spent without us nothing at all is signed
    # An operator who stops everything may still cancel.
    return cancel or (await gate(session, row, app)).may_sign


async def _budget_allows(session: AsyncSession, lane: Lane, one: Held, cost_wei: int) -> bool:
    """Return whether the day's budget has room for what a higher offer may cost more."""
    most = lane.settings.daily_budget_wei
    if most is None:
        return True
    before = max(attempt.gas_limit * attempt.cap_wei for attempt in one.attempts)
    return await budget.used_wei(session, lane) + max(0, cost_wei - before) <= most


async def _leave(
    lane: Lane, lease: Lease, kind: UnitKind, tx_id: UUID, reason: str, did: Did
) -> None:
    """Say why a planned transaction is not signed; drop it when another account can carry it."""
    if not lane.shares(kind):
        await _say(lane, lease, tx_id, reason)
        return
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, tx_id, "planned")
        if tx is not None:
            await drop(session, tx, lane.now(), f"left to another account: {reason}")
            did.dropped += 1


def _why(lane: Lane, kind: UnitKind, lowest: Held, quote: Quote) -> str | None:
    """Return why the last attempt should be outbid, None while it should be waited for."""
    last = lowest.last
    turn = len(lowest.attempts) - 1
    if last.state == "rejected":
        since = lane.now() - (last.last_sent_at or last.created_at)
        wait_s = 0.0 if turn == 0 else doubled(1.0, turn, lane.settings.resend_most_s)
        if since < timedelta(seconds=wait_s):
            return None
        too_little = (last.rejected_reason or "").startswith(IntrinsicGasTooLow.__name__)
        return "gas" if too_little else "refused"
    if last.sent_at is None:
        return None  # whether anybody took it is open: the same bytes again
    age = lane.now() - last.sent_at
    if age >= timedelta(seconds=doubled(kind.stuck_after_s, turn, lane.settings.stuck_most_s)):
        return "stuck"
    soon_s = doubled(lane.settings.underpriced_after_s, turn, lane.settings.stuck_most_s)
    if age >= timedelta(seconds=soon_s) and is_underpriced(Fees(last.tip_wei, last.cap_wei), quote):
        return "underpriced"
    return None


async def _signature(
    lane: Lane, nonce: int, call: Call, limit: int, fees: Fees
) -> SignedTransaction:
    return await lane.signer.sign(
        {
            "type": 2,
            "chainId": lane.chain.chain_id,
            "nonce": nonce,
            "to": lane.chain.address(call.to),
            "data": call.data,
            "value": call.value,
            "gas": limit,
            "maxFeePerGas": fees.cap_wei,
            "maxPriorityFeePerGas": fees.tip_wei,
        }
    )


def _attempt(
    session: AsyncSession,
    lane: Lane,
    tx: TransactionRow,
    n: int,
    signed: SignedTransaction,
    fees: Fees,
    limit: int,
    *,
    is_cancel: bool,
) -> None:
    session.add(
        AttemptRow(
            tx_id=tx.id,
            n=n,
            raw=signed.raw,
            hash=signed.hash,
            gas_limit=limit,
            tip_wei=fees.tip_wei,
            cap_wei=fees.cap_wei,
            is_cancel=is_cancel,
            state="signed",
            created_at=lane.now(),
            sends=0,
        )
    )


async def _say(lane: Lane, lease: Lease, tx_id: UUID, reason: str) -> bool:
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, tx_id, "planned", "signed", "sent")
        return tx is not None and ledger.wait_for(session, tx, lane.now(), reason)


async def _data_fee(lane: Lane, calldata: bytes) -> int | None:
    """Return what the data would cost outside the gas, in wei; None where that is free."""
    if lane.memory.has_oracle is None:
        lane.memory.has_oracle = bool(await lane.chain.code(ORACLE))
    if not lane.memory.has_oracle:
        return None
    data = _ORACLE_ABI.encode("getL1Fee", _ENVELOPE + calldata)
    try:
        output = await lane.chain.call(ORACLE, data)
    except TransactionReverted:
        return None
    (fee,) = _ORACLE_ABI.decode_result("getL1Fee", output)
    return int(str(fee))


async def _transfer_gas(lane: Lane, kind: UnitKind) -> int:
    """Return the gas limit of a transfer to ourselves; rollups may ask more than 21000."""
    try:
        gas = await lane.chain.estimate_gas(lane.sender, lane.sender, b"")
    except TransactionReverted:
        return _TRANSFER_GAS  # an account with code may refuse it; reverted is as good
    return max(_TRANSFER_GAS, gas if gas <= _TRANSFER_GAS else gas_limit(gas, kind.gas_buffer_ppm))
