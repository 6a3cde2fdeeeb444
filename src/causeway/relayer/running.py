"""The loop that steps one account for as long as its lease is held, in all weathers."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from causeway.base.errors import LeaseLost, TransientError
from causeway.base.ids import uuid7
from causeway.relayer.filing import CHANNEL
from causeway.relayer.lane import Lane
from causeway.relayer.stepping import step
from causeway.store import lease as leases
from causeway.store.engine import Database
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)

#: What an outage of the database or of all providers looks like.
_OUTAGE = (TransientError, SQLAlchemyError, psycopg.Error, OSError)
_BACKOFF_MOST_S = 30.0


class Bell:
    """Wakes whoever waits for it; one that nobody waits for is heard at the next wait."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake."""
        self._rung.set()

    def clear(self) -> None:
        """Forget what was rung, before looking at everything anyway."""
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, `seconds` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class LaneRunner:
    """Steps an account while its lease is ours, and waits for the lease while it is not."""

    def __init__(self, lane: Lane, bell: Bell) -> None:
        self._lane = lane
        self._bell = bell

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until `stop` is set."""
        holder = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"
        settings = self._lane.settings
        failures = 0
        while not stop.is_set():
            try:
                lease = await self._acquire(holder)
                if lease is not None:
                    await self._while_held(lease, stop)
                failures = 0
            except LeaseLost as error:
                _log.warning("relayer_lease_lost", error=error)
            except _OUTAGE as error:
                failures += 1
                _log.warning("relayer_outage", error=error, failures=failures)
            except Exception as error:  # noqa: BLE001 - this loop never dies
                failures += 1
                _log.exception("relayer_failed", error=error)
            # Who waits for the lease looks often enough to take it over when it runs out.
            poll_s = min(settings.poll_s, settings.lease_s / 3)
            await self._pause(backoff_s(failures, poll_s), stop)

    async def _acquire(self, holder: str) -> Lease | None:
        lane = self._lane
        return await leases.acquire(lane.database, lane.lease_name, holder, lane.settings.lease_s)

    async def _while_held(self, lease: Lease, stop: asyncio.Event) -> None:
        renewing = asyncio.create_task(self._renew(lease))
        failures = 0
        try:
            while not stop.is_set() and not renewing.done():
                self._bell.clear()
                did = await step(self._lane, lease)
                failures = 0 if did.progress or not did.errors else failures + 1
                if not did.progress:
                    await self._pause(backoff_s(failures, self._lane.settings.poll_s), stop)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(*_OUTAGE):
                await leases.release(self._lane.database, lease)

    async def _renew(self, lease: Lease) -> None:
        """Renew the lease each third of its time; ends when it is lost."""
        while True:
            await asyncio.sleep(self._lane.settings.lease_s / 3)
            try:
                renewed = await self._acquire(lease.holder)
            except _OUTAGE:
                continue  # if it runs out meanwhile, the next commit says so
            if renewed is None or renewed.fence != lease.fence:
                return

    async def _pause(self, seconds: float, stop: asyncio.Event) -> None:
        if not stop.is_set():
            await self._bell.wait(seconds)


async def hear(database: Database, wake: Callable[[], None], stop: asyncio.Event) -> None:
    """Hear PostgreSQL's notifications; while that fails, polling is what there is."""
    failures = 0
    while not stop.is_set():
        try:
            connection = await database.raw_connection()
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                wake()  # what was filed before we listened
                failures = 0
                async for _ in connection.notifies():
                    wake()
        except _OUTAGE as error:
            failures += 1
            _log.info("relayer_does_not_hear", error=error)
            await asyncio.sleep(backoff_s(failures, 1.0))


def backoff_s(failures: int, poll_s: float) -> float:
    """Return how long to wait: the poll interval, or more and more, with jitter, in an outage."""
    if failures == 0:
        return poll_s
    longest = min(_BACKOFF_MOST_S, poll_s * 2.0 ** min(failures, 10))
    return random.uniform(poll_s / 2, longest)  # noqa: S311 - jitter
