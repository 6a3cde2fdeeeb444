"""Pauses that cancel: what is planned is dropped, what waits to be mined gets a no-op instead."""

from __future__ import annotations

from sqlalchemy import select

from causeway.relayer import ledger
from causeway.relayer.filing import drop
from causeway.relayer.lane import Did, Lane
from causeway.relayer.models import TransactionRow
from causeway.relayer.pauses import Gate, gate
from causeway.store.lease import Lease


async def cancel_open(lane: Lane, lease: Lease, did: Did) -> None:
    """Have everything cancelled that is not mined, where a pause says so."""
    wanted = (
        TransactionRow.chain_id == lane.chain.chain_id,
        TransactionRow.sender == lane.sender,
        TransactionRow.state.in_(("planned", "signed", "sent")),
        TransactionRow.cancel_requested_at.is_(None),
    )
    async with lane.database.transaction() as session:
        if await session.scalar(select(TransactionRow.id).where(*wanted).limit(1)) is None:
            return
        row = await ledger.account(session, lane)
        if row is None:
            return
        apps = await session.scalars(select(TransactionRow.app).where(*wanted).distinct())
        gates = {app: await gate(session, row, app) for app in apps.all()}
    closed = {app: one for app, one in gates.items() if one.mode == "cancel-open"}
    if closed:
        await _cancel(lane, lease, closed, did)


async def _cancel(lane: Lane, lease: Lease, closed: dict[str, Gate], did: Did) -> None:
    now = lane.now()
    async with lane.commit(lease) as session:
        for tx in await session.scalars(
            select(TransactionRow)
            .where(
                TransactionRow.chain_id == lane.chain.chain_id,
                TransactionRow.sender == lane.sender,
                TransactionRow.app.in_(closed),
                TransactionRow.state.in_(("planned", "signed", "sent")),
                TransactionRow.cancel_requested_at.is_(None),
            )
            .order_by(TransactionRow.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        ):
            if tx.state == "planned":
                await drop(session, tx, now, str(closed[tx.app]))
                did.dropped += 1
            else:
                tx.cancel_requested_at = now
                ledger.record(session, tx, now, "cancel_requested", by=closed[tx.app].by)
