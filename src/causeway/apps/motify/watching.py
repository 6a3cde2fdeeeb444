"""The loop that moves challenges by the chain's time: begun, ended, near the deadline, too late.

It only changes rows; what is due is then worked on by the stages.
"""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import incidents
from causeway.apps.motify.chain_time import final_block, seconds
from causeway.apps.motify.context import (
    CHAIN,
    SOURCE,
    MotifyContext,
    contract_of,
    place_of,
)
from causeway.apps.motify.contract import Challenge, kept_time
from causeway.apps.motify.goals import Provider, api_type_of
from causeway.apps.motify.models import FarcasterAccount, Score, Settlement
from causeway.apps.motify.refreshing import known_wallets, refresh
from causeway.apps.motify.reminding import remind_all
from causeway.apps.motify.rules import ELSEWHERE, goal_for, rule_of
from causeway.apps.motify.settings import TIMEOUT_S
from causeway.base.errors import CausewayError
from causeway.base.ids import uuid7
from causeway.chains.protocol import Block
from causeway.relayer.filing import withdraw
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

#: Operators are told this long before the seven days run out, seconds.
WARNINGS_S = (72 * 3600, 24 * 3600)
_PAGE = 1000
#: People are told this long before the start that they have connected nothing, seconds.
_REMIND_AHEAD_S = 86_400


async def watch(ctx: MotifyContext, lease: Lease | None = None) -> None:
    """Bring every challenge to where the chain's time says it is."""
    await refresh(ctx, lease)
    block = await final_block(ctx)
    now = seconds(block)
    await _open(ctx, block, now)
    async with ctx.database.transaction() as session:
        ended = await _end(session, ctx, now)
        due = await _wake(session, ctx, now)
        await _remind_unconnected(session, ctx, now)
        hurried = await _hurry(session, ctx, now, block.number)
    await _warn(ctx, now)
    await _time_out(ctx, now)
    if ctx.ring is not None:
        for stage, some in (("measure", ended or due), ("decide", ended or hurried)):
            if some:
                await ctx.ring(stage)


async def _open(ctx: MotifyContext, block: Block, now: int) -> None:
    """Make a settlement of each challenge that has begun at a final block."""
    async with ctx.database.sessions() as session:
        read_to = await session.scalar(
            text("SELECT number FROM causeway.checkpoints WHERE source = :source"),
            {"source": SOURCE},
        )
        if read_to is None or int(read_to) < block.number:
            return  # participants are known when every block before has been read
        begun = (
            await session.scalars(
                text(
                    "SELECT challenge_id FROM motify.chain_challenges c WHERE chain_id = :chain "
                    "AND contract_address = :contract AND start_time <= :now AND NOT EXISTS ("
                    "SELECT FROM motify.settlements s WHERE s.chain_id = c.chain_id AND "
                    "s.contract_address = c.contract_address AND s.challenge_id = c.challenge_id) "
                    "ORDER BY end_time, challenge_id LIMIT 100"
                ),
                {"chain": ctx.settings.chain_id, "contract": ctx.settings.contract, "now": now},
            )
        ).all()
    for challenge_id in begun:
        wallets = await known_wallets(ctx, int(challenge_id))
        found = await contract_of(ctx).challenge(int(challenge_id), block.number, wallets)
        if found is not None and found.window.start <= now:
            await _open_one(ctx, found, now)


async def _open_one(ctx: MotifyContext, found: Challenge, now: int) -> None:
    status = "live" if now < found.window.end else "measuring"
    settlement = Settlement(
        id=uuid7(),
        chain_id=ctx.settings.chain_id,
        contract_address=ctx.settings.contract or "",
        challenge_id=found.id,
        start_time=found.window.start,
        end_time=kept_time(found.window.end),
        api_type=found.api_type,
        goal_type=found.goal_type,
        goal_amount=found.goal_amount,
        status=status,
    )
    if found.finalized:
        # Settled before we came: only what the chain says is left to be archived.
        settlement.status = "finalizing"
        settlement.rule = rule_of(settlement.terms, *ctx.settings.fallbacks) | {"scored": False}
    if api_type_of(found.api_type) == Provider.FARCASTER and goal_for(settlement.terms) is not None:
        await _look_up_accounts(ctx, [one.wallet for one in found.undeclared])
    async with ctx.database.transaction() as session:
        session.add(settlement)
        await session.flush()
        people = [
            {
                "id": uuid7(),
                "settlement_id": settlement.id,
                "wallet": one.wallet,
                "stake": one.stake,
                "status": "frozen" if found.finalized or one.declared else "waiting",
                "reason": ELSEWHERE if one.declared else None,
                "declared_bps": one.bps if one.declared else None,
            }
            for one in found.participants
        ]
        for start in range(0, len(people), _PAGE):
            await session.execute(insert(Score), people[start : start + _PAGE])
    log.info("challenge_opened", challenge=found.id, status=status, participants=len(people))


