"""Challenges, for those who take part: is it worth joining, how far am I, what was decided, why."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from causeway.apps.motify import explaining, progress, readiness, signatures, verdicts
from causeway.apps.motify.context import Ctx
from causeway.apps.motify.schemas import ChallengeId, Signature, Timestamp, Wallet, no_store
from causeway.apps.motify.signatures import Proof

router = APIRouter(prefix="/challenges/{challenge_id}", tags=["challenges"])


@router.get("/readiness/{wallet}")
async def ready(ctx: Ctx, challenge_id: ChallengeId, wallet: Wallet) -> dict[str, Any]:
    """Say whether a wallet's account would be read for this challenge, and what it needs."""
    return await readiness.readiness_of(ctx, challenge_id, wallet)


@router.get("/progress/{wallet}")
async def progress_so_far(ctx: Ctx, challenge_id: ChallengeId, wallet: Wallet) -> dict[str, Any]:
    """Return the days that were read so far."""
    return await progress.progress_of(ctx, challenge_id, wallet)


@router.get("/results")
async def results(
    ctx: Ctx,
    challenge_id: ChallengeId,
    cursor: Wallet | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> dict[str, Any]:
    """Return the verdicts, by address; `next_cursor` continues where this page ends."""
    return await verdicts.verdicts(ctx, challenge_id, after=cursor, limit=limit)


@router.get("/evidence/{wallet}", dependencies=[Depends(no_store)])
async def evidence(
    ctx: Ctx, challenge_id: ChallengeId, wallet: Wallet, signature: Signature, timestamp: Timestamp
) -> dict[str, Any]:
    """Return one participant's evidence and its proof, to that participant. The wallet signs

    `Read evidence of challenge {id} for wallet {wallet} at {timestamp}`.
    """
    proof = Proof(signature, timestamp)
    await signatures.require_evidence(ctx, challenge_id, wallet, proof)
    proved = await explaining.prove(ctx, challenge_id, wallet)
    return {"evidence": json.loads(proved.document), **explaining.exported(proved)}
