"""What ended is watched on until no reorg can change it: a deeper one than the kind waits for.

A confirmed transaction that is in no block any more is open again with the units it settled, and
its app is told. Whatever else ended at a nonce that is unspent again is sent again as it was, so
that no later nonce waits behind a gap for ever.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import TransientError
from causeway.chains.errors import RpcError
from causeway.chains.settling import Receipt
from causeway.relayer import ledger
from causeway.relayer.lane import Did, Lane, Sight, alarm
from causeway.relayer.ledger import Held
from causeway.relayer.models import AttemptRow, ReceiptRow, TransactionRow, UnitRow
from causeway.relayer.states import ENDED
from causeway.relayer.watching import find_receipt, receipt_row, take_out, tell_unmined
from causeway.store.lease import Lease


async def watch_ended(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    """Look at everything that ended and is not final yet."""
    async with lane.database.transaction() as session:
        found = await ledger.held(session, lane, *ENDED, not_final=True)
    if not found:
        return
    final = await _final_block(lane, sight)
    numbers = sorted({one.receipt.block_number for one in found if one.receipt is not None})
    blocks = dict(zip(numbers, await lane.chain.look(*numbers), strict=True)) if numbers else {}
    for one in found:
        receipt = one.receipt
        block = None if receipt is None else blocks[receipt.block_number]
        in_place = receipt is not None and block is not None and block.hash == receipt.block_hash
        if receipt is not None and in_place:
            if receipt.block_number <= final:
                await _call_final(lane, lease, one)
        elif one.tx.state == "confirmed":
            await _find_again(lane, lease, one, did)
        elif one.nonce >= sight.mined:
            await _fill_gap(lane, one)
        elif lane.now() - one.tx.updated_at > timedelta(seconds=lane.settings.lost_watch_s):
            await _call_final(lane, lease, one)


async def _final_block(lane: Lane, sight: Sight) -> int:
    found = await sight.depth("finalized")
    return sight.head.number - lane.settings.final_depth if found is None else found


async def _call_final(lane: Lane, lease: Lease, one: Held) -> None:
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, *ENDED)
        if tx is not None:
            tx.final_at = lane.now()


async def _find_again(lane: Lane, lease: Lease, one: Held, did: Did) -> None:
    """Follow a confirmed transaction to where the reorg put it, or open it again."""
    before = one.receipt
    assert before is not None  # noqa: S101 - it was confirmed by it
    found = await find_receipt(lane, one)
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "confirmed")
        if tx is None:
            return
        if found is not None and _did_the_same(one, *found):
            await _follow(session, lane, tx, one, *found)
            return
        await take_out(session, lane, tx, one, before)
        await _unsettle(session, tx)
        kind = lane.kind(tx.app, tx.kind)
        await tell_unmined(session, kind, tx, one, before)
    alarm(
        "reorg_after_confirmed",
        "relayer_reorg_after_confirmed",
        kind=kind.label,
        transaction_id=str(one.tx.id),
        block=before.block_number,
    )
    did.unmined += 1


def _did_the_same(one: Held, attempt: AttemptRow, receipt: Receipt) -> bool:
    """Return whether it did in its new block what it did before, under the same hash."""
    before = one.receipt
    return before is not None and attempt.n == before.attempt_n and receipt.status == before.status


async def _follow(
    session: AsyncSession,
    lane: Lane,
    tx: TransactionRow,
    one: Held,
    attempt: AttemptRow,
    receipt: Receipt,
) -> None:
    await session.delete(await session.get_one(ReceiptRow, tx.id))
    await session.flush()
    session.add(receipt_row(one, attempt, receipt))
    place = {"block": receipt.block_number, "block_hash": receipt.block_hash}
    ledger.record(session, tx, lane.now(), "moved", hash=attempt.hash, **place)


async def _unsettle(session: AsyncSession, tx: TransactionRow) -> None:
    """Owe the units again that this transaction settled, unless they were filed anew since."""
    settled = await session.scalars(
        select(UnitRow)
        .where(UnitRow.tx_id == tx.id, UnitRow.state == "settled")
        .order_by(UnitRow.id)
        .with_for_update()
    )
    rows = list(settled)
    refiled = set(
        await session.scalars(
            select(UnitRow.unit_key).where(
                UnitRow.unit_key.in_([row.unit_key for row in rows]),
                UnitRow.state.in_(("pending", "bound")),
            )
        )
    )
    for row in rows:
        if row.unit_key not in refiled:
            row.state = "bound"
            row.settled_cause = row.settled_hash = None
            row.updated_at = tx.updated_at
    await session.flush()


async def _fill_gap(lane: Lane, one: Held) -> None:
    """Send bytes again whose nonce a reorg gave back; what they may not do, the chain refuses."""
    try:
        await lane.chain.send_raw(one.last.raw)
    except (TransientError, RpcError):
        return  # looked at again at the next turn
