"""What an account has spent within a day, and what it may still spend.

A day is the last 24 hours, so that nothing is spent twice around midnight. What is under way counts
with the most it can cost; what is mined, with what it did cost, reverted or not.
"""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import Gauge
from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.relayer import ledger
from causeway.relayer.lane import Lane
from causeway.relayer.models import AttemptRow, ReceiptRow, TransactionRow

DAY = timedelta(hours=24)

_SPENT = Gauge(
    "causeway_relayer_spent_day_wei",
    "Spent within 24 hours, with what is under way",
    ["chain", "sender"],
)
_BUDGET = Gauge("causeway_relayer_budget_day_wei", "The most per 24 hours", ["chain", "sender"])


async def committed_wei(session: AsyncSession, lane: Lane) -> int:
    """Return the most that what is signed and not mined can cost, in wei."""
    return sum(
        max(one.gas_limit * one.cap_wei for one in held.attempts)
        + held.tx.value
        + (held.tx.data_fee_wei or 0)
        for held in await ledger.held(session, lane, "signed", "sent")
    )


async def spent_wei(session: AsyncSession, lane: Lane) -> int:
    """Return what was mined within the last day did cost: gas, data fee and value, in wei."""
    found = await session.scalar(
        select(
            func.sum(
                ReceiptRow.gas_used * ReceiptRow.effective_gas_price_wei
                + func.coalesce(ReceiptRow.l1_fee_wei, 0)
                + case(
                    ((ReceiptRow.status == 1) & ~AttemptRow.is_cancel, TransactionRow.value),
                    else_=0,
                )
            )
        )
        .select_from(ReceiptRow)
        .join(TransactionRow, TransactionRow.id == ReceiptRow.tx_id)
        .join(
            AttemptRow,
            (AttemptRow.tx_id == ReceiptRow.tx_id) & (AttemptRow.n == ReceiptRow.attempt_n),
        )
        .where(
            TransactionRow.chain_id == lane.chain.chain_id,
            TransactionRow.sender == lane.sender,
            TransactionRow.mined_at > lane.now() - DAY,
        )
    )
    return int(found or 0)


async def used_wei(session: AsyncSession, lane: Lane) -> int:
    """Return what counts against the day's budget, in wei, and show it in the metrics."""
    used = await spent_wei(session, lane) + await committed_wei(session, lane)
    _SPENT.labels(lane.chain.name, lane.sender).set(used)
    if lane.settings.daily_budget_wei is not None:
        _BUDGET.labels(lane.chain.name, lane.sender).set(lane.settings.daily_budget_wei)
    return used
