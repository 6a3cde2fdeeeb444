"""Reading the chain at once, where no worker does it: for crons that only call over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text

from causeway.apps.motify.context import CHAIN, SOURCE, MotifyContext
from causeway.apps.motify.refreshing import refresh
from causeway.apps.motify.watching import watch
from causeway.base.errors import ChainBehind, ConfigurationError
from causeway.store import lease as leases
from causeway.store.lease import Lease

#: How long one call reads, and for how long a process that died keeps workers away, seconds.
_DEADLINE_S = 40.0
_LEASE_S = 60.0
_LOOK_S = 0.2
#: Rounds of reading what changed, of up to fifty challenges each.
_MOST_ROUNDS = 200


async def read_now(ctx: MotifyContext) -> None:
    """Read to the chain's head and see what has begun and ended; a worker's loops are waited for.

    Raises `ChainBehind` when there is more than one call can read: the next goes on from there.
    """
    if SOURCE not in ctx.indexers:
        raise ConfigurationError(ctx.settings.missing())
    head = (await ctx.chains[CHAIN].head()).number
    async with _leased(ctx, f"indexing:{SOURCE}") as ours:
        if ours is not None:
            await ctx.indexers[SOURCE].catch_up(head, _DEADLINE_S)
        else:
            await _others_read(ctx, head)
    for _ in range(_MOST_ROUNDS):
        if not await refresh(ctx):
            break
    async with _leased(ctx, "motify:watch") as ours:
        if ours is not None:
            await watch(ctx)


@asynccontextmanager
async def _leased(ctx: MotifyContext, loop: str) -> AsyncGenerator[Lease | None]:
    """Do a worker's loop in its place; None when a worker does it."""
    lease = await leases.acquire(ctx.database, loop, uuid.uuid4().hex, _LEASE_S)
    try:
        yield lease
    finally:
        if lease is not None:
            await leases.release(ctx.database, lease)


async def _others_read(ctx: MotifyContext, head: int) -> None:
    ends_at = ctx.clock.monotonic() + _DEADLINE_S
    while True:
        async with ctx.database.sessions() as session:
            read_to = await session.scalar(
                text("SELECT number FROM causeway.checkpoints WHERE source = :source"),
                {"source": SOURCE},
            )
        if read_to is not None and int(read_to) >= head:
            return
        if ctx.clock.monotonic() >= ends_at:
            raise ChainBehind(f"block {head} is not read yet")
        await ctx.clock.sleep(_LOOK_S)
