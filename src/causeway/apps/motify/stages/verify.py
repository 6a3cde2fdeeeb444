"""Stage `verify`: the chain's results are compared with the frozen ones, then it is finalized.

Without finalization nobody can claim anything before the seven days are over.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify import incidents
from causeway.apps.motify.chain_time import final_block
from causeway.apps.motify.context import (
    CHAIN,
    ELSEWHERE_S,
    MotifyContext,
    contract_of,
    is_here,
)
from causeway.apps.motify.declaring import finalize_key, finalize_kind
from causeway.apps.motify.models import Score, Settlement
from causeway.apps.motify.refreshing import known_wallets
from causeway.base.faults import fault_point
from causeway.pipelines.stage import Advance, Claim, Outcome, Record, Retry
from causeway.relayer.kind import UnitRequest

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 20.0


async def verify(ctx: MotifyContext, claim: Claim) -> Outcome:
    """Compare one challenge with the chain, and owe its finalization."""
    async with ctx.database.sessions() as session:
        settlement = await session.get_one(Settlement, claim.key)
        frozen: Mapping[str, int] = {
            wallet: bps or 0
            for wallet, bps in await session.execute(
                select(Score.wallet, Score.bps).where(
                    Score.settlement_id == settlement.id, Score.bps.is_not(None)
                )
            )
        }
    if not is_here(ctx, settlement):
        return Retry(ELSEWHERE_S, "it is of another contract than the one configured", counts=False)
    block = await final_block(ctx)
    challenge_id = int(settlement.challenge_id)
    challenge = await contract_of(ctx).challenge(
        challenge_id, block.number, await known_wallets(ctx, challenge_id)
    )
    if challenge is None or challenge.undeclared:
        left = 0 if challenge is None else len(challenge.undeclared)
        return Retry(5, f"{left} results are not final on chain yet", counts=False)
    async with ctx.database.transaction() as session:
        for one in challenge.participants:
            ours = frozen.get(one.wallet)
            if ours is not None and ours != one.bps:
                await incidents.raise_incident(
                    session,
                    "declared_differs",
                    incidents.challenge(challenge_id, one.wallet),
                    ours=ours,
                    on_chain=one.bps,
                )
    fault_point("motify.verified")
    if challenge.finalized or not ctx.settings.finalize:
        return Advance()
    if CHAIN not in ctx.relayers:
        return Retry(LOOK_AGAIN_S, "ready to finalize, and SEND_TX is off", counts=False)
    return Advance(record=_filed(ctx, settlement))


def _filed(ctx: MotifyContext, settlement: Settlement) -> Record:
    async def record(session: AsyncSession) -> None:
        challenge_id = int(settlement.challenge_id)
        key = finalize_key(settlement.chain_id, settlement.contract_address, challenge_id)
        payload = {
            "contract": settlement.contract_address,
            "challenge_id": str(challenge_id),
            "settlement_id": str(settlement.id),
        }
        await ctx.relayers[CHAIN].file(
            session, finalize_kind(ctx), [UnitRequest(key, payload)], requested_by="motify"
        )

    return record
