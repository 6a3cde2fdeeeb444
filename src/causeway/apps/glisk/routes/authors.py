"""Authors: what the public frontend reads of them and sets for them, signed by their wallet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from eth_utils.address import is_address
from fastapi import APIRouter, Query
from fastapi.responses import RedirectResponse

from causeway.apps.glisk import linking
from causeway.apps.glisk.context import Ctx, unit_of_work
from causeway.apps.glisk.schemas import (
    FarcasterBody,
    LinkStartBody,
    PromptBody,
    Wallet,
    author_token_view,
)

router = APIRouter(prefix="/api/authors", tags=["authors"])

Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/leaderboard")
async def leaderboard(ctx: Ctx) -> list[dict[str, Any]]:
    """Return the fifty authors most minted from."""
    async with unit_of_work(ctx) as uow:
        rows = await uow.authors.leaderboard()
    return [{"author_address": wallet, "total_tokens": tokens} for wallet, tokens in rows]


@router.get("/challenge")
async def challenge(
    ctx: Ctx,
    wallet: Wallet,
    action: Literal["prompt", "x", "farcaster"],
    prompt_sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
) -> dict[str, Any]:
    """Return the text to sign, good once and for ten minutes.

    For `prompt`, give the SHA-256 of the prompt's UTF-8 bytes: the signature binds to it.
    """
    return await linking.issue_challenge(ctx, wallet, action, prompt_sha256)


@router.post("/prompt")
async def set_prompt(ctx: Ctx, body: PromptBody) -> dict[str, Any]:
    """Set the prompt of later mints."""
    async with unit_of_work(ctx) as uow:
        await linking.check_signature(
            ctx,
            uow,
            body.wallet_address,
            "prompt",
            body.message,
            body.signature,
            payload=body.prompt_text,
        )
        await uow.authors.set_prompt(body.wallet_address, body.prompt_text)
        await uow.commit()
    return {"success": True, "has_prompt": True}


@router.post("/x/auth/start")
async def x_start(ctx: Ctx, body: LinkStartBody) -> dict[str, str]:
    """Start linking an X account; the browser goes to the address returned."""
    async with unit_of_work(ctx) as uow:
        await linking.check_signature(
            ctx, uow, body.wallet_address, "x", body.message, body.signature
        )
        await uow.commit()
    return {"authorization_url": await linking.start_x(ctx, body.wallet_address)}


@router.get("/x/callback", status_code=302, response_class=RedirectResponse)
async def x_callback(
    ctx: Ctx,
    code: Annotated[str | None, Query(max_length=4000)] = None,
    state: Annotated[str | None, Query(max_length=4000)] = None,
    error: Annotated[str | None, Query(max_length=200)] = None,
) -> RedirectResponse:
    """Finish linking an X account and send the browser back to the frontend."""
    return RedirectResponse(await linking.finish_x(ctx, code, state, error), status_code=302)


@router.post("/farcaster/link")
async def link_farcaster(ctx: Ctx, body: FarcasterBody) -> dict[str, Any]:
    """Link a Farcaster account that both wallets signed for."""
    async with unit_of_work(ctx) as uow:
        await linking.check_signature(
            ctx, uow, body.wallet_address, "farcaster", body.wallet_message, body.wallet_signature
        )
        username = await linking.link_farcaster(
            ctx,
            uow,
            body.wallet_address,
            body.farcaster_message,
            body.farcaster_signature,
            body.fid,
            body.username,
        )
        await uow.commit()
    return {"success": True, "username": username, "fid": body.fid}


@router.get("/{wallet}/tokens")
async def tokens_of(
    ctx: Ctx, wallet: Wallet, offset: Offset = 0, limit: Limit = 20
) -> dict[str, Any]:
    """Return an author's tokens, newest first."""
    async with unit_of_work(ctx) as uow:
        tokens, total = await uow.tokens.of_author(wallet, offset, limit)
    return {
        "tokens": [author_token_view(t, ctx.settings.gateway_url) for t in tokens],
        "total": total,
        "offset": offset,
        "limit": limit,
    }


@router.get("/{wallet}")
async def author(ctx: Ctx, wallet: str) -> dict[str, Any]:
    """Return what is public of an author; unknown and malformed wallets have nothing."""
    found = None
    if is_address(wallet):
        async with unit_of_work(ctx) as uow:
            found = await uow.authors.get_by_wallet(wallet)
    return {
        "has_prompt": found is not None and found.prompt_text is not None,
        "twitter_handle": found.twitter_handle if found else None,
        "farcaster_handle": found.farcaster_handle if found else None,
    }
