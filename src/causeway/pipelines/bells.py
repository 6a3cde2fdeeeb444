"""The doorbell: one coalesced procrastinate job for each stage, rung after the commit.

A bell says only that there may be work; the rows are the truth. It is never rung inside the
transaction that made the work: a second ringer would wait for the first's commit, and a worker
could take the bell before the row can be seen. A bell that is lost costs one sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import structlog
from procrastinate import App as Procrastinate
from procrastinate import PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

from causeway.store.engine import Database

log = structlog.get_logger(__name__)

TASK = "causeway.bell"

#: Bells of one stage are at least this far apart in one process, seconds.
QUIET_S = 0.01


def queue_of(app: str, stage: str) -> str:
    """Return the name of a stage's queue, which is also the lock that coalesces its bells."""
    return f"{app}:{stage}"


def connector(database: Database) -> PsycopgConnector:
    """Return procrastinate's connection to the schema `causeway` of the database."""
    arguments = dict(database.connect_arguments)
    options = str(arguments.get("options", ""))
    arguments["options"] = f"{options} -c search_path=causeway".strip()
    return PsycopgConnector(conninfo=database.conninfo, kwargs=arguments, min_size=1, max_size=4)


class Bells:
    """Rings; made once a process."""

    def __init__(self, engine: Procrastinate) -> None:
        #: procrastinate's application, which the worker runs.
        self.engine = engine
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database) -> AsyncGenerator[Bells]:
        """Open the connection that rings."""
        engine = Procrastinate(connector=connector(database))
        async with engine.open_async():
            bells = cls(engine)
            try:
                yield bells
            finally:
                await bells.quiet()

    async def ring(self, app: str, stage: str) -> None:
        """Ring a stage's bell; at most one is waiting at any time. Never raises."""
        queue = queue_of(app, stage)
        try:
            await self.engine.configure_task(
                TASK, queue=queue, queueing_lock=queue, allow_unknown=True
            ).defer_async(app=app, stage=stage)
        except AlreadyEnqueued:
            pass  # somebody rang already, and nobody answered yet
        except (ConnectorException, psycopg.Error, OSError) as error:
            log.warning("bell_not_rung", queue=queue, error=error)

    def ring_soon(self, app: str, stage: str) -> None:
        """Ring without waiting for it; several calls close together ring once."""
        queue = queue_of(app, stage)
        if queue in self._waiting:
            self._again.add(queue)
            return
        self._waiting[queue] = asyncio.create_task(self._ring_until_quiet(app, stage, queue))

    async def _ring_until_quiet(self, app: str, stage: str, queue: str) -> None:
        try:
            while True:
                self._again.discard(queue)
                await self.ring(app, stage)
                await asyncio.sleep(QUIET_S)
                if queue not in self._again:
                    return
        finally:
            del self._waiting[queue]

    async def quiet(self) -> None:
        """Wait for the bells that are being rung."""
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)
