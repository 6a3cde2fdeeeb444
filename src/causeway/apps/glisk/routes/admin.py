"""For operators: what stands where and why, reveal now, retry, pause, read blocks again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import JSONResponse
from sqlalchemy import text

from causeway.apps.glisk import operations
from causeway.apps.glisk.context import Ctx, admin_only, unit_of_work
from causeway.apps.glisk.models import TokenStatus
from causeway.apps.glisk.schemas import (
    MAX_TOKEN_ID,
    RecoverBody,
    RevealBody,
    job_view,
    mint_view,
    plain,
    token_row,
    upload_view,
)
from causeway.base.clock import iso
from causeway.base.errors import Conflict, Field, InvalidInput, NotFound
from causeway.base.settings import describe

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(admin_only)])

TokenIdPath = Annotated[int, Path(ge=1, le=MAX_TOKEN_ID)]
StageName = Literal["image", "ipfs", "reveal"]


@router.post("/reveal", status_code=202)
async def reveal_now(
    ctx: Ctx,
    body: RevealBody,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> dict[str, Any]:
    """Reveal these tokens without waiting for a batch to fill; every check is still made.

    The same `Idempotency-Key` gives the first answer again and files nothing new.
    """
    answer = await operations.request_reveal(
        ctx, body.token_ids, force=body.force, idempotency_key=idempotency_key
    )
    if not answer["accepted"]:
        reasons = "; ".join(f"{r['token_id']}: {r['reason']}" for r in answer["rejected"])
        raise Conflict(f"none of these tokens can be revealed now: {reasons}")
    return answer


@router.get("/token/{token_id}")
async def token_detail(ctx: Ctx, token_id: TokenIdPath) -> dict[str, Any]:
    """Return one token and everything that was done for it."""
    async with unit_of_work(ctx) as uow:
        await uow.snapshot()
        token = await uow.tokens.get_by_id(token_id)
        if token is None:
            raise NotFound(f"there is no token {token_id}")
        author = await uow.authors.get_by_id(token.author_id)
        return token_row(token, author) | {
            "history": {
                "mint_event": mint_view(await uow.history.mint_event(token)),
                "generation_jobs": [job_view(j) for j in await uow.history.jobs(token_id)],
                "ipfs_uploads": [upload_view(u) for u in await uow.history.uploads(token_id)],
                "reveal_transactions": [plain(r) for r in await uow.history.reveals(token_id)],
                "transitions": [plain(t) for t in await uow.history.transitions(token_id)],
            }
        }


@router.get("/tokens")
async def token_list(
    ctx: Ctx,
    status: TokenStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> dict[str, Any]:
    """List tokens by id; `next_cursor` continues where this page ends."""
    after: int | None = None
    if cursor is not None:
        if not cursor.isdigit() or int(cursor) > MAX_TOKEN_ID:
            raise InvalidInput(fields=[Field("query.cursor", cursor, "a next_cursor of this list")])
        after = int(cursor)
    async with unit_of_work(ctx) as uow:
        rows = await uow.tokens.page(status, limit + 1, after, offset)
        total = await uow.tokens.count(status)
    page = rows[:limit]
    more = len(rows) > limit
    return {
        "items": [token_row(token, author) for token, author in page],
        "total": total,
        "next_cursor": str(page[-1][0].token_id) if more else None,
    }


@router.get("/system/state")
async def system_state(ctx: Ctx) -> dict[str, Any]:
    """Return what the system knows of itself: state, contract, configuration, incidents."""
    async with unit_of_work(ctx) as uow:
        state = await uow.session.execute(
            text("SELECT state_key, state_value, updated_at FROM glisk.system_state ORDER BY 1")
        )
        contract = await uow.session.execute(
            text("SELECT name, value FROM glisk.contract_state ORDER BY name")
        )
        incidents = await uow.history.incidents()
        return {
            "state": {
                row.state_key: {
                    "value": row.state_value,
                    "updated_at": iso(row.updated_at) if row.updated_at else None,
                }
                for row in state
            },
            "contract": {
                "address": ctx.settings.contract,
                "chain_id": ctx.settings.chain_id,
                **{row.name: row.value for row in contract},
            },
            "configuration": {s.name: s.value for s in describe(ctx.settings)},
            "incidents": [
                {
                    "id": str(i.id),
                    "kind": i.kind,
                    "token_id": i.token_id,
                    "detail": i.detail,
                    "created_at": iso(i.created_at),
                }
                for i in incidents
            ],
        }


@router.post("/token/{token_id}/retry", status_code=202)
async def retry_token(ctx: Ctx, token_id: TokenIdPath) -> dict[str, Any]:
    """Put a failed token back to the furthest point whose result is still good."""
    status = await operations.retry(ctx, token_id)
    return {"token_id": token_id, "status": status}


@router.post("/stages/{stage}/pause")
async def pause_stage(ctx: Ctx, stage: StageName, reason: str = "paused by an operator") -> Any:
    """Stop a stage from taking up tokens; what is in hand is finished."""
    await operations.pause(ctx, stage, reason[:500])
    return {"stage": stage, "paused": reason[:500]}


@router.post("/stages/{stage}/resume")
async def resume_stage(ctx: Ctx, stage: StageName) -> Any:
    """Let a stage take up tokens again."""
    await operations.resume(ctx, stage)
    return {"stage": stage, "paused": None}


@router.post("/recover", status_code=202)
async def recover_blocks(ctx: Ctx, body: RecoverBody) -> JSONResponse:
    """Have a range of blocks read again; mints that were missed are applied."""
    if body.to_block < body.from_block:
        raise InvalidInput(
            fields=[Field("body.to_block", str(body.to_block), f"at least {body.from_block}")]
        )
    request_id = await operations.request_recovery(ctx, body.from_block, body.to_block)
    return JSONResponse(
        {"request_id": request_id, "from_block": body.from_block, "to_block": body.to_block},
        status_code=202,
    )
