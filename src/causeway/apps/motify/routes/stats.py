"""Statistics of one wallet, from the archive."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from causeway.apps.motify.context import Ctx
from causeway.apps.motify.schemas import is_wallet
from causeway.apps.motify.statistics import totals_of
from causeway.base.errors import Field, InvalidInput, PermanentError

router = APIRouter(prefix="/stats", tags=["statistics"])


@router.get("/user")
async def user(ctx: Ctx, wallet: str) -> dict[str, Any]:
    """Return what a wallet's finished challenges add up to; zeros for one without any."""
    if not wallet.strip():
        raise PermanentError("wallet is required")
    if not is_wallet(wallet):
        allowed = "an address, 0x and 40 hex digits"
        raise InvalidInput(fields=[Field("query.wallet", wallet[:50], allowed)])
    found = await totals_of(ctx, wallet)
    return found.view(wallet, ctx.settings.stake_token_decimals)
