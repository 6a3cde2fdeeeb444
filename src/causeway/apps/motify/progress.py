"""How far a participant is, day by day, from the readings of each day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.goals import Goal, Measure, Quantity
from causeway.apps.motify.models import (
    ChainChallenge,
    ChainParticipant,
    Reading,
    Score,
    Settlement,
)
from causeway.apps.motify.reading import utc_date
from causeway.apps.motify.rules import goal_for
from causeway.base.clock import iso
from causeway.base.errors import NotFound

#: Of coding time a microsecond is counted, and a second is shown.
_MICROSECONDS = 1_000_000


async def progress_of(ctx: MotifyContext, challenge_id: int, wallet: str) -> dict[str, Any]:
    """Return the days that were read so far; `NotFound` for who does not take part.

    `achieved` is about the day where the goal is one for each day; where only the sum counts, it
    says whether the goal was reached by then. `currentlySucceeded`: nothing is lost so far, or
    the sum is reached. Coding time is in seconds.
    """
    async with ctx.database.sessions() as session:
        row = (
            await session.execute(
                select(Settlement, Score.id)
                .join(Score, Score.settlement_id == Settlement.id)
                .where(*_here(ctx, challenge_id), Score.wallet == wallet)
            )
        ).one_or_none()
        if row is None:
            await _require_part(session, ctx, challenge_id, wallet)
            return _nothing()
        settlement, score_id = row
        newest = await session.scalar(
            select(Reading)
            .where(Reading.score_id == score_id)
            .order_by(Reading.chain_time.desc(), Reading.read_at.desc())
            .limit(1)
        )
    goal = goal_for(settlement.terms)
    if goal is None or newest is None:
        return _nothing()
    values = {date.fromisoformat(day): value for day, value in newest.days.items()}
    total = None if newest.total is None else int(newest.total)
    return view(goal, values, total, utc_date(newest.chain_time)) | {"read_at": iso(newest.read_at)}


def view(goal: Goal, values: Mapping[date, int], total: int | None, today: date) -> dict[str, Any]:
    """Return the days of a reading that was made on `today`, which may not be over."""
    unit = _MICROSECONDS if goal.quantity is Quantity.CODING_SECONDS else 1
    target = goal.day_target()
    known = [day for day in goal.days if day in values and day <= today]
    reached = goal.ratio(values, total).is_whole
    days: list[dict[str, Any]] = []
    so_far = 0
    for day in known:
        so_far += values[day]
        if target is not None:
            achieved = values[day] >= target
        elif total is None:
            achieved = so_far >= goal.amount * goal.unit
        else:
            # The days count something else than the sum does.
            achieved = reached and day == known[-1]
        days.append({"date": str(day), "achieved": achieved, "value": values[day] // unit})
    if goal.measure is Measure.DAYS:
        over = [day for day in known if day < today]
        succeeded = bool(known) and all(values[day] >= goal.amount for day in over)
    else:
        succeeded = reached
    return {"progress": days, "currentlySucceeded": succeeded}


def _nothing() -> dict[str, Any]:
    return {"progress": [], "currentlySucceeded": False}


def _here(ctx: MotifyContext, challenge_id: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Settlement.chain_id == ctx.settings.chain_id,
        Settlement.contract_address == ctx.settings.contract,
        Settlement.challenge_id == challenge_id,
    )


async def _require_part(
    session: AsyncSession, ctx: MotifyContext, challenge_id: int, wallet: str
) -> None:
    """Raise `NotFound` unless a wallet has joined a challenge that has not begun."""
    joined = await session.scalar(
        select(ChainParticipant.participant_address).where(
            ChainParticipant.chain_id == ctx.settings.chain_id,
            ChainParticipant.contract_address == ctx.settings.contract,
            ChainParticipant.challenge_id == challenge_id,
            ChainParticipant.participant_address == wallet,
        )
    )
    if joined is not None:
        return
    known = await session.scalar(
        select(ChainChallenge.challenge_id).where(
            ChainChallenge.chain_id == ctx.settings.chain_id,
            ChainChallenge.contract_address == ctx.settings.contract,
            ChainChallenge.challenge_id == challenge_id,
        )
    )
    if known is None:
        raise NotFound(f"challenge {challenge_id} is not known")
    raise NotFound(f"{wallet} does not take part in challenge {challenge_id}")
