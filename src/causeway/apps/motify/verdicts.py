"""The verdicts on a challenge: of each participant ratio, days, share, and where it is on chain.

What a provider answered in full, and whose account it was, only the participant gets to see, as
evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.models import (
    ChainChallenge,
    FinishedParticipant,
    Reading,
    Score,
    Settlement,
)
from causeway.apps.motify.rules import goal_for, goal_of_rule
from causeway.apps.motify.shares import BasisPoints
from causeway.base.clock import iso
from causeway.base.errors import NotFound


async def verdicts(
    ctx: MotifyContext, challenge_id: int, *, after: str | None, limit: int
) -> dict[str, Any]:
    """Return a page of verdicts in the order of addresses; none before they are frozen.

    `NotFound` for a challenge that nobody made.
    """
    async with ctx.database.sessions() as session:
        settlement = await session.scalar(
            select(Settlement).where(
                Settlement.chain_id == ctx.settings.chain_id,
                Settlement.contract_address == ctx.settings.contract,
                Settlement.challenge_id == challenge_id,
            )
        )
        if settlement is None:
            await _require_known(session, ctx, challenge_id)
            return {"challenge_id": str(challenge_id), "status": "open", "results": []}
        rows = await _page(session, settlement, after, limit + 1)
        finished = await _finished(session, settlement, [row.wallet for row in rows])
    goal = goal_for(settlement.terms) if settlement.rule is None else goal_of_rule(settlement.rule)
    page = rows[:limit]
    return {
        "challenge_id": str(challenge_id),
        "status": settlement.status,
        "rule": settlement.rule,
        "days": [] if goal is None else [str(day) for day in goal.days],
        "evidence_root": settlement.evidence_root,
        "finalize_tx_hash": settlement.finalize_tx,
        "results": [_verdict(row, finished.get(row.wallet)) for row in page],
        "next_cursor": page[-1].wallet if len(rows) > limit else None,
    }


async def _page(
    session: AsyncSession, settlement: Settlement, after: str | None, limit: int
) -> Sequence[Any]:
    """Return decided participants; whose joining was undone is none."""
    decided: list[ColumnElement[bool]] = [
        Score.settlement_id == settlement.id,
        func.coalesce(Score.bps, Score.declared_bps).is_not(None),
    ]
    if after is not None:
        decided.append(Score.wallet > after)
    rows = await session.execute(
        select(
            Score.wallet,
            Score.stake,
            Score.numerator,
            Score.denominator,
            Score.percent_ppm,
            Score.bps,
            Score.reason,
            Score.batch_no,
            Score.declared_bps,
            Score.declared_tx,
            Reading.provider,
            Reading.asked,
            Reading.read_at,
            Reading.chain_time,
            Reading.days,
            Reading.total,
        )
        .outerjoin(Reading, Reading.id == Score.reading_id)
        .where(*decided)
        .order_by(Score.wallet)
        .limit(limit)
    )
    return rows.all()


async def _finished(
    session: AsyncSession, settlement: Settlement, wallets: list[str]
) -> dict[str, FinishedParticipant]:
    rows = await session.scalars(
        select(FinishedParticipant).where(
            FinishedParticipant.chain_id == settlement.chain_id,
            FinishedParticipant.contract_address == settlement.contract_address,
            FinishedParticipant.challenge_id == settlement.challenge_id,
            FinishedParticipant.participant_address.in_(wallets),
        )
    )
    return {one.participant_address: one for one in rows}


def _verdict(row: Any, finished: FinishedParticipant | None) -> dict[str, Any]:
    bps = row.bps if row.declared_bps is None else row.declared_bps
    reason, tx_hash = row.reason, row.declared_tx
    if finished is not None:
        # What the chain has in the end: a timeout refund takes the place of what was decided.
        bps, reason = finished.percent_ppm // 100, finished.reason
        tx_hash = finished.tx_hash or tx_hash
    share, stake = BasisPoints(bps), int(row.stake)
    return {
        "wallet": row.wallet,
        "stake_minor_units": str(stake),
        "ratio": None
        if row.numerator is None
        else {"numerator": str(row.numerator), "denominator": str(row.denominator)},
        "decided_ppm": row.percent_ppm,
        "decided_bps": row.bps,
        "bps": bps,
        "refund_minor_units": str(share.refund(stake)),
        "donation_minor_units": str(share.donation(stake)),
        "reason": reason,
        "batch_no": row.batch_no,
        "declared": row.declared_bps is not None or finished is not None,
        "tx_hash": tx_hash,
        "reading": _reading(row),
    }


def _reading(row: Any) -> dict[str, Any] | None:
    if row.provider is None:
        return None
    return {
        "provider": row.provider,
        "asked": row.asked,
        "read_at": iso(row.read_at),
        "chain_time": row.chain_time,
        "days": row.days,
        "total": None if row.total is None else str(row.total),
    }


async def _require_known(session: AsyncSession, ctx: MotifyContext, challenge_id: int) -> None:
    known = await session.scalar(
        select(ChainChallenge.challenge_id).where(
            ChainChallenge.chain_id == ctx.settings.chain_id,
            ChainChallenge.contract_address == ctx.settings.contract,
            ChainChallenge.challenge_id == challenge_id,
        )
    )
    if known is None:
        raise NotFound(f"challenge {challenge_id} is not known")
