"""Freezing a challenge: shares, reasons and evidence, once, in the order of addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Text, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import evidence, rules
from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.contract import Challenge, Participant
from causeway.apps.motify.counting import backdated, count
from causeway.apps.motify.models import (
    FinishedChallenge,
    Reading,
    Score,
    Settlement,
)
from causeway.apps.motify.ordering import file_frozen
from causeway.apps.motify.shares import Ratio
from causeway.apps.motify.stages.measure import known_days
from causeway.apps.motify.troubles import Trouble
from causeway.base.errors import Bug
from causeway.chains.protocol import Block
from causeway.pipelines.stage import Record

log = structlog.get_logger(__name__)

#: Participants whose evidence is in memory at once.
_PAGE = 200


@dataclass(frozen=True)
class Frozen:
    """What is written of one participant."""

    id: UUID
    wallet: str
    ppm: int | None
    bps: int | None
    reason: str | None
    batch_no: int | None
    evidence: str | None
    declared_bps: int | None


def freeze(
    ctx: MotifyContext,
    settlement: Settlement,
    rule: dict[str, Any],
    challenge: Challenge,
    block: Block,
) -> Record:
    """Return what writes the decision on a challenge, in the transaction that moves it."""

    async def record(session: AsyncSession) -> None:
        people = {one.wallet: one for one in challenge.participants}
        order = sorted(one.wallet for one in challenge.undeclared)
        places = {wallet: n // ctx.settings.chunk_size for n, wallet in enumerate(order)}
        leaves: list[bytes] = []
        batches: set[int] = set()
        for start in range(0, len(people), _PAGE):
            wallets = sorted(people)[start : start + _PAGE]
            page = [
                await _frozen(session, ctx, settlement, rule, score, people[score.wallet], places)
                for score in await _scores(session, settlement.id, wallets)
            ]
            if len(page) != len(wallets):
                raise Bug(f"challenge {challenge.id}: scores are missing")
            for one in page:
                if one.evidence is not None:
                    leaves.append(evidence.leaf(one.evidence))
                if one.batch_no is not None:
                    batches.add(one.batch_no)
            await _write(session, page)
            session.expunge_all()
        root = "0x" + evidence.Tree(leaves).root.hex() if leaves else None
        await session.execute(
            update(Settlement)
            .where(Settlement.id == settlement.id)
            .values(evidence_root=root, frozen_at=func.clock_timestamp())
        )
        if batches:
            await file_frozen(session, ctx, settlement)
        log.info(
            "challenge_frozen",
            challenge=challenge.id,
            participants=len(people),
            batches=len(batches),
            at_block=block.number,
            evidence_root=root,
        )

    return record


async def _scores(session: AsyncSession, id_: UUID, wallets: Sequence[str]) -> Sequence[Score]:
    return (
        await session.scalars(
            select(Score)
            .where(Score.settlement_id == id_, Score.wallet == func.any(cast(wallets, ARRAY(Text))))
            .order_by(Score.wallet)
            .with_for_update()
        )
    ).all()


async def _frozen(
    session: AsyncSession,
    ctx: MotifyContext,
    settlement: Settlement,
    rule: dict[str, Any],
    score: Score,
    person: Participant,
    places: dict[str, int],
) -> Frozen:
    if person.wallet not in places:
        return Frozen(score.id, score.wallet, None, None, rules.ELSEWHERE, None, None, person.bps)
    said, carried, late = await _said(session, settlement, score)
    trouble = None if score.outcome is None else Trouble(score.outcome)
    if trouble is None and said is None:
        trouble = Trouble.UNAVAILABLE
    ratio = None
    if score.numerator is not None and score.denominator is not None:
        ratio = Ratio(int(score.numerator), int(score.denominator))
    share = rules.share_of(rule, ratio, trouble)
    if share is None:
        raise Bug(f"{score.wallet} was to be declared without a share")
    document = evidence.document(
        chain_id=settlement.chain_id,
        contract=settlement.contract_address,
        challenge_id=int(settlement.challenge_id),
        wallet=score.wallet,
        stake=person.stake,
        rule=rule,
        said=said,
        carried=carried,
        backdated=late,
        trouble=trouble,
        detail=score.detail,
    )
    return Frozen(
        score.id,
        score.wallet,
        share.ppm,
        share.bps.value,
        share.reason,
        places[person.wallet],
        document,
        None,
    )


async def _said(
    session: AsyncSession, settlement: Settlement, score: Score
) -> tuple[evidence.Said | None, dict[date, int], tuple[date, ...]]:
    """Return the reading that counts, the days it took from earlier ones, and backdated days."""
    goal = rules.goal_for(settlement.terms)
    if score.reading_id is None or goal is None:
        return None, {}, ()
    reading = await session.get_one(Reading, score.reading_id)
    days = {date.fromisoformat(day): value for day, value in reading.days.items()}
    found = count(goal, reading.answered).days
    carried = {day: value for day, value in days.items() if day not in found}
    first = (await known_days(session, score.id)).first
    said = evidence.Said(
        provider=reading.provider,
        account=reading.account,
        asked=reading.asked,
        answered=reading.answered,
        read_at=reading.read_at.isoformat().replace("+00:00", "Z"),
        chain_time=reading.chain_time,
    )
    return said, carried, backdated(goal, days, first)


_WRITE = text(
    """
    UPDATE motify.scores AS s SET status = 'frozen', percent_ppm = n.ppm, bps = n.bps,
        reason = n.reason, batch_no = n.batch_no, evidence = n.evidence, leaf = n.leaf,
        declared_bps = coalesce(n.declared_bps, s.declared_bps), fence = s.fence + 1,
        lease_owner = NULL, lease_until = NULL, next_at = NULL, again_at = NULL
    FROM unnest(CAST(:ids AS uuid[]), CAST(:ppms AS bigint[]), CAST(:shares AS int[]),
        CAST(:reasons AS text[]), CAST(:batches AS int[]), CAST(:evidence AS text[]),
        CAST(:leaves AS bytea[]), CAST(:declared AS int[]))
        AS n(id, ppm, bps, reason, batch_no, evidence, leaf, declared_bps)
    WHERE s.id = n.id
    """
)


async def _write(session: AsyncSession, page: Sequence[Frozen]) -> None:
    documents = [one.evidence for one in page]
    await session.execute(
        _WRITE,
        {
            "ids": [one.id for one in page],
            "ppms": [one.ppm for one in page],
            "shares": [one.bps for one in page],
            "reasons": [one.reason for one in page],
            "batches": [one.batch_no for one in page],
            "evidence": documents,
            "leaves": [None if d is None else evidence.leaf(d) for d in documents],
            "declared": [one.declared_bps for one in page],
        },
    )


def archive_empty(ctx: MotifyContext, settlement: Settlement) -> Record:
    """Return what archives a challenge that nobody took part in: no transaction is needed."""

    async def record(session: AsyncSession) -> None:
        session.add(
            FinishedChallenge(
                chain_id=settlement.chain_id,
                contract_address=settlement.contract_address,
                challenge_id=settlement.challenge_id,
                rule=rules.rule_of(settlement.terms, *ctx.settings.fallbacks),
                summary={"tx_hashes": [], "finalize_tx_hash": None, "counts": {"participants": 0}},
            )
        )

    return record
