"""What operators order by hand, each with who and why: kept with the challenge and its evidence."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import incidents
from causeway.apps.motify.context import CHAIN, MotifyContext
from causeway.apps.motify.declaring import batch_id, declare_kind, result_key
from causeway.apps.motify.goals import Window, goal_of
from causeway.apps.motify.models import FarcasterAccount, Score, Settlement
from causeway.apps.motify.shares import MILLION
from causeway.base.clock import iso
from causeway.base.errors import Conflict, Field, InvalidInput, NotFound, PermanentError
from causeway.relayer.kind import UnitRequest


async def find(session: AsyncSession, ctx: MotifyContext, challenge_id: int) -> Settlement:
    """Return a challenge that has begun, locked; `NotFound` when there is none."""
    found = await session.scalar(
        select(Settlement)
        .where(
            Settlement.chain_id == ctx.settings.chain_id,
            Settlement.contract_address == ctx.settings.contract,
            Settlement.challenge_id == challenge_id,
        )
        .with_for_update()
    )
    if found is None:
        raise NotFound(f"challenge {challenge_id} is not known, or has not begun")
    return found


async def set_rule(
    ctx: MotifyContext,
    challenge_id: int,
    *,
    by: str,
    why: str,
    api_type: str | None = None,
    goal_type: str | None = None,
    goal_amount: int | None = None,
    ppm: int | None = None,
) -> dict[str, Any]:
    """Give a challenge a goal, or one share (ppm) for everybody, before it is frozen.

    Raises `InvalidInput` for a goal that nobody defined, and `Conflict` when it is frozen.
    """
    async with ctx.database.transaction() as session:
        found = await find(session, ctx, challenge_id)
        if found.status not in ("live", "measuring"):
            raise Conflict(f"challenge {challenge_id} is {found.status}: its scores are fixed")
        rule: dict[str, Any] = {"by": by, "why": why, "at": iso(ctx.clock.now())}
        if ppm is not None:
            if not 0 <= ppm <= MILLION:
                raise InvalidInput(fields=[Field("ppm", str(ppm), f"0 to {MILLION}")])
            rule["ppm"] = ppm
        else:
            goal: dict[str, Any] = {
                "api_type": api_type or found.api_type,
                "goal_type": goal_type or found.goal_type,
                "goal_amount": str(int(found.goal_amount) if goal_amount is None else goal_amount),
            }
            window = Window(found.start_time, found.end_time)
            if (
                goal_of(goal["api_type"], goal["goal_type"], int(goal["goal_amount"]), window)
                is None
            ):
                raise InvalidInput(
                    fields=[
                        Field(
                            "goal",
                            f"{goal['api_type']} {goal['goal_type']}",
                            "a goal that can be measured (docs/guide/motify.md has the table)",
                        )
                    ]
                )
            rule |= goal
        found.ordered_rule = rule
        found.next_at = None
        await session.execute(
            update(Score)
            .where(
                Score.settlement_id == found.id, Score.status.in_(("settled", "resting", "failed"))
            )
            .values(
                status="waiting",
                next_at=None,
                again_at=None,
                outcome=None,
                numerator=None,
                denominator=None,
                reading_id=None,
            )
        )
        await incidents.resolve(session, "unscorable", incidents.challenge(challenge_id))
    return rule


async def declare_late(ctx: MotifyContext, challenge_id: int, *, by: str, why: str) -> str:
    """Order to declare although the seven days are over; return where the challenge stands then.

    Whoever is undeclared may take everything back at any moment: this is a race.
    """
    async with ctx.database.transaction() as session:
        found = await find(session, ctx, challenge_id)
        if found.status != "timed_out":
            raise Conflict(f"challenge {challenge_id} is {found.status}, not timed out")
        found.late_order = {"by": by, "why": why, "at": iso(ctx.clock.now())}
        found.status = "measuring" if found.frozen_at is None else "declaring"
        found.next_at = None
        await session.flush()
        if found.frozen_at is not None:
            await file_frozen(session, ctx, found)
        return found.status


async def file_frozen(session: AsyncSession, ctx: MotifyContext, settlement: Settlement) -> None:
    """Owe to the relayer, again or for the first time, what was frozen and is not declared."""
    if CHAIN not in ctx.relayers:
        raise PermanentError("SEND_TX is off, or no key is set: nothing can be declared here")
    rows = (
        await session.execute(
            select(Score.wallet, Score.bps, Score.batch_no)
            .where(
                Score.settlement_id == settlement.id,
                Score.batch_no.is_not(None),
                Score.declared_bps.is_(None),
            )
            .order_by(Score.batch_no, Score.wallet)
        )
    ).all()
    chain_id, contract = settlement.chain_id, settlement.contract_address
    challenge_id = int(settlement.challenge_id)
    place = f"motify:{chain_id}:{contract}:{challenge_id}"
    batches: dict[int, list[tuple[str, int]]] = {}
    for wallet, bps, batch_no in rows:
        batches.setdefault(int(batch_no or 0), []).append((wallet, int(bps or 0)))
    for batch_no, people in sorted(batches.items()):
        await ctx.relayers[CHAIN].file(
            session,
            declare_kind(ctx),
            [
                UnitRequest(
                    result_key(chain_id, contract, challenge_id, wallet),
                    {
                        "contract": contract,
                        "challenge_id": str(challenge_id),
                        "settlement_id": str(settlement.id),
                        "wallet": wallet,
                        "bps": bps,
                        "batch_no": batch_no,
                        "end_time": settlement.end_time,
                        "late": settlement.late_order is not None,
                    },
                )
                for wallet, bps in people
            ],
            batch_id=batch_id(place, batch_no, people),
            requested_by="motify",
        )


async def link_farcaster(ctx: MotifyContext, wallet: str, fid: int, *, by: str) -> None:
    """Say which Farcaster account is a wallet's, in place of the one Neynar tells of."""
    if fid < 1:
        raise InvalidInput(fields=[Field("fid", str(fid), "1 or more")])
    async with ctx.database.transaction() as session:
        row = insert(FarcasterAccount).values(wallet=wallet, fid=fid, set_by=by)
        await session.execute(
            row.on_conflict_do_update(
                index_elements=[FarcasterAccount.wallet],
                set_={"fid": row.excluded.fid, "set_by": row.excluded.set_by},
            )
        )


async def retry_failed(ctx: MotifyContext) -> int:
    """Take up again what failed for an error of ours; return how many rows."""
    async with ctx.database.transaction() as session:
        scores = await session.execute(
            text(
                "UPDATE motify.scores SET status = 'waiting', attempts = 0, next_at = NULL "
                "WHERE status = 'failed' RETURNING true"
            )
        )
        challenges = await session.execute(
            text(
                "UPDATE motify.settlements SET attempts = 0, next_at = NULL, status = CASE "
                "WHEN frozen_at IS NULL AND rule IS NULL THEN 'measuring' ELSE 'declared' END "
                "WHERE status = 'failed' RETURNING true"
            )
        )
        return len(scores.all()) + len(challenges.all())
