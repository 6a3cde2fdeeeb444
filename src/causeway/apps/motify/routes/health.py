"""Health: that this process answers, and whether the database does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from causeway.apps.motify.context import Ctx
from causeway.ops.health import database_answers

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(ctx: Ctx) -> dict[str, Any]:
    """Say within two seconds whether the database answers, and what is set unsafely."""
    answer: dict[str, Any] = {"ok": True, "db": await database_answers(ctx.database)}
    if ctx.settings.motify_allow_unsigned_wakatime:
        answer["warnings"] = [
            "MOTIFY_ALLOW_UNSIGNED_WAKATIME is on: anybody may overwrite anybody's WakaTime key"
        ]
    return answer
