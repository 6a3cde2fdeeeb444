"""Step 6, review: what becomes of units whose transaction ended without doing them.

Each unit is looked up at a block that is deep enough; a unit is only given back when the nonce of
its transaction is spent for good by something that did not do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select

from causeway.relayer import ledger
from causeway.relayer.judging import carry_out, judge_at, settled_only
from causeway.relayer.kind import Unit, UnitKind
from causeway.relayer.lane import Did, Lane, Sight
from causeway.relayer.models import ReceiptRow, TransactionRow, UnitRow
from causeway.relayer.states import TO_REVIEW
from causeway.store.lease import Lease


async def to_review(lane: Lane) -> list[TransactionRow]:
    """Return transactions that ended and still hold units."""
    async with lane.database.transaction() as session:
        bound = select(UnitRow.tx_id).where(UnitRow.state == "bound")
        rows = await session.scalars(
            select(TransactionRow)
            .where(
                TransactionRow.chain_id == lane.chain.chain_id,
                TransactionRow.sender == lane.sender,
                TransactionRow.state.in_(TO_REVIEW),
                TransactionRow.id.in_(bound),
            )
            .order_by(TransactionRow.nonce)
        )
        return list(rows)


async def review(lane: Lane, sight: Sight, lease: Lease, tx: TransactionRow, did: Did) -> None:
    """Settle, give back or fail every unit of a transaction that ended without doing its work."""
    kind = lane.kind(tx.app, tx.kind)
    async with lane.database.transaction() as session:
        units = await ledger.bound_units(session, tx.id)
        receipt = await session.get(ReceiptRow, tx.id)
    depth = await sight.depth(kind.finality)
    if depth is None:
        return
    at = depth if receipt is None else max(depth, receipt.block_number)
    verdict = settled_only(await judge_at(lane, kind, units, at))
    now = lane.now()
    async with lane.commit(lease) as session:
        locked = await ledger.locked(session, tx.id, *TO_REVIEW)
        if locked is None:
            return
        await carry_out(session, lane, kind, units, verdict, did, state="bound")
        rest = [u for u in units if u.key not in verdict.done and u.key not in verdict.other]
        rows = await ledger.locked_units(session, [unit.id for unit in rest], "bound")
        for row in rows.values():
            row.attempts += 1
            row.reverts += tx.state == "reverted"
            reason = _reason(tx)
            if tx.state == "reverted" and _is_hopeless(kind, row, rest, units):
                await ledger.fail(session, kind, row, reason, now)
                did.failed += 1
                continue
            # A little longer each time, so that nothing loops at the speed of blocks.
            pause = timedelta(seconds=lane.settings.recheck_s * (row.reverts**2))
            ledger.release(row, now, now + pause, reason)
            did.released += 1
        ledger.record(
            session,
            locked,
            now,
            "reviewed",
            settled=len(units) - len(rest),
            released=len(rows),
            block=at,
        )


def _reason(tx: TransactionRow) -> str:
    said = (tx.error or {}).get("reason")
    return f"its transaction was {tx.state}" + (f": {said}" if said else "")


def _is_hopeless(
    kind: UnitKind, row: UnitRow, rest: Sequence[Unit], carried: Sequence[Unit]
) -> bool:
    return row.reverts >= kind.max_reverts and len(rest) == len(carried) == 1
