"""The worker of a process: stages, schedules and loops of one or more apps, until told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from causeway.pipelines import schedules, sweeper
from causeway.pipelines.bells import TASK, Bells, queue_of
from causeway.pipelines.claims import Pool, open_pool
from causeway.pipelines.loops import LeasedLoop, run_loop
from causeway.pipelines.runner import StageRunner
from causeway.pipelines.schedules import Schedule
from causeway.pipelines.stage import Stage
from causeway.store.engine import Database
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

#: How often the doorbell is looked at when no notification came, seconds.
BELL_POLL_S = 1.0

#: How often jobs of dead workers are looked for, seconds.
RESCUE_EVERY_S = 10.0


@dataclass(frozen=True)
class Work:
    """What one app gives a worker to do."""

    app: str
    context: Any
    stages: Sequence[Stage[Any]] = ()
    loops: Sequence[LeasedLoop] = ()
    schedules: Sequence[Schedule] = ()


def worker_name() -> str:
    """Return this process's name: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


class PipelineWorker:
    """Everything a process does besides serving."""

    def __init__(
        self,
        database: Database,
        bells: Bells,
        work: Sequence[Work],
        *,
        name: str | None = None,
        poll_only: bool = False,
        grace_s: float = 20.0,
    ) -> None:
        self._database = database
        self._bells = bells
        self._work = work
        self.name = name or worker_name()
        self._poll_only = poll_only or not database.has_own_session
        self._grace_s = grace_s
        self._runners: dict[tuple[str, str], StageRunner[Any]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then finish or release what is in hand within the grace."""
        async with open_pool(self._database) as pool:
            self._make_runners(pool)
            tasks = [asyncio.create_task(coroutine) for coroutine in self._coroutines(pool, stop)]
            try:
                await stop.wait()
            finally:
                await asyncio.gather(
                    *(runner.close(self._grace_s) for runner in self._runners.values())
                )
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for result in results:
                    if isinstance(result, Exception):
                        log.error("worker_part_failed", exc_info=result)

    def _make_runners(self, pool: Pool) -> None:
        for work in self._work:
            enabled = [stage for stage in work.stages if stage.enabled]

            def ring_for(status: str, work: Work = work) -> None:
                for stage in work.stages:
                    if stage.claims == status:
                        self._ring(work.app, stage.name)

            for stage in enabled:
                self._runners[work.app, stage.name] = StageRunner(
                    stage,
                    work.context,
                    self._database,
                    pool,
                    self._bells,
                    self.name,
                    ring_for=ring_for,
                )

    def _ring(self, app: str, stage: str) -> None:
        """Ring for a stage; not by the bell when it is drained in this very process."""
        runner = self._runners.get((app, stage))
        if runner is None or not runner.poke():
            self._bells.ring_soon(app, stage)

    def _coroutines(self, pool: Pool, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        parts: list[Coroutine[Any, Any, None]] = [self._answer_bells(stop)]
        parts += [runner.keep_leases() for runner in self._runners.values()]
        for work in self._work:
            loops = [*work.loops, *self._sweepers(work, pool)]
            parts += [
                run_loop(loop, work.context, self._database, self.name, stop) for loop in loops
            ]
        return parts

    def _sweepers(self, work: Work, pool: Pool) -> list[LeasedLoop]:
        bells, engine = self._bells, self._bells.engine

        async def sweep(_context: Any, _lease: Lease) -> None:
            await sweeper.sweep(work.stages, pool, bells)
            await sweeper.sweep_paused(work.stages, pool, bells)

        async def rescue(_context: Any, _lease: Lease) -> None:
            await sweeper.rescue(engine)
            await sweeper.purge(engine)

        interval = min((stage.poll_interval_s for stage in work.stages), default=5.0)
        made = [LeasedLoop(name="pipelines:rescue", interval_s=RESCUE_EVERY_S, work=rescue)]
        if work.stages:
            made.append(
                LeasedLoop(name=f"pipelines:sweep:{work.app}", interval_s=interval, work=sweep)
            )
        return made

    async def _answer_bells(self, stop: asyncio.Event) -> None:
        """Run procrastinate's worker, again when it ends while we have not been told to stop."""
        engine = self._bells.engine

        async def bell(app: str, stage: str) -> None:
            runner = self._runners.get((app, stage))
            if runner is not None:
                await runner.drain()

        engine.task(name=TASK)(bell)
        queues: list[str] = [queue_of(app, stage) for app, stage in self._runners]
        for work in self._work:
            for schedule in work.schedules:
                schedules.register(engine, work.app, schedule, work.context)
            if work.schedules:
                queues.append(schedules.queue_of(work.app))
        if not queues:
            return
        while not stop.is_set():
            try:
                # Queues are always named: a worker of all queues fails tasks it does not know.
                await engine.run_worker_async(
                    queues=queues,
                    name=self.name,
                    concurrency=2 * len(queues),
                    listen_notify=not self._poll_only,
                    fetch_job_polling_interval=BELL_POLL_S,
                    delete_jobs="successful",
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=1.0,
                )
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 (the database may be away for a while)
                log.warning("bells_not_heard", error=error)
                await asyncio.sleep(1.0)
