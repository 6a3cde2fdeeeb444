"""Silences: notifications that are kept quiet for a while."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Depends
from sqlalchemy import text

from causeway.apps.mobs import bounded
from causeway.apps.mobs.alerts.rules import wrong
from causeway.apps.mobs.context import Ctx, admin_only, reading
from causeway.apps.mobs.schemas import NewSilence
from causeway.base.errors import NotFound

router = bounded.router("silences")
Admin = Depends(admin_only)

MATCHERS = ("alert_id", "severity", "alert_type", "series", "name")


@router.get("/silences")
async def silence_list(ctx: Ctx) -> dict[str, Any]:
    """List the silences that are not over."""
    now = int(ctx.clock.now().timestamp())
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text("SELECT * FROM mobs.silences WHERE ends_at > :now ORDER BY id DESC"),
                    {"now": now},
                )
            )
            .mappings()
            .all()
        )
    return {"silences": [dict(row) for row in rows]}


@router.post("/silences", dependencies=[Admin])
async def silence_make(ctx: Ctx, body: NewSilence) -> dict[str, Any]:
    """Make a silence; all its matchers have to match."""
    unknown = [name for name in body.matchers if name not in MATCHERS]
    if unknown or not body.matchers:
        raise wrong("matchers", unknown[0] if unknown else "{}", f"any of {', '.join(MATCHERS)}")
    if body.ends_at <= body.starts_at:
        raise wrong("ends_at", body.ends_at, f"after starts_at ({body.starts_at})")
    async with ctx.database.transaction() as session:
        row = (
            (
                await session.execute(
                    text(
                        "INSERT INTO mobs.silences (matchers, starts_at, ends_at, author, comment) "
                        "VALUES (CAST(:matchers AS jsonb), :starts_at, :ends_at, :author, :comment)"
                        " RETURNING *"
                    ),
                    body.model_dump() | {"matchers": orjson.dumps(body.matchers).decode()},
                )
            )
            .mappings()
            .one()
        )
    return {"silence": dict(row)}


@router.delete("/silences/{silence_id}", dependencies=[Admin])
async def silence_end(ctx: Ctx, silence_id: int) -> dict[str, Any]:
    """End a silence."""
    async with ctx.database.transaction() as session:
        gone = await session.scalar(
            text("DELETE FROM mobs.silences WHERE id = :id RETURNING id"), {"id": silence_id}
        )
    if gone is None:
        raise NotFound(f"there is no silence {silence_id}")
    return {"message": "Silence deleted"}
