"""WakaTime accounts, which are linked by an API key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.routing import APIRoute

from causeway.apps.motify import linking, signatures
from causeway.apps.motify.context import Ctx, connections_of
from causeway.apps.motify.schemas import (
    WakaTimeKeyBody,
    WakaTimeRefused,
    Wallet,
    is_wallet,
    no_store,
)
from causeway.base.errors import Field, InvalidInput, TooLarge

_PROVIDER = "wakatime"
#: A key, an address and the longest signature, in hex.
_MOST_BYTES = 64 * 1024


class BoundedRoute(APIRoute):
    """A route that reads so much of a body and no more: anybody may send one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            content = bytearray()
            async for part in request.stream():
                content += part
                if len(content) > _MOST_BYTES:
                    raise TooLarge(f"the body is larger than {_MOST_BYTES} bytes")
            request._body = bytes(content)  # where Starlette keeps what it has read
            return await handler(request)

        return answer


router = APIRouter(
    prefix="/oauth/wakatime/api-key",
    tags=["connections"],
    route_class=BoundedRoute,
    dependencies=[Depends(no_store)],
)


@router.get("/{wallet}")
async def key_status(ctx: Ctx, wallet: Wallet) -> dict[str, Any]:
    """Say whether a wallet has a key here that works as far as is known; never which."""
    found = await linking.usable(ctx, _PROVIDER, wallet)
    return {"has_api_key": found is not None, "provider": _PROVIDER, "wallet_address": wallet}


@router.post("")
async def save_key(ctx: Ctx, body: WakaTimeKeyBody) -> dict[str, Any]:
    """Keep a key, once WakaTime has taken it. The wallet signs

    `Connect OAuth provider wakatime to wallet {wallet} at {timestamp}`.
    """
    wallet, api_key = body.wallet_address.strip(), body.api_key.strip()
    if not wallet or not api_key:
        raise WakaTimeRefused("wallet_address and api_key are required")
    if not is_wallet(wallet):
        allowed = "an address, 0x and 40 hex digits"
        raise InvalidInput(fields=[Field("body.wallet_address", wallet[:50], allowed)])
    wallet = wallet.lower()
    linking.check_wakatime_key(api_key)
    proof = linking.proof_of(ctx, body.signature, body.timestamp)
    if proof is not None:
        await signatures.require_connect(ctx, _PROVIDER, wallet, proof)
    await linking.save_wakatime_key(ctx, wallet, api_key)
    return _done(wallet)


@router.delete("/{wallet}")
async def delete_key(
    ctx: Ctx,
    wallet: Wallet,
    signature: str | None = None,
    timestamp: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
) -> dict[str, Any]:
    """Forget a key. The wallet signs

    `Disconnect OAuth provider wakatime from wallet {wallet} at {timestamp}`.
    """
    proof = linking.proof_of(ctx, signature, timestamp)
    if proof is not None:
        await signatures.require_disconnect(ctx, _PROVIDER, wallet, proof)
    await connections_of(ctx).vault.remove(_PROVIDER, wallet)
    return _done(wallet)


def _done(wallet: str) -> dict[str, Any]:
    return {"success": True, "provider": _PROVIDER, "wallet_address": wallet}
