"""M-OBS's view of what the runtime gives it, and the dependencies of its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import aiohttp
from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.app import Context, context_of
from causeway.apps.mobs.settings import MobsSettings
from causeway.apps.mobs.watched import Watched
from causeway.auth.bearer import check_admin

CHAIN = "mobs"
SOURCE = "mobs"


@dataclass
class Services:
    """What lives as long as the process."""

    #: For probes and notifications.
    http: aiohttp.ClientSession
    watched: Watched = field(default_factory=Watched)
    #: Traces taken lately, monotonic seconds.
    traced_at: list[float] = field(default_factory=list[float])
    #: Nobody offers traces; asked again after this, monotonic seconds, and at once when a probe
    #: made after the second, Unix seconds, found somebody who does.
    untraceable_until: float = 0.0
    untraceable_since: int = 0
    #: The look at the database that `/health` waits for.
    health: asyncio.Task[dict[str, Any]] | None = None
    #: Providers without an address here, which was told already.
    unconfigured: set[int] = field(default_factory=set[int])
    #: When this process began to work, Unix seconds.
    started_at: int | None = None


MobsContext = Context[MobsSettings, Services]
Ctx = Annotated[MobsContext, Depends(context_of("mobs"))]


@asynccontextmanager
async def reading(ctx: MobsContext) -> AsyncGenerator[AsyncSession]:
    """Open a session that reads one moment of the database and gives up after 5 seconds."""
    async with ctx.database.sessions() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await session.execute(text("SET LOCAL statement_timeout = '5s'"))
        yield session


def admin_only(request: Request, ctx: Ctx) -> None:
    """Let only operators pass: a bearer token when one is set, else peers on this machine."""
    check_admin(request, ctx.settings.admin_token)
