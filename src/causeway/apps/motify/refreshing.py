"""Reading what events do not say: amounts, texts and results, from the contract at one block."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.context import SOURCE, MotifyContext, contract_of
from causeway.apps.motify.contract import Challenge, kept_time
from causeway.apps.motify.models import ChainChallenge, ChainParticipant
from causeway.store.lease import Lease

#: Challenges read in one round.
_AT_ONCE = 50


async def refresh(ctx: MotifyContext, _lease: Lease | None = None) -> int:
    """Read challenges that changed since they were last read; return how many."""
    async with ctx.database.sessions() as session:
        head = (
            await session.execute(
                text("SELECT number, hash FROM causeway.checkpoints WHERE source = :source"),
                {"source": SOURCE},
            )
        ).one_or_none()
        if head is None or not head.hash:
            return 0
        due = (
            await session.scalars(
                select(ChainChallenge.challenge_id)
                .where(
                    *_here(ctx),
                    or_(
                        ChainChallenge.read_block.is_(None),
                        ChainChallenge.read_block < ChainChallenge.changed_block,
                    ),
                )
                .order_by(ChainChallenge.changed_block)
                .limit(_AT_ONCE)
            )
        ).all()
    for challenge_id in due:
        await _refresh_one(ctx, int(challenge_id), int(head.number), str(head.hash))
    return len(due)


async def _refresh_one(ctx: MotifyContext, challenge_id: int, number: int, block_hash: str) -> None:
    wallets = await known_wallets(ctx, challenge_id)
    # By hash: of a block that was reorganised away nobody answers, and it is tried again.
    found = await contract_of(ctx).challenge(challenge_id, block_hash, wallets)
    if found is None:
        return
    async with ctx.database.transaction() as session:
        await _store(session, ctx, found, number)


async def known_wallets(ctx: MotifyContext, challenge_id: int) -> list[str]:
    """Return the wallets that events say have joined."""
    async with ctx.database.sessions() as session:
        rows = await session.scalars(
            select(ChainParticipant.participant_address)
            .where(
                ChainParticipant.chain_id == ctx.settings.chain_id,
                ChainParticipant.contract_address == ctx.settings.contract,
                ChainParticipant.challenge_id == challenge_id,
            )
            .order_by(ChainParticipant.participant_address)
        )
        return list(rows)


async def _store(session: AsyncSession, ctx: MotifyContext, found: Challenge, number: int) -> None:
    row = await session.scalar(
        select(ChainChallenge)
        .where(*_here(ctx), ChainChallenge.challenge_id == found.id)
        .with_for_update()
    )
    if row is None or (row.read_block is not None and row.read_block > number):
        return  # undone meanwhile, or read later than we did
    await session.execute(
        update(ChainChallenge)
        .where(*_here(ctx), ChainChallenge.challenge_id == found.id)
        .values(
            recipient=found.recipient,
            start_time=kept_time(found.window.start),
            end_time=kept_time(found.window.end),
            is_private=found.is_private,
            name=found.name,
            api_type=found.api_type,
            goal_type=found.goal_type,
            goal_amount=found.goal_amount,
            description=found.description,
            total_donation_amount=found.total_donation,
            results_finalized=found.finalized,
            indexed_at=func.clock_timestamp(),
            read_block=number,
        )
    )
    if found.participants:
        await session.execute(_PARTICIPANTS, _columns(ctx, found))


#: One statement for any number of people; who is not in the table any more was undone meanwhile.
_PARTICIPANTS = text(
    """
    UPDATE motify.chain_participants AS p SET initial_amount = n.stake, amount = n.amount,
        refund_percentage = n.bps, result_declared = n.declared, indexed_at = clock_timestamp()
    FROM unnest(CAST(:wallets AS text[]), CAST(:stakes AS numeric[]), CAST(:amounts AS numeric[]),
        CAST(:shares AS numeric[]), CAST(:declared AS boolean[]))
        AS n(wallet, stake, amount, bps, declared)
    WHERE p.chain_id = :chain_id AND p.contract_address = :contract
        AND p.challenge_id = :challenge_id AND p.participant_address = n.wallet
    """
)


def _columns(ctx: MotifyContext, found: Challenge) -> dict[str, object]:
    people = found.participants
    return {
        "chain_id": ctx.settings.chain_id,
        "contract": ctx.settings.contract,
        "challenge_id": found.id,
        "wallets": [one.wallet for one in people],
        "stakes": [one.stake for one in people],
        "amounts": [one.amount for one in people],
        "shares": [one.bps for one in people],
        "declared": [one.declared for one in people],
    }


def _here(ctx: MotifyContext) -> tuple[ColumnElement[bool], ...]:
    return (
        ChainChallenge.chain_id == ctx.settings.chain_id,
        ChainChallenge.contract_address == ctx.settings.contract,
    )
