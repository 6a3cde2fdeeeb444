"""Stage `decide`: when everything that can be known is known, freeze the scores and owe them.

Nothing is signed here. In one transaction every participant's share, reason and evidence is
written, for ever, and the declarations are filed with the relayer; a retry finds them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from sqlalchemy import Text, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import incidents
from causeway.apps.motify.chain_time import final_block, seconds
from causeway.apps.motify.context import (
    CHAIN,
    ELSEWHERE_S,
    MotifyContext,
    contract_of,
    is_here,
)
from causeway.apps.motify.contract import Challenge
from causeway.apps.motify.freezing import archive_empty, freeze
from causeway.apps.motify.models import Score, Settlement
from causeway.apps.motify.refreshing import known_wallets
from causeway.apps.motify.rules import goal_for, rule_of
from causeway.apps.motify.settings import MILLION, TIMEOUT_S, MotifySettings
from causeway.apps.motify.troubles import Trouble
from causeway.base.faults import fault_point
from causeway.chains.protocol import Block
from causeway.pipelines.stage import Advance, Claim, Outcome, Retry

log = structlog.get_logger(__name__)

#: A challenge that waits is looked at again after this, and whenever something of it changes.
LOOK_AGAIN_S = 60.0

_TEXTS = ARRAY(Text)

WaitsFor = Literal["readings", "deadline", "operator", "sending"]


@dataclass(frozen=True)
class Standing:
    """How the undeclared participants of a challenge stand."""

    people: int
    #: Still to be read, or to be read again.
    pending: int
    #: With a ratio.
    measured: int
    unscorable: int
    #: Without a ratio, by the trouble they ended in.
    troubled: dict[Trouble, int]


async def decide(ctx: MotifyContext, claim: Claim) -> Outcome:
    """Look at one ended challenge; freeze it when it is due."""
    async with ctx.database.sessions() as session:
        settlement = await session.get_one(Settlement, claim.key)
    if not is_here(ctx, settlement):
        return Retry(ELSEWHERE_S, "it is of another contract than the one configured", counts=False)
    challenge_id = int(settlement.challenge_id)
    subject = incidents.challenge(challenge_id)
    block = await final_block(ctx)
    now = seconds(block)
    wallets = await known_wallets(ctx, challenge_id)
    challenge = await contract_of(ctx).challenge(challenge_id, block.number, wallets)
    if challenge is None or now < settlement.end_time:
        return _wait("readings", "the chain is not there yet")
    if not challenge.participants:
        return Advance("archived", record=archive_empty(ctx, settlement))
    if await _add_missing(ctx, settlement, challenge):
        return _wait("readings", "participants were missing")
    if not challenge.undeclared:
        return _frozen("declared", ctx, settlement, challenge, block)
    if now > settlement.end_time + TIMEOUT_S and settlement.late_order is None:
        return _wait("operator", "the contract's seven days are over")
    async with ctx.database.transaction() as session:
        standing = await _standing(session, settlement, challenge)
        why = await _why_wait(session, ctx.settings, settlement, standing, now, subject)
    if why is not None:
        return _wait(*why)
    if CHAIN not in ctx.relayers:
        what = "SEND_TX is off" if not ctx.settings.send_tx else "no key is set"
        return _wait("sending", f"ready to declare, and {what}")
    fault_point("motify.decided")
    return _frozen("declaring", ctx, settlement, challenge, block)


def _wait(waits_for: WaitsFor, why: str) -> Advance:
    """Stay where it is; the loop that watches the time looks at what is waited for."""
    again = func.clock_timestamp() + timedelta(seconds=LOOK_AGAIN_S)
    return Advance("measuring", {"waits_for": waits_for, "last_error": why, "next_at": again})


def _frozen(
    to: str, ctx: MotifyContext, settlement: Settlement, challenge: Challenge, block: Block
) -> Advance:
    rule = rule_of(settlement.terms, *ctx.settings.fallbacks)
    return Advance(to, {"rule": rule}, freeze(ctx, settlement, rule, challenge, block))


async def _why_wait(
    session: AsyncSession,
    settings: MotifySettings,
    settlement: Settlement,
    standing: Standing,
    now: int,
    subject: str,
) -> tuple[WaitsFor, str] | None:
    """Return what is waited for, and in words; None when it may be decided now."""
    ordered = settlement.ordered_rule is not None and "ppm" in settlement.ordered_rule
    last_moment = now >= settings.decision_time(settlement.end_time)
    if standing.unscorable and not ordered:
        await incidents.raise_incident(
            session,
            "unscorable",
            subject,
            api_type=settlement.api_type[:100],
            goal_type=settlement.goal_type[:100],
            hint="causeway motify rule: set a goal or a share",
        )
        return "operator", "nobody defined its goal: an operator must set a rule"
    await incidents.resolve(session, "unscorable", subject)
    if ordered:
        return None
    if standing.pending and not last_moment:
        return "readings", f"{standing.pending} of {standing.people} are still to be read"
    if standing.measured:
        await incidents.resolve(session, "progress_missing_for_all_participants", subject)
        return None
    # Nobody has a ratio: more likely our fault, or a provider's, than theirs.
    await incidents.raise_incident(
        session,
        "progress_missing_for_all_participants",
        subject,
        troubles={trouble.value: n for trouble, n in standing.troubled.items()},
    )
    if not last_moment:
        return "deadline", "nobody has a ratio: not decided before the deadline comes near"
    shares = {
        settings.no_connection_ppm if t is Trouble.NO_CONNECTION else settings.default_percent_ppm
        for t in standing.troubled
    }
    if shares != {MILLION}:
        return "operator", "nobody has a ratio: left to the contract's timeout refund"
    return None


async def _standing(
    session: AsyncSession, settlement: Settlement, challenge: Challenge
) -> Standing:
    rows = await session.execute(
        select(
            Score.status.in_(("waiting", "measuring", "resting")).label("pending"),
            Score.numerator.is_not(None).label("measured"),
            Score.outcome,
            func.count(),
        )
        .where(
            Score.settlement_id == settlement.id,
            # One array, however many they are.
            Score.wallet == func.any(cast([one.wallet for one in challenge.undeclared], _TEXTS)),
        )
        .group_by(text("1"), text("2"), Score.outcome)
    )
    people = pending = measured = unscorable = 0
    troubled: dict[Trouble, int] = {}
    for is_pending, is_measured, outcome, number in rows:
        people += number
        pending += number if is_pending else 0
        if is_measured:
            measured += number
        elif outcome == Trouble.UNSCORABLE:
            unscorable += number
        else:
            trouble = Trouble(outcome) if outcome else Trouble.UNAVAILABLE
            troubled[trouble] = troubled.get(trouble, 0) + number
    if goal_for(settlement.terms) is None:
        unscorable = people
    return Standing(people, pending, measured, unscorable, troubled)


async def _add_missing(ctx: MotifyContext, settlement: Settlement, challenge: Challenge) -> bool:
    """Make scores of participants that no event told of; there should be none."""
    async with ctx.database.transaction() as session:
        known = set(
            await session.scalars(select(Score.wallet).where(Score.settlement_id == settlement.id))
        )
        missing = [one for one in challenge.participants if one.wallet not in known]
        if missing:
            log.error("participants_missing", challenge=challenge.id, count=len(missing))
            session.add_all(
                Score(settlement_id=settlement.id, wallet=one.wallet, stake=one.stake)
                for one in missing
            )
        there = {one.wallet for one in challenge.participants}
        gone = [wallet for wallet in known if wallet not in there]
        if gone:
            # Their joining was reorganised away after the challenge had begun.
            await session.execute(
                update(Score)
                .where(Score.settlement_id == settlement.id, Score.wallet.in_(gone))
                .values(refused="is no participant any more", status="frozen")
            )
        return bool(missing)