async def _look_up_accounts(ctx: MotifyContext, wallets: list[str]) -> None:
    """Find Farcaster accounts many at a time; who is not found is asked for alone, later."""
    if ctx.services.neynar is None:
        return
    try:
        found = await ctx.services.neynar.accounts(wallets)
    except CausewayError as error:
        log.warning("farcaster_accounts_not_looked_up", error=error)
        return
    rows = [{"wallet": wallet, "fid": fids[0]} for wallet, fids in found.items() if fids]
    if rows:
        async with ctx.database.transaction() as session:
            await session.execute(insert(FarcasterAccount).on_conflict_do_nothing(), rows)


#: Of the contract that is configured; others wait until theirs is configured again.
_HERE = "chain_id = :chain AND contract_address = :contract"


async def _end(session: AsyncSession, ctx: MotifyContext, now: int) -> bool:
    """Have everybody in a challenge that has ended read at once."""
    ended = (
        await session.scalars(
            text(
                "UPDATE motify.settlements SET status = 'measuring', next_at = NULL "
                f"WHERE {_HERE} AND status = 'live' AND end_time <= :now RETURNING id"
            ),
            {"now": now, **place_of(ctx)},
        )
    ).all()
    if ended:
        await session.execute(
            text(
                "UPDATE motify.scores SET status = 'waiting', next_at = NULL, again_at = NULL "
                "WHERE settlement_id = ANY(:ended) AND status = 'resting'"
            ),
            {"ended": list(ended)},
        )
    return bool(ended)


