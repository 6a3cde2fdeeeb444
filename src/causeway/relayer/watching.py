"""Steps 4 and 5, watch and confirm: what the chain says became of our nonces, until it is final.

A receipt counts for nothing until its block is as deep as the kind asks; then block and receipt
are read again, and the units, the transaction and the app's own rows change in one commit.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import TransactionReverted
from causeway.base.faults import fault_point
from causeway.chains.settling import Receipt
from causeway.relayer import ledger
from causeway.relayer.kind import MinedBatch, SettledBatch, UnitKind
from causeway.relayer.lane import Did, Lane, Sight, alarm
from causeway.relayer.ledger import Held
from causeway.relayer.models import AttemptRow, ReceiptRow, TransactionRow
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)


async def find_receipt(lane: Lane, one: Held) -> tuple[AttemptRow, Receipt] | None:
    """Return the receipt of whichever attempt was mined; None when none is, as far as is known."""
    receipts = await asyncio.gather(*(lane.chain.receipt(a.hash) for a in one.attempts))
    for attempt, receipt in zip(one.attempts, receipts, strict=True):
        if receipt is not None:
            return attempt, receipt
    return None


async def watch_unmined(lane: Lane, sight: Sight, lease: Lease, one: Held, did: Did) -> None:
    """Look for the receipt of a nonce that is spent, and notice when it was not ours."""
    if one.nonce >= sight.mined:
        lane.memory.sightings.pop(one.tx.id, None)
        return
    found = await find_receipt(lane, one)
    if found is not None:
        lane.memory.sightings.pop(one.tx.id, None)
        await _mined(lane, lease, one, *found, did)
        return
    kind = lane.kind(one.tx.app, one.tx.kind)
    depth = await sight.depth(kind.finality)
    if depth is None or not await _spent_by_another(lane, one, depth):
        return
    # Seen again and again, because a provider that lost its index would say the same.
    seen = lane.memory.sightings.get(one.tx.id, 0) + 1
    lane.memory.sightings[one.tx.id] = seen
    if seen < lane.settings.lost_sightings:
        return
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "signed", "sent")
        if tx is None:
            return
        ledger.move(session, tx, lane.now(), "lost", depth=depth)
        tx.error = {"reason": f"another transaction took nonce {one.nonce}"}
    alarm(
        "key_used_elsewhere",
        "relayer_nonce_lost",
        account=lane.sender,
        chain=lane.chain.name,
        nonce=one.nonce,
        transaction_id=str(one.tx.id),
    )
    did.ended += 1


async def _spent_by_another(lane: Lane, one: Held, depth: int) -> bool:
    """Return whether an endpoint that has block `depth` knows the nonce spent and none of ours."""
    hashes = [attempt.hash for attempt in one.attempts]
    count = await lane.chain.nonce_without(lane.sender, depth, hashes)
    return count is not None and count > one.nonce


async def _mined(
    lane: Lane, lease: Lease, one: Held, attempt: AttemptRow, receipt: Receipt, did: Did
) -> None:
    fault_point("relayer.mined_unrecorded")
    kind = lane.kind(one.tx.app, one.tx.kind)
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "signed", "sent")
        if tx is None:
            return
        mined = await ledger.locked_attempt(session, attempt)
        mined.state = "mined"
        mined.sent_at = mined.sent_at or lane.now()
        session.add(receipt_row(one, attempt, receipt))
        ledger.move(
            session,
            tx,
            lane.now(),
            "mined",
            hash=attempt.hash,
            block=receipt.block_number,
            block_hash=receipt.block_hash,
            status=receipt.status,
        )
        await _tell_mined(session, kind, tx, attempt, receipt)
    fault_point("relayer.mined")
    did.mined += 1


def receipt_row(one: Held, attempt: AttemptRow, receipt: Receipt) -> ReceiptRow:
    """Return the row that keeps a receipt."""
    return ReceiptRow(
        tx_id=one.tx.id,
        attempt_n=attempt.n,
        transaction_hash=attempt.hash,
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
        status=receipt.status,
        gas_used=receipt.gas_used,
        effective_gas_price_wei=receipt.effective_gas_price,
        l1_fee_wei=receipt.l1_fee,
    )


async def watch_mined(lane: Lane, sight: Sight, lease: Lease, one: Held, did: Did) -> None:
    """See whether a mined transaction is still where it was, and confirm it when it is final."""
    before = one.receipt
    assert before is not None  # noqa: S101 - written in the commit that made it `mined`
    found = await find_receipt(lane, one)
    if found is None:
        block = await lane.chain.block(before.block_number)
        if block is None or block.hash != before.block_hash:
            await _unmined(lane, lease, one, before, did)
        return  # otherwise the provider only lost its index: the block is where it was
    attempt, receipt = found
    if (attempt.n, receipt.block_hash) != (before.attempt_n, before.block_hash):
        await _moved(lane, lease, one, attempt, receipt, did)
        return
    kind = lane.kind(one.tx.app, one.tx.kind)
    depth = await sight.depth(kind.finality)
    if depth is None or receipt.block_number > depth:
        return
    block = await lane.chain.block(receipt.block_number)
    if block is None or block.hash != receipt.block_hash:
        return  # being replaced just now: the next look tells
    if receipt.status == 0:
        await _reverted(lane, lease, kind, one, attempt, receipt, did)
    elif attempt.is_cancel:
        await _cancelled(lane, lease, one, did)
    else:
        await _confirmed(lane, lease, kind, one, attempt, receipt, did)


async def _unmined(lane: Lane, lease: Lease, one: Held, before: ReceiptRow, did: Did) -> None:
    """A reorg took it out: the same bytes go out again at once."""
    kind = lane.kind(one.tx.app, one.tx.kind)
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "mined")
        if tx is None:
            return
        await take_out(session, lane, tx, one, before)
        await tell_unmined(session, kind, tx, one, before)
    _log.warning("relayer_reorged_out", transaction_id=str(one.tx.id), block=before.block_number)
    did.unmined += 1


async def take_out(
    session: AsyncSession, lane: Lane, tx: TransactionRow, one: Held, before: ReceiptRow
) -> None:
    """Bring a locked transaction back to `sent`, its bytes due at once."""
    await session.delete(await session.get_one(ReceiptRow, tx.id))
    for attempt in one.attempts:
        row = await ledger.locked_attempt(session, attempt)
        if row.state == "mined" or row.n == one.last.n:
            row.state = "signed"
            row.sent_at = row.last_sent_at = row.sent_block = None
    tx.mined_at = tx.confirmed_at = None
    ledger.move(
        session, tx, lane.now(), "sent", reorg_of=before.block_hash, block=before.block_number
    )


async def tell_unmined(
    session: AsyncSession, kind: UnitKind, tx: TransactionRow, one: Held, before: ReceiptRow
) -> None:
    """Tell the kind that its units are in no block any more."""
    attempt = next(a for a in one.attempts if a.n == before.attempt_n)
    if kind.on_unmined is None or before.status != 1 or attempt.is_cancel:
        return
    units = tuple(await ledger.bound_units(session, tx.id))
    place = (before.block_number, before.block_hash)
    await session.flush()
    await kind.on_unmined(session, MinedBatch(units, ledger.carrier(tx, attempt.hash), *place))


async def _tell_mined(
    session: AsyncSession,
    kind: UnitKind,
    tx: TransactionRow,
    attempt: AttemptRow,
    receipt: Receipt,
) -> None:
    if kind.on_mined is None or receipt.status != 1 or attempt.is_cancel:
        return
    units = tuple(await ledger.bound_units(session, tx.id))
    place = (receipt.block_number, receipt.block_hash)
    await session.flush()
    await kind.on_mined(session, MinedBatch(units, ledger.carrier(tx, attempt.hash), *place))


async def _moved(
    lane: Lane, lease: Lease, one: Held, attempt: AttemptRow, receipt: Receipt, did: Did
) -> None:
    """A reorg put it into another block, or another attempt in its place."""
    kind = lane.kind(one.tx.app, one.tx.kind)
    before = one.receipt
    assert before is not None  # noqa: S101 - it was mined
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "mined")
        if tx is None:
            return
        await tell_unmined(session, kind, tx, one, before)
        await session.delete(await session.get_one(ReceiptRow, tx.id))
        await session.flush()
        session.add(receipt_row(one, attempt, receipt))
        (await ledger.locked_attempt(session, attempt)).state = "mined"
        ledger.record(
            session,
            tx,
            lane.now(),
            "moved",
            hash=attempt.hash,
            block=receipt.block_number,
            block_hash=receipt.block_hash,
            status=receipt.status,
        )
        await _tell_mined(session, kind, tx, attempt, receipt)
    did.mined += 1


async def _confirmed(
    lane: Lane,
    lease: Lease,
    kind: UnitKind,
    one: Held,
    attempt: AttemptRow,
    receipt: Receipt,
    did: Did,
) -> None:
    now = lane.now()
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "mined")
        if tx is None:
            return
        ledger.move(session, tx, now, "confirmed", hash=attempt.hash, block=receipt.block_number)
        units = await ledger.bound_units(session, tx.id, lock=True)
        rows = await ledger.locked_units(session, [unit.id for unit in units], "bound")
        batch = SettledBatch(
            tuple(units),
            "confirmed",
            tx=ledger.carrier(tx, attempt.hash),
            receipt=receipt,
            hashes={unit.key: attempt.hash for unit in units},
        )
        await ledger.settle(session, kind, rows, batch, now)
        fault_point("relayer.confirming")
    fault_point("relayer.confirmed")
    did.ended += 1
    did.settled += len(units)


async def _cancelled(lane: Lane, lease: Lease, one: Held, did: Did) -> None:
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "mined")
        if tx is not None:
            ledger.move(session, tx, lane.now(), "cancelled")
            did.ended += 1


async def _reverted(
    lane: Lane,
    lease: Lease,
    kind: UnitKind,
    one: Held,
    attempt: AttemptRow,
    receipt: Receipt,
    did: Did,
) -> None:
    if attempt.is_cancel:  # its nonce is spent, which is all it was for
        await _cancelled(lane, lease, one, did)
        return
    reason, name = await _why_reverted(lane, kind, one, attempt, receipt)
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "mined")
        if tx is None:
            return
        tx.error = {"reason": reason, "error": name}
        ledger.move(session, tx, lane.now(), "reverted", reason=reason, gas_used=receipt.gas_used)
    alarm("reverted", "relayer_reverted", kind=kind.label, hash=attempt.hash, reason=reason)
    did.ended += 1


async def _why_reverted(
    lane: Lane, kind: UnitKind, one: Held, attempt: AttemptRow, receipt: Receipt
) -> tuple[str, str | None]:
    """Return the reason in the contract's words: what the chain says, or what it says once more."""
    if receipt.revert_reason is not None:
        return receipt.revert_reason, receipt.revert_reason
    if receipt.gas_used * 64 >= attempt.gas_limit * 63:
        return f"it ran out of its {attempt.gas_limit} gas", None
    try:
        await lane.chain.call(
            one.tx.to_address,
            one.tx.calldata,
            sender=lane.sender,
            at=receipt.block_number - 1,
        )
    except TransactionReverted as error:
        known = error if kind.abi is None else kind.abi.explain(error)
        return str(known), known.error_name
    return "it reverted because of what came before it in its block", None
