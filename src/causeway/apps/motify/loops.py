"""Motify's loops and schedules: what runs by the clock, once in the whole installation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import text

from causeway.apps.motify.chain_time import final_block
from causeway.apps.motify.context import (
    CHAIN,
    MotifyContext,
    connections_of,
    contract_of,
    keyring_of,
)
from causeway.apps.motify.settings import MotifySettings
from causeway.apps.motify.watching import watch
from causeway.connections.revocation import revoke_due
from causeway.pipelines.loops import LeasedLoop
from causeway.pipelines.schedules import Schedule
from causeway.store.lease import Lease

#: How long a dead process's loop stands still, seconds.
LEASE_S = 6.0


def loops(settings: MotifySettings) -> Sequence[LeasedLoop]:
    """Return the loops; none that asks the chain when no chain is configured."""
    loop = partial(LeasedLoop, lease_s=LEASE_S)
    made = [loop(name="motify:revoke", interval_s=30.0, work=revoke)]
    if not settings.missing():
        interval_s = min(2.0, settings.motify_poll_seconds)
        made.append(loop(name="motify:watch", interval_s=interval_s, work=watch))
    return made


def schedules(settings: MotifySettings) -> Sequence[Schedule]:
    """Return the hourly audit: every challenge of the contract is known here."""
    if settings.missing():
        return ()
    return (Schedule(name="audit", cron="23 * * * *", work=audit),)


async def revoke(ctx: MotifyContext, _lease: Lease) -> None:
    """Tell providers of tokens that were given up."""
    connections = connections_of(ctx)
    await revoke_due(ctx.database, keyring_of(ctx), "motify", connections.providers)


async def audit(ctx: MotifyContext) -> None:
    """Compare the number of challenges at a final block with those known; raise what is missing."""
    from causeway.apps.motify.incidents import raise_incident, resolve

    if CHAIN not in ctx.chains:
        return
    block = await final_block(ctx)
    count = await contract_of(ctx).next_id(block.number)
    async with ctx.database.transaction() as session:
        read_to = await session.scalar(
            text("SELECT number FROM causeway.checkpoints WHERE source = 'motify'")
        )
        if read_to is None or int(read_to) < block.number:
            return
        missing = (
            await session.scalars(
                text(
                    "SELECT i FROM generate_series(0, CAST(:last AS bigint)) AS i WHERE NOT EXISTS "
                    "(SELECT FROM motify.chain_challenges WHERE chain_id = :chain "
                    "AND contract_address = :contract AND challenge_id = i) LIMIT 100"
                ),
                {
                    "last": count - 1,
                    "chain": ctx.settings.chain_id,
                    "contract": ctx.settings.contract,
                },
            )
        ).all()
        if missing:
            await raise_incident(
                session,
                "challenges_missing",
                "contract",
                missing=[int(i) for i in missing],
                hint="causeway index verify motify",
            )
        else:
            await resolve(session, "challenges_missing", "contract")
