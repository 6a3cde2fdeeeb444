"""Stage `measure`: ask the provider about one participant, and keep what it said.

During a challenge each participant is read once a day, after the day is over: a provider that
forgets old days cannot take them away, and work that is dated back later can be told. After the
end readings are repeated until grace is over, and the best of them counts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import counting
from causeway.apps.motify.chain_time import final_block, seconds
from causeway.apps.motify.context import ELSEWHERE_S, MotifyContext, is_here
from causeway.apps.motify.goals import Goal, Provider
from causeway.apps.motify.models import Reading, Settlement
from causeway.apps.motify.reading import NotRead, Read, read, utc_date
from causeway.apps.motify.reminding import key_of, remind, remind_all
from causeway.apps.motify.rules import goal_for
from causeway.apps.motify.settings import MotifySettings
from causeway.apps.motify.shares import Ratio
from causeway.apps.motify.troubles import Trouble
from causeway.base.faults import fault_point
from causeway.base.ids import uuid7
from causeway.pipelines.stage import Advance, Claim, Outcome, Record, Retry

#: The next day's reading is made this long after midnight UTC, in chain time.
_AFTER_MIDNIGHT_S = 600
#: A goal for each day is read once more at this time of day, while it can still be reached.
_EVENING_S = 20 * 3600
#: Readings between the end and the end of grace.
_READINGS_IN_GRACE = 6
#: Longest pause between two tries at a provider that is away, seconds.
_MOST_PAUSE_S = 900.0


@dataclass(frozen=True)
class Known:
    """What earlier readings of a participant say."""

    #: By day, as the newest reading has it.
    days: dict[date, int]
    #: By day, as the first reading after its end had it.
    first: dict[date, int]


async def measure(ctx: MotifyContext, claim: Claim) -> Outcome:
    """Read one participant once; the outcome says when to read again, if at all."""
    row = claim.row
    async with ctx.database.sessions() as session:
        settlement = await session.get_one(Settlement, row["settlement_id"])
        known = await known_days(session, claim.key)
    if not is_here(ctx, settlement):
        return Retry(ELSEWHERE_S, "it is of another contract than the one configured", counts=False)
    now = seconds(await final_block(ctx))
    goal = goal_for(settlement.terms)
    if settlement.status not in ("live", "measuring"):
        return Retry(60, f"the challenge is {settlement.status}", counts=False)
    if goal is None:
        return Advance(values=_found(row, Trouble.UNSCORABLE, "nobody defined this goal"))
    found = await read(ctx, goal, row["wallet"], utc_date(now), known.days)
    fault_point("motify.read")
    if isinstance(found, NotRead):
        return _not_read(ctx, settlement, row, found, now)
    return _read(ctx.settings, settlement, goal, row, found, known, now)


async def known_days(session: AsyncSession, score_id: UUID) -> Known:
    """Return what was read before of days that were over by then."""
    days: dict[date, int] = {}
    first: dict[date, int] = {}
    readings = await session.execute(
        select(Reading.days, Reading.chain_time)
        .where(Reading.score_id == score_id)
        .order_by(Reading.chain_time, Reading.read_at)
    )
    for values, chain_time in readings:
        today = utc_date(chain_time)
        for name, value in values.items():
            day = date.fromisoformat(name)
            if day < today:
                days[day] = value
                first.setdefault(day, value)
    return Known(days, first)


def _read(
    settings: MotifySettings,
    settlement: Settlement,
    goal: Goal,
    row: Mapping[str, Any],
    found: Read,
    known: Known,
    now: int,
) -> Outcome:
    ratio = counting.ratio(goal, found.count, known.days)
    best = ratio_of(row)
    is_better = best is None or ratio.at_least(best)
    reading_id = uuid7()
    days = {**known.days, **found.count.days}
    reading = Reading(
        id=reading_id,
        score_id=row["id"],
        chain_time=now,
        provider=goal.provider.value,
        account=found.account,
        asked=found.asked,
        answered=found.answered,
        days={str(day): value for day, value in sorted(days.items())},
        total=found.count.total,
        numerator=ratio.numerator,
        denominator=ratio.denominator,
    )

    async def record(session: AsyncSession) -> None:
        session.add(reading)
        if found.is_back:
            await _hurry(session, goal.provider)
        await _remind_behind(session, settlement, goal, row["wallet"], days, now)

    values: dict[str, Any] = _found(row, None, None)
    if is_better:
        values |= {
            "numerator": ratio.numerator,
            "denominator": ratio.denominator,
            "reading_id": reading_id,
        }
        best = ratio
    assert best is not None  # noqa: S101 (the type checker's sake)
    per_day = goal.day_target() is not None
    again_at = next_reading(settings, settlement.end_time, now, per_day=per_day)
    if again_at is None or (best.is_whole and now >= settlement.end_time):
        return Advance(values=values, record=record)
    return Advance("resting", values={**values, "again_at": again_at}, record=record)


def _not_read(
    ctx: MotifyContext,
    settlement: Settlement,
    row: Mapping[str, Any],
    found: NotRead,
    now: int,
) -> Outcome:
    settings = ctx.settings
    values = _found(row, found.trouble, found.why)
    end = settlement.end_time
    over = now >= settings.decision_time(end)
    if now >= settings.grace_end(end):
        # The last reading that succeeded counts; who never had one is waited for, unless it is
        # for the person to mend.
        if over or row["numerator"] is not None or found.trouble.is_theirs:
            return Advance(values=values)
        return Advance("waiting", values={**values, "next_at": _later(row, found, ctx.clock.now())})
    if found.trouble.is_theirs:
        again_at = next_reading(settings, end, now)
        record = None
        if found.trouble is Trouble.REJECTED:
            record = _reminding(settlement, row["wallet"])
        return Advance("resting", values={**values, "again_at": again_at}, record=record)
    return Advance("waiting", values={**values, "next_at": _later(row, found, ctx.clock.now())})


async def _hurry(session: AsyncSession, provider: Provider) -> None:
    """Have everybody read now who waits for a provider that is back."""
    await session.execute(
        text(
            "UPDATE motify.scores s SET next_at = NULL FROM motify.settlements c "
            "WHERE s.settlement_id = c.id AND s.status = 'waiting' AND s.next_at IS NOT NULL "
            "AND lower(btrim(c.api_type)) = :provider"
        ),
        {"provider": provider.value},
    )


def _reminding(settlement: Settlement, wallet: str) -> Record:
    async def record(session: AsyncSession) -> None:
        await remind_all(session, "credentials_rejected", settlement, [wallet])

    return record


async def _remind_behind(
    session: AsyncSession,
    settlement: Settlement,
    goal: Goal,
    wallet: str,
    days: Mapping[date, int],
    now: int,
) -> None:
    """In the evening, tell who has not done what the day asks for."""
    target, today = goal.day_target(), utc_date(now)
    if target is None or now >= settlement.end_time or now % 86_400 < _EVENING_S:
        return
    if days.get(today, 0) < target:
        body = {
            "challenge_id": str(settlement.challenge_id),
            "date": str(today),
            "done": days.get(today, 0),
            "goal": target,
        }
        await remind(session, "behind_today", f"{key_of(settlement)}:{today}", {wallet: body})


def next_reading(
    settings: MotifySettings, end_time: int, now: int, *, per_day: bool = False
) -> int | None:
    """Return the chain time of the next reading; None when grace is over."""
    grace_end = settings.grace_end(end_time)
    if now >= grace_end:
        return None
    if now >= end_time:
        step = max(1, settings.scoring_grace_seconds // _READINGS_IN_GRACE)
        return min(now + step, grace_end)
    today = now // 86_400 * 86_400
    moments = [today + 86_400 + _AFTER_MIDNIGHT_S, end_time]
    if per_day and now < today + _EVENING_S:
        moments.append(today + _EVENING_S)
    return min(moments)


def _later(row: Mapping[str, Any], found: NotRead, now: datetime) -> Any:
    """Return when to try again: as the provider says, else later the longer it lasts."""
    pause_s = found.retry_after_s
    if pause_s is None:
        since = row["outcome_since"] if row["outcome"] == found.trouble else None
        lasts_s = 0.0 if since is None else (now - since).total_seconds()
        pause_s = min(_MOST_PAUSE_S, max(1.0, lasts_s / 4))
    return func.clock_timestamp() + timedelta(seconds=pause_s * random.uniform(1, 1.2))  # noqa: S311


def _found(row: Mapping[str, Any], trouble: Trouble | None, why: str | None) -> dict[str, Any]:
    """Return the columns that say what a try ended in, and since when it has."""
    outcome = trouble.value if trouble else None
    values: dict[str, Any] = {
        "outcome": outcome,
        "detail": why[:1000] if why else None,
        "again_at": None,
    }
    if row["outcome"] != outcome:
        values["outcome_since"] = None if outcome is None else func.clock_timestamp()
    return values


def ratio_of(row: Mapping[str, Any]) -> Ratio | None:
    """Return the best ratio on a score's row."""
    if row["numerator"] is None:
        return None
    return Ratio(int(row["numerator"]), int(row["denominator"]))
