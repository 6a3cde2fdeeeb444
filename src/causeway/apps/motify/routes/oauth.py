"""Accounts that are linked by OAuth: where to go, coming back, how it stands, letting go."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from causeway.apps.motify import linking, oauth_result, signatures
from causeway.apps.motify.context import Ctx, connections_of
from causeway.apps.motify.schemas import (
    ProviderNotSupported,
    Signature,
    Timestamp,
    Wallet,
    no_store,
)
from causeway.apps.motify.signatures import Proof
from causeway.connections import flow

router = APIRouter(prefix="/oauth", tags=["connections"], dependencies=[Depends(no_store)])


@router.get("/providers")
async def providers(ctx: Ctx) -> dict[str, list[str]]:
    """Return the providers that people can connect to."""
    return {"providers": ["github"] if ctx.services.github.oauth is not None else []}


@router.get("/status/{provider}/{wallet}")
async def status(ctx: Ctx, provider: str, wallet: Wallet) -> dict[str, Any]:
    """Say whether a wallet's account is connected and, as far as is known, working."""
    return await linking.oauth_status(ctx, linking.by_oauth(ctx, provider), wallet)


@router.get("/connect/{provider}")
async def connect(
    ctx: Ctx, provider: str, wallet_address: Wallet, signature: Signature, timestamp: Timestamp
) -> dict[str, str]:
    """Return where the person goes to connect an account; the wallet signs

    `Connect OAuth provider {provider} to wallet {wallet} at {timestamp}`.
    """
    client = linking.by_oauth(ctx, provider)
    if client.oauth is None:
        raise ProviderNotSupported(provider)
    await signatures.require_connect(ctx, provider, wallet_address, Proof(signature, timestamp))
    begun = await flow.begin(connections_of(ctx).vault, client, wallet_address)
    return {"auth_url": begun.url, "state": begun.state}


@router.get("/callback/{provider}", response_class=Response)
async def callback(ctx: Ctx, request: Request, provider: str) -> Response:
    """Take the person back from the provider: always a result for a browser.

    Query: `code` and `state`, or `error` and `state`.
    """
    query = request.query_params
    result = await linking.finish(
        ctx,
        provider,
        code=query.get("code") or None,
        state=query.get("state") or None,
        error=query.get("error") or None,
    )
    settings = ctx.settings
    if settings.motify_oauth_result == "page":
        return oauth_result.page(settings.frontend_url, result, ctx.clock.now())
    return oauth_result.redirect(settings.frontend_url, result)


@router.delete("/disconnect/{provider}/{wallet}")
async def disconnect(
    ctx: Ctx, provider: str, wallet: Wallet, signature: Signature, timestamp: Timestamp
) -> dict[str, Any]:
    """Forget an account; the provider is told in the background. The wallet signs

    `Disconnect OAuth provider {provider} from wallet {wallet} at {timestamp}`.
    """
    client = linking.by_oauth(ctx, provider)
    await signatures.require_disconnect(ctx, provider, wallet, Proof(signature, timestamp))
    await connections_of(ctx).vault.remove(client.name, wallet)
    return {"success": True, "provider": client.name, "wallet_address": wallet}
