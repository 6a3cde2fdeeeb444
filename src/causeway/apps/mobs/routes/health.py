"""Who this is and whether it is well."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from causeway import __version__
from causeway.apps.mobs import bounded
from causeway.apps.mobs.context import Ctx, MobsContext

router = bounded.router("health")

#: A database that takes longer counts as down here, seconds.
_PATIENCE_S = 0.8
#: An index behind by more than this is not well, seconds.
_HEAD_AGE_S = 60


@router.get("/")
async def root() -> dict[str, str]:
    """Say who this is."""
    return {"name": "M-OBS", "version": __version__, "docs": "/docs"}


@router.get("/health")
async def health(ctx: Ctx, response: Response, strict: bool = False) -> dict[str, Any]:
    """Say whether this can serve; with `strict` 503 unless everything behind it is well."""
    now = int(ctx.clock.now().timestamp())
    answer: dict[str, Any] = {"status": "ok", "timestamp": now}
    try:
        answer |= await _looked(ctx, now)
    except (SQLAlchemyError, OSError, TimeoutError):
        answer |= {
            "database": "down",
            "worker": "absent",
            "head_lag_blocks": None,
            "head_lag_seconds": None,
            "pipelines": {},
        }
    if strict and not _is_well(answer):
        response.status_code = 503
        answer["status"] = "unhealthy"
    return answer


async def _looked(ctx: MobsContext, now: int) -> dict[str, Any]:
    """Return what the database says, within the patience of who asks.

    One look at a time: where the last one hangs, so would the next.
    """
    services = ctx.services
    if services.health is None or services.health.done():
        services.health = asyncio.create_task(_behind(ctx, now))
        # Who gave up waiting does not see how it ended.
        services.health.add_done_callback(lambda task: task.cancelled() or task.exception())
    done, _ = await asyncio.wait({services.health}, timeout=_PATIENCE_S)
    if not done:
        raise TimeoutError
    return services.health.result()


def _is_well(answer: dict[str, Any]) -> bool:
    lag = answer["head_lag_seconds"]
    return (
        answer["database"] == "ok"
        and answer["worker"] == "ok"
        and lag is not None
        and lag <= _HEAD_AGE_S
        and all(not one["stale"] for one in answer["pipelines"].values())
    )


async def _behind(ctx: MobsContext, now: int) -> dict[str, Any]:
    async with ctx.database.sessions() as session:
        await session.execute(text("SET LOCAL statement_timeout = '700ms'"))
        states = {
            key: (value, at)
            for key, value, at in await session.execute(
                text("SELECT key, value, updated_at FROM mobs.worker_state")
            )
        }
        checkpoint = (
            await session.execute(
                text(
                    "SELECT number, head_number, problem, extract(epoch FROM updated_at)::bigint "
                    "FROM causeway.checkpoints WHERE source = 'mobs'"
                )
            )
        ).first()
    settings = ctx.settings
    intervals = {
        "provider_probe": ("provider_scores", settings.poll_interval_probe),
        "metrics_rollup": ("metrics_rollup_cursor", settings.poll_interval_rollup),
        "alert_evaluator": ("alert_eval_cursor", settings.poll_interval_alerts),
        "block_scanner": ("last_scanned_block", settings.poll_interval_scanner),
    }
    pipelines: dict[str, Any] = {}
    for name, (key, interval_s) in intervals.items():
        if name not in settings.worker_enabled_pipelines:
            continue  # nobody is to run it
        at = states[key][1] if key in states else None
        error = checkpoint[2] if checkpoint and name == "block_scanner" else None
        lag = None if at is None else max(0, now - at)
        # A chain that stands still gives nothing to scan, and no minute to compute.
        slowest = max(5 * interval_s, 120 if name == "metrics_rollup" else 60)
        pipelines[name] = {
            "last_success_at": at,
            "last_error": error,
            "lag_s": lag,
            "stale": lag is None or lag > slowest,
        }
    beat = states.get("heartbeat")
    worker = "absent" if beat is None else "ok" if now - beat[1] < 30 else "stale"
    scanned = states.get("last_scanned_block")
    return {
        "database": "ok",
        "worker": worker,
        "head_lag_blocks": None if checkpoint is None else max(0, checkpoint[1] - checkpoint[0]),
        "head_lag_seconds": None if scanned is None else max(0, now - scanned[0]["timestamp"]),
        "pipelines": pipelines,
    }
