"""Health: what is degraded and why, from the database and the last probes; calls nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from causeway.apps.glisk import health as status
from causeway.apps.glisk.context import Ctx

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/health", tags=["health"])

#: The database is given this long to answer, seconds; the whole call is promised within 2.
PATIENCE_S = 1.8

_NO_DATABASE = {
    "status": "unhealthy",
    "error": {"code": "DATABASE_UNAVAILABLE", "message": "The database does not answer."},
}


async def _answer(call: Any) -> JSONResponse:
    try:
        async with asyncio.timeout(PATIENCE_S):
            body, status = await call
    except Exception as error:  # noqa: BLE001 (the driver's words go to the log, never out)
        log.error("health_without_database", error=error)
        return JSONResponse(_NO_DATABASE, 503)
    return JSONResponse(body, status)


@router.get("")
async def overall(ctx: Ctx) -> JSONResponse:
    """Say whether all is well, degraded (and by what), or the database is away."""
    return await _answer(status.overall(ctx))


@router.get("/blockchain")
async def blockchain(ctx: Ctx) -> JSONResponse:
    """Say how far the chain has been read and what the keeper has."""
    return await _answer(status.blockchain(ctx))


@router.get("/workers")
async def workers(ctx: Ctx) -> JSONResponse:
    """Say what each stage has in hand and waiting, and since when."""
    return await _answer(status.workers(ctx))


@router.get("/metrics")
async def figures(ctx: Ctx) -> JSONResponse:
    """Return the figures of the last day."""
    return await _answer(status.figures(ctx))
