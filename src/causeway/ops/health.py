"""Liveness and readiness, for whoever restarts processes and routes traffic.

Live: the process answers; restart it when it does not. Ready: the database answers too; send no
traffic while it does not. An app's own health pages say what is degraded and why.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from causeway.store.engine import Database

router = APIRouter(tags=["operations"])

#: How long the database may take to say that it is there, seconds.
PATIENCE_S = 1.5


async def database_answers(database: Database) -> bool:
    """Return whether the database answers within `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await database.ping()
    except Exception:  # noqa: BLE001 (whatever the driver says, the answer is: it does not)
        return False
    return True


@router.get("/livez", include_in_schema=False)
async def live() -> Response:
    """Answer: this process is alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", include_in_schema=False)
async def ready(request: Request) -> Response:
    """Answer whether this process can do its work now."""
    if await database_answers(request.app.state.database):
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready", "reason": "the database does not answer"}, 503)
