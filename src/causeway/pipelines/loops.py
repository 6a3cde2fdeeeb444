"""Leased loops: work every few seconds, by one process at a time in the whole installation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter

from causeway.base.errors import LeaseLost
from causeway.store import lease as leases
from causeway.store.engine import Database
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

FAILURES = Counter("causeway_pipelines_loop_failures_total", "Loop rounds that failed", ["loop"])

#: A loop that failed waits at least this long before its next round, seconds.
AFTER_FAILURE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class LeasedLoop:
    """Work that one process does at a time; what it writes under the lease's fence is guarded."""

    name: str
    interval_s: float
    work: Callable[[Any, Lease], Awaitable[None]]
    #: A process that is gone is replaced after this, seconds.
    lease_s: float = 6.0
    #: Rounds may also be asked for at once by setting this.
    wake: asyncio.Event | None = None


async def run_loop(
    loop: LeasedLoop, context: Any, database: Database, holder: str, stop: asyncio.Event
) -> None:
    """Run a loop whenever its lease can be had, until told to stop; outlives every error."""
    while not stop.is_set():
        try:
            lease = await leases.acquire(database, loop.name, holder, loop.lease_s)
        except Exception as error:  # noqa: BLE001 (the database may be away for a while)
            log.warning("loop_without_database", loop=loop.name, error=error)
            lease = None
        if lease is None:
            await _wait(stop, None, min(loop.lease_s / 3, 2.0))
            continue
        log.debug("loop_taken", loop=loop.name, fence=lease.fence)
        await _hold(loop, context, database, lease, stop)
    return


async def _hold(
    loop: LeasedLoop, context: Any, database: Database, lease: Lease, stop: asyncio.Event
) -> None:
    """Work in rounds while the lease is ours."""
    lost = asyncio.Event()
    keeper = asyncio.create_task(_keep(database, lease, loop.lease_s, lost))
    rounds = asyncio.create_task(_rounds(loop, context, lease, stop))
    over = asyncio.create_task(lost.wait())
    try:
        await asyncio.wait((rounds, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (rounds, keeper, over):
            task.cancel()
        await asyncio.gather(rounds, keeper, over, return_exceptions=True)
        if not lost.is_set():
            with suppress(Exception):
                await leases.release(database, lease)


async def _rounds(loop: LeasedLoop, context: Any, lease: Lease, stop: asyncio.Event) -> None:
    while not stop.is_set():
        wait_s = loop.interval_s
        try:
            await loop.work(context, lease)
        except LeaseLost:
            return
        except Exception as error:
            FAILURES.labels(loop.name).inc()
            log.warning("loop_round_failed", loop=loop.name, error=error, exc_info=error)
            wait_s = max(wait_s, AFTER_FAILURE_S)
        await _wait(stop, loop.wake, wait_s)


async def _keep(database: Database, lease: Lease, seconds: float, lost: asyncio.Event) -> None:
    """Renew the lease each third of its time; `lost` is set when it is not ours any more.

    A database that is away is no loss at once, but it is when the lease has run out meanwhile.
    """
    loop = asyncio.get_running_loop()
    good_until = loop.time() + seconds
    while True:
        await asyncio.sleep(seconds / 3)
        try:
            await leases.renew(database, lease, seconds)
            good_until = loop.time() + seconds
        except LeaseLost:
            lost.set()
            return
        except Exception as error:  # noqa: BLE001
            log.warning("lease_not_renewed", lease=lease.name, error=error)
            if loop.time() > good_until:
                lost.set()
                return


async def _wait(stop: asyncio.Event, wake: asyncio.Event | None, seconds: float) -> None:
    """Wait until told to stop, woken, or `seconds` have passed."""
    waits = [asyncio.create_task(stop.wait())]
    if wake is not None:
        waits.append(asyncio.create_task(wake.wait()))
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        if wake is not None:
            wake.clear()
