"""What finds forgotten work: rows nobody rang for, rows and jobs of workers that are gone.

Runs as leased loops, never as jobs: a rescue that is itself a job could be what needs rescue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from procrastinate import App as Procrastinate
from procrastinate import exceptions
from procrastinate.jobs import Job, Status
from prometheus_client import Counter

from causeway.pipelines.bells import TASK, Bells
from causeway.pipelines.claims import Pool, Statements
from causeway.pipelines.stage import Stage

log = structlog.get_logger(__name__)

TAKEN_BACK = Counter(
    "causeway_pipelines_taken_back_total", "Rows of dead workers", ["app", "stage"]
)
FOUND = Counter("causeway_pipelines_swept_total", "Sweeps that found due rows", ["app", "stage"])
RESCUED = Counter("causeway_pipelines_rescued_total", "Jobs of dead workers", ["outcome"])

#: A worker that has not been heard of for this long is gone, seconds.
STALLED_AFTER_S = 30.0

#: A job that ended its worker this often is not tried again.
MOST_RESCUES = 5

#: Jobs that ended are kept this long for people to look at, hours.
KEPT_H = 24


async def sweep(stages: Sequence[Stage[Any]], pool: Pool, bells: Bells) -> None:
    """Free the rows of dead workers, and ring for every stage that has rows due."""
    for stage in stages:
        statements = Statements(stage)
        async with pool.connection() as connection:
            taken = await statements.take_back(connection)
            due = await statements.due(connection)
        if taken:
            TAKEN_BACK.labels(stage.app, stage.name).inc(taken)
            log.warning("rows_taken_back", stage=stage.name, rows=taken)
        if due or taken:
            FOUND.labels(stage.app, stage.name).inc()
            await bells.ring(stage.app, stage.name)


async def sweep_paused(stages: Sequence[Stage[Any]], pool: Pool, bells: Bells) -> None:
    """Ring for stages that are paused but may be tried, whatever their rows wait for."""
    for stage in stages:
        async with pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM causeway.stage_control WHERE app = %s AND stage = %s "
                "AND paused_by IS NOT NULL AND probe_at <= clock_timestamp()",
                (stage.app, stage.name),
            )
            if await cursor.fetchone() and await Statements(stage).due(connection, early=True):
                await bells.ring(stage.app, stage.name)


async def rescue(engine: Procrastinate, stalled_after_s: float = STALLED_AFTER_S) -> int:
    """End or repeat the jobs of workers that are gone; return how many there were.

    A bell is only ended: the sweep rings again while there is work. Any other job is repeated, up
    to `MOST_RESCUES` times. Each on its own, so that one that cannot be does not stop the rest.
    """
    manager = engine.job_manager
    stalled = list(await manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s))
    for job in stalled:
        await _rescue_one(engine, job)
    await manager.prune_stalled_workers(stalled_after_s * 4)
    return len(stalled)


async def _rescue_one(engine: Procrastinate, job: Job) -> None:
    manager = engine.job_manager
    try:
        if job.task_name == TASK:
            await manager.finish_job(job, Status.FAILED, delete_job=True)
            RESCUED.labels("bell").inc()
        elif job.attempts >= MOST_RESCUES:
            log.error("job_gives_up", task=job.task_name, attempts=job.attempts)
            await manager.finish_job(job, Status.FAILED, delete_job=False)
            RESCUED.labels("failed").inc()
        else:
            await manager.retry_job(job)
            RESCUED.labels("repeated").inc()
    except exceptions.AlreadyEnqueued:
        # A twin with the same lock waits already: it will do the work.
        await manager.finish_job(job, Status.FAILED, delete_job=True)
        RESCUED.labels("superseded").inc()
    except exceptions.ConnectorException as error:
        log.warning("job_not_rescued", job=job.id, error=error)


async def purge(engine: Procrastinate) -> None:
    """Forget jobs that ended long ago."""
    await engine.job_manager.delete_old_jobs(
        KEPT_H, include_failed=True, include_cancelled=True, include_aborted=True
    )