async def _remind_unconnected(session: AsyncSession, ctx: MotifyContext, now: int) -> None:
    """Tell those whose challenge begins within a day that no account of theirs is connected."""
    await session.execute(
        text(
            """
            INSERT INTO motify.reminders (kind, settlement_key, wallet, body)
            SELECT 'not_connected', c.chain_id || ':' || c.contract_address || ':'
                    || c.challenge_id, p.participant_address,
                jsonb_build_object('challenge_id', c.challenge_id::text,
                    'provider', lower(btrim(c.api_type)), 'starts_at', c.start_time)
            FROM motify.chain_challenges c JOIN motify.chain_participants p
                USING (chain_id, contract_address, challenge_id)
            WHERE c.chain_id = :chain AND c.contract_address = :contract
                AND c.start_time > :now AND c.start_time - :ahead <= :now
                AND lower(btrim(c.api_type)) IN ('github', 'wakatime')
                AND NOT EXISTS (SELECT FROM causeway.connections k WHERE k.app = 'motify'
                    AND k.provider = lower(btrim(c.api_type))
                    AND k.subject = p.participant_address)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "chain": ctx.settings.chain_id,
            "contract": ctx.settings.contract,
            "now": now,
            "ahead": _REMIND_AHEAD_S,
        },
    )


async def _wake(session: AsyncSession, ctx: MotifyContext, now: int) -> bool:
    """Have those read again whose time has come."""
    woken = await session.execute(
        text(
            "UPDATE motify.scores SET status = 'waiting', again_at = NULL, next_at = NULL "
            "WHERE status = 'resting' AND again_at <= :now RETURNING true"
        ),
        {"now": now},
    )
    # Who waits for a provider that is away is tried once more when the time to decide has come.
    late = await session.execute(
        text(
            "UPDATE motify.scores s SET next_at = NULL FROM motify.settlements c "
            "WHERE s.settlement_id = c.id AND c.status = 'measuring' AND s.status = 'waiting' "
            "AND s.next_at > clock_timestamp() AND c.end_time <= :decided "
            "AND c.chain_id = :chain AND c.contract_address = :contract RETURNING true"
        ),
        {
            "decided": now - TIMEOUT_S + ctx.settings.decide_before_timeout_seconds,
            **place_of(ctx),
        },
    )
    return woken.first() is not None or late.first() is not None


async def _hurry(session: AsyncSession, ctx: MotifyContext, now: int, final: int) -> bool:
    """Have challenges looked at whose readings are all in, or whose deadline has passed."""
    due = await session.execute(
        text(
            "UPDATE motify.settlements c SET next_at = NULL, waits_for = NULL "
            f"WHERE {_HERE} AND status = 'measuring' "
            "AND (waits_for = 'readings' AND NOT EXISTS (SELECT FROM motify.scores "
            "WHERE settlement_id = c.id AND status IN ('waiting', 'measuring', 'resting')) "
            "OR waits_for IN ('readings', 'deadline') AND end_time <= :decided "
            "OR waits_for = 'sending' AND :sends) RETURNING true"
        ),
        {
            **place_of(ctx),
            "sends": CHAIN in ctx.relayers,
            "decided": now - TIMEOUT_S + ctx.settings.decide_before_timeout_seconds,
        },
    )
    # What somebody else finalized is archived without waiting for the next look.
    await session.execute(
        text(
            "UPDATE motify.settlements s SET next_at = NULL FROM motify.chain_events e "
            "WHERE s.status = 'finalizing' AND s.next_at IS NOT NULL "
            "AND e.chain_id = s.chain_id AND e.contract_address = s.contract_address "
            "AND e.challenge_id = s.challenge_id AND e.event = 'DonationsFinalized' "
            "AND e.block_number <= :final"
        ),
        {"final": final},
    )
    return due.first() is not None


_OPEN = f"{_HERE} AND status IN ('live', 'measuring', 'declaring')"


async def _warn(ctx: MotifyContext, now: int) -> None:
    """Tell operators of challenges whose seven days run out with people undeclared."""
    async with ctx.database.transaction() as session:
        for left_s in WARNINGS_S:
            near = await session.scalars(
                text(
                    f"SELECT challenge_id FROM motify.settlements WHERE {_OPEN} "
                    "AND end_time + :timeout - :left <= :now AND end_time + :timeout > :now"
                ),
                {"timeout": TIMEOUT_S, "left": left_s, "now": now, **place_of(ctx)},
            )
            for challenge_id in near:
                await incidents.raise_incident(
                    session,
                    f"deadline_{left_s // 3600}h",
                    incidents.challenge(int(challenge_id)),
                    hint="participants are undeclared, and may soon take everything back",
                )


async def _time_out(ctx: MotifyContext, now: int) -> None:
    """After the seven days send nothing more; follow the claims, and finalize when all are done."""
    async with ctx.database.transaction() as session:
        late = (
            await session.execute(
                text(
                    f"SELECT id, challenge_id, status FROM motify.settlements WHERE {_OPEN} "
                    "AND late_order IS NULL AND end_time + :timeout < :now FOR UPDATE SKIP LOCKED"
                ),
                {"timeout": TIMEOUT_S, "now": now, **place_of(ctx)},
            )
        ).all()
        for row in late:
            await _time_out_one(session, ctx, row)
        done = (
            await session.execute(
                text(
                    "SELECT s.id FROM motify.settlements s WHERE s.status = 'timed_out' "
                    "AND EXISTS (SELECT FROM motify.chain_challenges c WHERE "
                    "c.chain_id = s.chain_id AND c.contract_address = s.contract_address "
                    "AND c.challenge_id = s.challenge_id AND c.read_block >= c.changed_block) "
                    "AND NOT EXISTS (SELECT FROM motify.chain_participants p "
                    "WHERE p.chain_id = s.chain_id AND p.contract_address = s.contract_address "
                    "AND p.challenge_id = s.challenge_id AND NOT p.result_declared)"
                )
            )
        ).all()
        for row in done:
            settlement = await session.get_one(Settlement, row.id)
            if settlement.rule is None:
                rule = rule_of(settlement.terms, *ctx.settings.fallbacks)
                settlement.rule = rule | {"scored": False}
            settlement.status = "declared"
            settlement.next_at = None


async def _time_out_one(session: AsyncSession, ctx: MotifyContext, row: Row[Any]) -> None:
    undeclared = (
        await session.scalars(
            select(Score.wallet).where(Score.settlement_id == row.id, Score.declared_bps.is_(None))
        )
    ).all()
    if row.status == "declaring":
        keys = (
            await session.scalars(
                text(
                    "SELECT unit_key FROM causeway.relayer_units WHERE app = 'motify' "
                    "AND kind = 'declare' AND state IN ('pending', 'bound') "
                    "AND payload->>'settlement_id' = :id"
                ),
                {"id": str(row.id)},
            )
        ).all()
        if not keys:
            return  # everything is on its way to be settled
        await withdraw(session, keys, now=ctx.clock.now())
    settlement = await session.get_one(Settlement, row.id, with_for_update=True)
    if settlement.status == "live":
        settlement.status = "measuring"
        await session.flush()
    settlement.status = "timed_out"
    settlement.fence += 1
    settlement.lease_owner = settlement.lease_until = None
    await incidents.raise_incident(
        session,
        "timed_out",
        incidents.challenge(int(row.challenge_id)),
        undeclared=len(undeclared),
        hint="each may take the stake back; causeway motify declare-late orders a declaration",
    )
    await remind_all(session, "timeout_refund_claimable", settlement, undeclared)
