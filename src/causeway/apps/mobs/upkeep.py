"""What keeps the house in order: the heartbeat, settled blocks, labels, days to come and gone."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from sqlalchemy import text

from causeway.apps.mobs import gauges, holes, partitions, scanner
from causeway.apps.mobs.context import CHAIN, MobsContext
from causeway.apps.mobs.labels import label
from causeway.apps.mobs.partitions import DAY_S
from causeway.apps.mobs.scanner import note
from causeway.base.errors import TransientError
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

#: Rows deleted in one transaction.
_AT_ONCE = 5000
#: Days whose blocks came within this are still being loaded, seconds.
_LOADING_S = 3600


async def beat(ctx: MobsContext, lease: Lease) -> None:
    """Show that a worker is there, settle blocks, and label what new contracts bring."""
    now = int(ctx.clock.now().timestamp())
    if ctx.services.started_at is None:
        ctx.services.started_at = now
    async with ctx.database.transaction() as session:
        await note(
            session,
            "heartbeat",
            {
                "worker_id": ctx.settings.worker_id or lease.holder,
                "started_at": ctx.services.started_at,
                "last_beat": now,
            },
        )
        await gauges.show(session, now)
    await settle(ctx)
    await label(ctx)


async def settle(ctx: MobsContext) -> None:
    """Clear `is_tentative` of what the chain calls safe, or is deep enough."""
    if CHAIN not in ctx.chains:
        return
    try:
        head, safe = await ctx.chains[CHAIN].look("latest", "safe")
    except TransientError:
        return
    if head is None:
        return
    deep = head.number - ctx.settings.tentative_depth
    settled = deep if safe is None or safe.number >= head.number else max(safe.number, deep)
    async with ctx.database.transaction() as session:
        await scanner.settle(session, settled)


async def retain(ctx: MobsContext, _lease: Lease) -> None:
    """Make the days to come and drop what is too old."""
    await retain_now(ctx)


async def retain_now(ctx: MobsContext) -> None:
    """Make the days to come and drop what is too old."""
    now = int(ctx.clock.now().timestamp())
    await partitions.ahead(ctx.database, now)
    for table, day in await too_old(ctx):
        async with ctx.database.transaction() as session:
            await session.execute(text("SET LOCAL lock_timeout = '5s'"))
            await partitions.drop(session, table, day)
        log.info("day_dropped", table=table, day=partitions.day_name(day))
    await _rows(ctx, now)
    async with ctx.database.transaction() as session:
        await holes.find(session)


async def too_old(ctx: MobsContext) -> list[tuple[str, int]]:
    """Return the days of tables that retention lets go.

    Never one with a minute still marked, nor one whose blocks came in the last hour: a range that
    is being loaded from history would lose what its minutes are computed from.
    """
    settings = ctx.settings
    now = int(ctx.clock.now().timestamp())
    today = now // DAY_S
    kept = {
        "txs_ok": settings.retention_success_days,
        "txs_failed": settings.retention_failed_days,
        "blocks": 0
        if 0 in (settings.retention_success_days, settings.retention_failed_days)
        else max(settings.retention_success_days, settings.retention_failed_days),
        "tx_traces": settings.retention_traces_days,
        "rpc_health_samples": settings.retention_samples_days,
        "metrics_minute": settings.retention_minutes_days,
    }
    found: list[tuple[str, int]] = []
    async with ctx.database.sessions() as session:
        busy = set(
            await session.scalars(
                text(
                    "SELECT bucket_ts / 86400 FROM mobs.dirty_minutes UNION "
                    "SELECT timestamp / 86400 FROM mobs.blocks "
                    "WHERE timestamp < :today AND indexed_at > :lately"
                ),
                {"today": today * DAY_S, "lately": now - _LOADING_S},
            )
        )
        for table, days in kept.items():
            if days:
                found += [
                    (table, day)
                    for day in await partitions.days_of(session, table)
                    if day < today - days and day not in busy
                ]
    return found


#: Tables that have no days: the column of time, the setting, and what else must be true.
_UNDATED: Mapping[str, tuple[str, str, str]] = {
    "metrics_hour": ("bucket_ts", "retention_hours_days", ""),
    "metrics_minute_contract": (
        "bucket_ts",
        "retention_minutes_days",
        " AND bucket_ts NOT IN (SELECT bucket_ts FROM mobs.dirty_minutes)",
    ),
    "alert_events": ("triggered_at", "retention_events_days", " AND resolved_at IS NOT NULL"),
    "notifications": ("created_at", "retention_events_days", " AND state <> 'waiting'"),
    "silences": ("ends_at", "retention_events_days", ""),
    "lies": ("detected_at", "retention_reorgs_days", ""),
    "reorgs": ("detected_at", "retention_reorgs_days", ""),
}


async def _rows(ctx: MobsContext, now: int) -> None:
    """Delete old rows of the tables that have no days, some at a time."""
    for table, (column, setting, more) in _UNDATED.items():
        days = int(getattr(ctx.settings, setting))
        gone = _AT_ONCE if days else 0
        while gone == _AT_ONCE:
            async with ctx.database.transaction() as session:
                found = await session.scalars(
                    text(
                        f"DELETE FROM mobs.{table} WHERE ctid IN (SELECT ctid FROM mobs.{table} "
                        f"WHERE {column} < :before{more} LIMIT :most) RETURNING 1"
                    ),
                    {"before": now - days * DAY_S, "most": _AT_ONCE},
                )
                gone = len(found.all())
    newest = ctx.settings.retention_traces_newest
    if newest:
        async with ctx.database.transaction() as session:
            await session.execute(
                text(
                    "DELETE FROM mobs.tx_traces WHERE (block_timestamp, block_number, tx_index) < "
                    "(SELECT block_timestamp, block_number, tx_index FROM mobs.tx_traces ORDER BY "
                    "block_timestamp DESC, block_number DESC, tx_index DESC "
                    "OFFSET :most LIMIT 1)"
                ),
                {"most": newest - 1},
            )
