"""Which stages do not take up rows and why, and how they stand; shared through the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.pipelines.stage import Stage
from causeway.store.engine import Database

#: How long after one probe of a paused stage the next is made, seconds.
PROBE_EVERY_S = 15.0


async def pause(
    database: Database, app: str, stage: str, reason: str, *, by: str = "operator"
) -> bool:
    """Have a stage take up no rows; return whether it was running before.

    `operator` pauses until somebody resumes it; `configuration` and `outage` let one row through
    now and then, and end by themselves when that one goes well. An operator's pause is stronger.
    """
    async with database.transaction() as session:
        fresh = await session.scalar(
            text(
                """
                INSERT INTO causeway.stage_control AS c
                    (app, stage, paused_by, reason, since, probe_at, last_error, last_error_at)
                VALUES (:app, :stage, :by, :reason, clock_timestamp(),
                    CASE WHEN :by <> 'operator'
                        THEN clock_timestamp() + make_interval(secs => :every) END,
                    CASE WHEN :by <> 'operator' THEN :reason END,
                    CASE WHEN :by <> 'operator' THEN clock_timestamp() END)
                ON CONFLICT (app, stage) DO UPDATE SET
                    paused_by = excluded.paused_by, reason = excluded.reason,
                    since = excluded.since, probe_at = excluded.probe_at,
                    last_error = coalesce(excluded.last_error, c.last_error),
                    last_error_at = coalesce(excluded.last_error_at, c.last_error_at)
                WHERE c.paused_by IS NULL
                    OR (excluded.paused_by = 'operator' AND c.paused_by <> 'operator')
                RETURNING true
                """
            ),
            {"app": app, "stage": stage, "by": by, "reason": reason, "every": PROBE_EVERY_S},
        )
    return bool(fresh)


async def resume(database: Database, app: str, stage: str, *, by: str | None = None) -> bool:
    """Let a stage take up rows again and say if it was paused; `by`: only a pause of that kind."""
    async with database.transaction() as session:
        ended = await session.scalar(
            text(
                "UPDATE causeway.stage_control SET paused_by = NULL, reason = NULL, since = NULL, "
                "probe_at = NULL WHERE app = :app AND stage = :stage AND paused_by IS NOT NULL "
                "AND (CAST(:by AS text) IS NULL OR paused_by = :by) RETURNING true"
            ),
            {"app": app, "stage": stage, "by": by},
        )
    return bool(ended)


async def may_probe(database: Database, app: str, stage: str) -> bool:
    """Take the one chance to try a paused stage that comes every `PROBE_EVERY_S`."""
    async with database.transaction() as session:
        mine = await session.scalar(
            text(
                "UPDATE causeway.stage_control "
                "SET probe_at = clock_timestamp() + make_interval(secs => :every) "
                "WHERE app = :app AND stage = :stage AND probe_at <= clock_timestamp() "
                "RETURNING true"
            ),
            {"app": app, "stage": stage, "every": PROBE_EVERY_S},
        )
    return bool(mine)


@dataclass(frozen=True)
class Pause:
    """Why a stage does not take up rows."""

    by: str
    reason: str
    since: datetime


async def paused(session: AsyncSession, app: str, stage: str) -> Pause | None:
    """Return why a stage is paused, None while it runs."""
    row = (
        await session.execute(
            text(
                "SELECT paused_by, reason, since FROM causeway.stage_control "
                "WHERE app = :app AND stage = :stage AND paused_by IS NOT NULL"
            ),
            {"app": app, "stage": stage},
        )
    ).first()
    return None if row is None else Pause(row.paused_by, row.reason or "", row.since)


async def note(database: Database, app: str, stage: str, error: str | None) -> None:
    """Keep when a stage last did well (no error), or what it last failed with."""
    what = "last_success_at" if error is None else "last_error_at"
    async with database.transaction() as session:
        await session.execute(
            text(
                f"INSERT INTO causeway.stage_control AS c (app, stage, {what}, last_error) "
                "VALUES (:app, :stage, clock_timestamp(), left(:error, 1000)) "
                f"ON CONFLICT (app, stage) DO UPDATE SET {what} = excluded.{what}, "
                "last_error = coalesce(excluded.last_error, c.last_error)"
            ),
            {"app": app, "stage": stage, "error": error},
        )


@dataclass(frozen=True)
class StageHealth:
    """How a stage stands."""

    stage: str
    pending: int
    active: int
    oldest_pending_s: float | None
    paused: str | None
    paused_by: str | None
    last_success_at: datetime | None
    last_error: str | None


async def queue_health(session: AsyncSession, stages: Sequence[Stage[Any]]) -> list[StageHealth]:
    """Return how each stage stands: rows waiting and in work, since when, and what it said last."""
    found: list[StageHealth] = []
    for stage in stages:
        table = f"{stage.table.schema}.{stage.table.name}"
        status, until = stage.column("status"), stage.column("lease_until")
        since = stage.column(stage.waits_since) if stage.waits_since else None
        oldest = f"extract(epoch FROM clock_timestamp() - min({since}))" if since else "NULL"
        held = f"{until} >= clock_timestamp()"
        row = (
            await session.execute(
                text(
                    f"SELECT count(*) FILTER (WHERE {status} = :claims AND ({until} IS NULL OR "
                    f"NOT {held})) AS pending, count(*) FILTER (WHERE {status} = :in_work AND "
                    f"{held}) AS active, "
                    f"(SELECT {oldest} FROM {table} WHERE {status} = :claims) AS oldest_s "
                    f"FROM {table} WHERE {status} IN (:claims, :in_work)"
                ),
                {"claims": stage.claims, "in_work": stage.in_work},
            )
        ).one()
        control = (
            await session.execute(
                text("SELECT * FROM causeway.stage_control WHERE app = :app AND stage = :stage"),
                {"app": stage.app, "stage": stage.name},
            )
        ).first()
        found.append(
            StageHealth(
                stage=stage.name,
                pending=row.pending,
                active=row.active,
                oldest_pending_s=None if row.oldest_s is None else float(row.oldest_s),
                paused=control.reason if control and control.paused_by else None,
                paused_by=control.paused_by if control else None,
                last_success_at=control.last_success_at if control else None,
                last_error=control.last_error if control else None,
            )
        )
    return found
