"""Stage `archive`: once finalization is final, what the chain says is kept for statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import rules
from causeway.apps.motify.chain_time import final_block
from causeway.apps.motify.context import ELSEWHERE_S, MotifyContext, contract_of, is_here
from causeway.apps.motify.contract import Challenge, Contract, Participant
from causeway.apps.motify.models import (
    ChainEvent,
    FinishedChallenge,
    FinishedParticipant,
    Score,
    Settlement,
)
from causeway.apps.motify.refreshing import known_wallets
from causeway.apps.motify.reminding import remind_finished
from causeway.apps.motify.shares import BasisPoints
from causeway.base.faults import fault_point
from causeway.pipelines.stage import Advance, Claim, Outcome, Record, Retry

log = structlog.get_logger(__name__)

_WAIT_S = 5.0
_PAGE = 500


@dataclass(frozen=True)
class _Decided:
    """What we know of a participant besides what the chain says."""

    ratio: Decimal | None
    reason: str | None
    batch_no: int | None


async def archive(ctx: MotifyContext, claim: Claim) -> Outcome:
    """Archive one challenge when its finalization cannot be undone any more."""
    async with ctx.database.sessions() as session:
        settlement = await session.get_one(Settlement, claim.key)
    if not is_here(ctx, settlement):
        return Retry(ELSEWHERE_S, "it is of another contract than the one configured", counts=False)
    challenge_id = int(settlement.challenge_id)
    contract = contract_of(ctx)
    block = await final_block(ctx)
    if not await contract.is_finalized(challenge_id, block.number):
        return Retry(_WAIT_S, "finalization is not final yet", counts=False)
    challenge = await contract.challenge(
        challenge_id, block.number, await known_wallets(ctx, challenge_id)
    )
    if challenge is None:
        return Retry(_WAIT_S, "the chain does not show the challenge", counts=False)
    events = await _events(ctx, settlement, block.number)
    declared_in = await _declarations(contract, challenge_id, events)
    fault_point("motify.archiving")
    return Advance(record=_archived(ctx, settlement, challenge, events, declared_in))


async def _events(ctx: MotifyContext, settlement: Settlement, up_to: int) -> Sequence[ChainEvent]:
    async with ctx.database.sessions() as session:
        return (
            await session.scalars(
                select(ChainEvent)
                .where(
                    ChainEvent.chain_id == settlement.chain_id,
                    ChainEvent.contract_address == settlement.contract_address,
                    ChainEvent.challenge_id == settlement.challenge_id,
                    ChainEvent.block_number <= up_to,
                )
                .order_by(ChainEvent.block_number, ChainEvent.log_index)
            )
        ).all()


async def _declarations(
    contract: Contract, challenge_id: int, events: Sequence[ChainEvent]
) -> dict[str, str]:
    """Return by wallet the transaction that declared it.

    The event names nobody, so it is read from call data. A declaration that another contract made
    for the owner does not show it there: then no transaction is named.
    """
    found: dict[str, str] = {}
    for tx_hash in dict.fromkeys(
        e.transaction_hash for e in events if e.event == "ResultsDeclared"
    ):
        transaction = await contract.chain.transaction(tx_hash)
        data = str((transaction or {}).get("input") or "0x")
        declared = contract.declared_in(bytes.fromhex(data.removeprefix("0x")))
        if declared is not None and declared[0] == challenge_id:
            found |= dict.fromkeys(declared[1], tx_hash)
    return found


def _archived(
    ctx: MotifyContext,
    settlement: Settlement,
    challenge: Challenge,
    events: Sequence[ChainEvent],
    declared_in: Mapping[str, str],
) -> Record:
    timeouts = {
        str(e.participant_address): e.transaction_hash
        for e in events
        if e.event == "TimeoutRefundClaimed"
    }
    finalized = [e.transaction_hash for e in events if e.event == "DonationsFinalized"]

    async def record(session: AsyncSession) -> None:
        decided = await _decided(session, settlement)
        counts: Counter[str] = Counter()
        people = challenge.participants
        for start in range(0, len(people), _PAGE):
            rows: list[dict[str, Any]] = []
            for one in people[start : start + _PAGE]:
                row = _row(settlement, one, decided.get(one.wallet), timeouts, declared_in)
                counts[row["reason"] or "measured"] += 1
                rows.append(row)
            await session.execute(insert(FinishedParticipant).on_conflict_do_nothing(), rows)
        donation = sum(BasisPoints(one.bps).donation(one.stake) for one in people)
        await session.execute(
            insert(FinishedChallenge)
            .values(
                chain_id=settlement.chain_id,
                contract_address=settlement.contract_address,
                challenge_id=settlement.challenge_id,
                rule=settlement.rule,
                summary={
                    "tx_hashes": sorted(set(declared_in.values())),
                    "finalize_tx_hash": finalized[-1] if finalized else settlement.finalize_tx,
                    "donation_minor_units": str(donation),
                    "evidence_root": settlement.evidence_root,
                    "counts": {"participants": len(people), **counts},
                },
            )
            .on_conflict_do_nothing()
        )
        await remind_finished(session, settlement, challenge)
        log.info("challenge_archived", challenge=challenge.id, participants=len(people))

    return record


async def _decided(session: AsyncSession, settlement: Settlement) -> dict[str, _Decided]:
    rows = await session.execute(
        select(
            Score.wallet, Score.numerator, Score.denominator, Score.reason, Score.batch_no
        ).where(Score.settlement_id == settlement.id)
    )
    return {
        wallet: _Decided(
            None if numerator is None or not denominator else numerator / denominator,
            reason,
            batch_no,
        )
        for wallet, numerator, denominator, reason, batch_no in rows
    }


def _row(
    settlement: Settlement,
    one: Participant,
    ours: _Decided | None,
    timeouts: Mapping[str, str],
    declared_in: Mapping[str, str],
) -> dict[str, Any]:
    by_timeout = one.wallet in timeouts
    reason = rules.TIMEOUT_REFUND if by_timeout else ours.reason if ours else rules.ELSEWHERE
    return {
        "chain_id": settlement.chain_id,
        "contract_address": settlement.contract_address,
        "challenge_id": settlement.challenge_id,
        "participant_address": one.wallet,
        "stake_minor_units": one.stake,
        "percent_ppm": one.bps * 100,
        "progress_ratio": None if ours is None else ours.ratio,
        "batch_no": None if by_timeout or ours is None else ours.batch_no,
        "tx_hash": timeouts.get(one.wallet) or declared_in.get(one.wallet),
        "reason": reason,
    }
