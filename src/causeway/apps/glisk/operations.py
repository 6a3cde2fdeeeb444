"""What operators can ask for: the same functions stand behind the HTTP routes and the commands."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.models import Image, RecoveryRequest, RevealRequest, Token, TokenStatus
from causeway.apps.glisk.units import REVEAL, unit_key
from causeway.base.errors import Conflict, NotFound
from causeway.base.ids import uuid7
from causeway.pipelines import control

STAGES = ("image", "ipfs", REVEAL)

#: Why a token that is not `ready` cannot be revealed now.
_REASONS = {
    "detected": "its picture is not made yet",
    "generating": "its picture is being made",
    "uploading": "it is being pinned",
    "revealed": "it is revealed already",
    "failed": "it failed; retry it first",
}


async def request_reveal(
    ctx: GliskContext,
    token_ids: list[int],
    *,
    force: bool = False,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """File the wish to reveal these tokens now and say which are taken and why others are not.

    `force` also takes them while the reveal stage is paused. Checks on chain are never skipped.
    """
    async with unit_of_work(ctx) as uow:
        if idempotency_key is not None:
            earlier = await uow.requests.by_idempotency_key(idempotency_key)
            if earlier is not None:
                if earlier.token_ids != token_ids:
                    raise Conflict(
                        f"Idempotency-Key {idempotency_key!r} was used for other tokens before"
                    )
                return earlier.answer
        tokens = {t.token_id: t for t in await uow.tokens.get_many(token_ids)}
        open_keys = await _open_units(ctx, uow.session, token_ids)
        accepted: list[int] = []
        rejected: list[dict[str, Any]] = []
        for token_id in token_ids:
            token = tokens.get(token_id)
            if token is None:
                rejected.append({"token_id": token_id, "status": None, "reason": "no such token"})
            elif token.status != TokenStatus.READY:
                reason = _REASONS[token.status]
                rejected.append({"token_id": token_id, "status": token.status, "reason": reason})
            elif token_id in open_keys:
                rejected.append(
                    {
                        "token_id": token_id,
                        "status": token.status,
                        "reason": "its reveal is on its way",
                    }
                )
            else:
                accepted.append(token_id)
        batch_id = uuid7()
        answer = {"batch_id": str(batch_id), "accepted": accepted, "rejected": rejected}
        if accepted:
            added = await uow.session.scalar(
                insert(RevealRequest)
                .values(
                    batch_id=batch_id,
                    token_ids=token_ids,
                    force=force,
                    idempotency_key=idempotency_key,
                    answer=answer,
                )
                .on_conflict_do_nothing(index_elements=[RevealRequest.idempotency_key])
                .returning(RevealRequest.batch_id)
            )
            await uow.commit()
            if added is None:  # the same key at the same moment: the other one's answer counts
                return await request_reveal(
                    ctx, token_ids, force=force, idempotency_key=idempotency_key
                )
        return answer


async def _open_units(ctx: GliskContext, session: Any, token_ids: list[int]) -> set[int]:
    keys = {
        unit_key(ctx.settings.chain_id or 0, ctx.settings.contract or "", i): i for i in token_ids
    }
    rows = await session.scalars(
        text(
            "SELECT unit_key FROM causeway.relayer_units "
            "WHERE unit_key = ANY(:keys) AND state IN ('pending', 'bound')"
        ),
        {"keys": list(keys)},
    )
    return {keys[key] for key in rows}


async def retry(ctx: GliskContext, token_id: int) -> str:
    """Put a failed token back to the furthest point whose result is still good.

    Raises `NotFound`, or `Conflict` when the token has not failed.
    """
    async with unit_of_work(ctx) as uow:
        token = await uow.session.get(Token, token_id, with_for_update=True)
        if token is None:
            raise NotFound(f"there is no token {token_id}")
        if token.status != TokenStatus.FAILED:
            raise Conflict(f"token {token_id} is '{token.status}': only failed tokens are retried")
        picture = token.image_sha256 and await uow.session.scalar(
            select(Image.sha256).where(Image.sha256 == token.image_sha256)
        )
        if token.metadata_cid:
            status = TokenStatus.READY
        elif picture:
            status = TokenStatus.UPLOADING
        else:
            status = TokenStatus.DETECTED
            token.censored = False
        token.status = status.value
        token.attempts = 0
        token.next_at = None
        token.last_error = None
        await uow.commit()
    if ctx.ring is not None and status is not TokenStatus.READY:
        await ctx.ring("image" if status is TokenStatus.DETECTED else "ipfs")
    return status.value


async def failed_tokens(ctx: GliskContext) -> list[int]:
    """Return the ids of all failed tokens."""
    async with unit_of_work(ctx) as uow:
        rows = await uow.session.scalars(
            select(Token.token_id)
            .where(Token.status == TokenStatus.FAILED)
            .order_by(Token.token_id)
        )
        return list(rows)


async def pause(ctx: GliskContext, stage: str, reason: str) -> None:
    """Stop a stage from taking up tokens."""
    await control.pause(ctx.database, "glisk", stage, reason)


async def resume(ctx: GliskContext, stage: str) -> None:
    """Let a stage take up tokens again."""
    await control.resume(ctx.database, "glisk", stage)
    if ctx.ring is not None and stage != REVEAL:
        await ctx.ring(stage)


async def request_recovery(ctx: GliskContext, first: int, last: int) -> str:
    """File the wish to have blocks `first` to `last` read again; the auditor takes it up."""
    request_id: UUID = uuid7()
    async with unit_of_work(ctx) as uow:
        uow.session.add(RecoveryRequest(id=request_id, from_block=first, to_block=last))
        await uow.commit()
    return str(request_id)
