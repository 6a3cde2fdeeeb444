"""One stage in one process: claims rows, works on several at once, records what came of each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import psycopg
import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy import Table, update
from sqlalchemy.exc import DBAPIError, OperationalError

from causeway.base.errors import (
    Bug,
    CausewayError,
    ChainBehind,
    ConfigurationError,
    LeaseLost,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.base.faults import fault_point
from causeway.pipelines import control
from causeway.pipelines.bells import Bells
from causeway.pipelines.claims import Left, Pool, Statements
from causeway.pipelines.history import refused_transition
from causeway.pipelines.stage import (
    Advance,
    Back,
    Claim,
    Fail,
    Outcome,
    Retry,
    Stage,
    backoff_s,
)
from causeway.store.engine import Database

C = TypeVar("C")
log = structlog.get_logger(__name__)

LEFT = Counter("causeway_pipelines_left_total", "Rows left", ["app", "stage", "outcome"])
LOST = Counter("causeway_pipelines_lease_lost_total", "Results dropped", ["app", "stage"])
WORK_SECONDS = Histogram(
    "causeway_pipelines_work_seconds", "Time of a stage's work on one row", ["app", "stage"]
)

#: Failures of a whole provider in a row, without a success, that pause a stage.
OUTAGE_AFTER = 5

#: Errors that say nothing of the row: the other side is away, or asks to be asked later.
PROVIDER_ERRORS = (ProviderUnavailable, RateLimited, ChainBehind)


class StageRunner(Generic[C]):
    """A stage at work in this process."""

    def __init__(
        self,
        stage: Stage[C],
        context: C,
        database: Database,
        pool: Pool,
        bells: Bells,
        worker_name: str,
        *,
        next_stages: Callable[[str], list[str]] = lambda _status: [],
    ) -> None:
        self.stage = stage
        self.statements = Statements(stage)
        self._context = context
        self._database = database
        self._pool = pool
        self._bells = bells
        self._owner = f"{stage.name}@{worker_name}"
        self._next_stages = next_stages
        self._in_hand: dict[asyncio.Task[None], Claim] = {}
        self._finished: list[tuple[Left, asyncio.Future[bool]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._draining = asyncio.Lock()
        self._freed = asyncio.Event()
        self._closed = False
        self._failures = 0
        self._probing = False
        self._noted_at = 0.0

    # ── taking up ────────────────────────────────────────────────────────────────────────────

    async def drain(self) -> None:
        """Take up rows until none is left to take or the hands are full; they are worked on after.

        A second bell while this goes on returns at once: the first call sees what it rang for.
        """
        if self._draining.locked():
            return
        async with self._draining:
            while not self._closed:
                free = self.stage.batch - len(self._in_hand)
                if free <= 0:
                    # Others may have hands free; we come back as soon as one of ours is.
                    self._bells.ring_soon(self.stage.app, self.stage.name)
                    self._freed.clear()
                    await self._freed.wait()
                    continue
                claims = await self._claim(free)
                fault_point("pipelines.claimed")
                for claim in claims:
                    task = asyncio.create_task(self._work(claim))
                    self._in_hand[task] = claim
                    task.add_done_callback(self._one_done)
                if len(claims) < free:
                    return

    async def _claim(self, most: int) -> list[Claim]:
        early = False
        async with self._database.sessions() as session:
            pause = await control.paused(session, self.stage.app, self.stage.name)
        if pause is not None:
            may = pause.by != "operator" and await control.may_probe(
                self._database, self.stage.app, self.stage.name
            )
            if not may:
                return []
            most, early, self._probing = 1, True, True
        async with self._pool.connection() as connection:
            return await self.statements.claim(connection, self._owner, most, early=early)

    def _one_done(self, task: asyncio.Task[None]) -> None:
        del self._in_hand[task]
        self._freed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("stage_task_failed", stage=self.stage.name, exc_info=task.exception())

    # ── work ─────────────────────────────────────────────────────────────────────────────────

    async def _work(self, claim: Claim) -> None:
        stage = self.stage
        started = asyncio.get_running_loop().time()
        with structlog.contextvars.bound_contextvars(stage=stage.name, row=claim.key):
            try:
                outcome = await stage.work(self._context, claim)
                fault_point("pipelines.worked")
            except asyncio.CancelledError:
                if self._closed:  # a stop: the row is free for others at once
                    left = self._left(claim, stage.claims, "the worker stopped", 0.0, -1)
                    await asyncio.shield(self._leave(left))
                raise
            except Exception as error:  # noqa: BLE001 (one row's error never ends the stage)
                outcome = await self._judge(claim, error)
            WORK_SECONDS.labels(stage.app, stage.name).observe(
                asyncio.get_running_loop().time() - started
            )
            if outcome is not None:
                await self._record(claim, outcome)

    async def _judge(self, claim: Claim, error: Exception) -> Outcome | None:
        """Turn an error into what becomes of the row; None when the row is not ours any more."""
        stage = self.stage
        tries = claim.attempt
        if isinstance(error, LeaseLost):
            LOST.labels(stage.app, stage.name).inc()
            return None
        if isinstance(error, ConfigurationError):
            message = "; ".join(error.problems)
            if await control.pause(
                self._database, stage.app, stage.name, message, by="configuration"
            ):
                log.error("stage_paused", why=message, hint=error.hint)
            return Retry(control.PROBE_EVERY_S, message, counts=False)
        if isinstance(error, (psycopg.OperationalError, OperationalError)):
            log.warning("stage_without_database", error=error)
            wait_s = backoff_s(min(tries, 4), random.random())  # noqa: S311
            return Retry(wait_s, "the database did not answer", counts=False)
        if isinstance(error, PROVIDER_ERRORS):
            self._failures += 1
            await self._note(error.message)
            if self._failures >= OUTAGE_AFTER and await control.pause(
                self._database, stage.app, stage.name, error.message, by="outage"
            ):
                log.error("stage_outage", why=error.message, failures=self._failures)
            wait_s = error.retry_after_s
            if wait_s is None:
                wait_s = backoff_s(min(self._failures, tries), random.random())  # noqa: S311
            return Retry(wait_s, error.message, counts=False)
        if isinstance(error, TransientError):
            wait_s = error.retry_after_s
            if wait_s is None:
                wait_s = backoff_s(tries, random.random())  # noqa: S311
            log.warning("row_retried", error=error, attempt=tries)
            return self._retry_or_fail(claim, Retry(wait_s, error.message))
        if isinstance(error, PermanentError):
            log.warning("row_failed", error=error)
            return Fail(error.message)
        log.error("row_error_of_ours", exc_info=error, bug=isinstance(error, Bug))
        message = error.message if isinstance(error, CausewayError) else type(error).__name__
        return self._retry_or_fail(
            claim,
            Retry(backoff_s(tries, random.random()), f"an error of ours: {message}"),  # noqa: S311
        )

    def _retry_or_fail(self, claim: Claim, retry: Retry) -> Outcome:
        if retry.counts and claim.attempt >= self.stage.max_attempts:
            return Fail(f"gave up after {claim.attempt} attempts: {retry.reason}")
        return retry

    # ── recording ────────────────────────────────────────────────────────────────────────────

    async def _record(self, claim: Claim, outcome: Outcome) -> None:
        stage = self.stage
        label = type(outcome).__name__.lower()
        if isinstance(outcome, Advance):
            to, reason, wait_s, attempts = outcome.to or stage.done, None, None, 0
            values, record = outcome.values, outcome.record
        elif isinstance(outcome, Back):
            to, reason, wait_s, attempts = outcome.to, outcome.reason, None, 0
            values, record = outcome.values, None
        elif isinstance(outcome, Fail):
            to, reason, wait_s, attempts = stage.failed, outcome.reason, None, claim.attempt
            values, record = outcome.values, None
        else:
            outcome = self._retry_or_fail(claim, outcome)
            if isinstance(outcome, Fail):
                await self._record(claim, outcome)
                return
            assert isinstance(outcome, Retry)  # noqa: S101 (the type checker's sake)
            to, reason, wait_s = stage.claims, outcome.reason, outcome.after_s
            attempts = claim.attempt if outcome.counts else claim.attempt - 1
            values, record = {}, None
        try:
            if values or record is not None:
                ours = await self._leave_with(claim, to, reason, values, record, attempts)
            else:
                left = Left(claim.key, claim.fence, to, reason, wait_s, attempts)
                ours = await self._leave(left)
        except Exception as error:
            refused = refused_transition(error) if isinstance(error, DBAPIError) else None
            log.error("result_not_recorded", row=claim.key, exc_info=refused or error)
            return
        fault_point("pipelines.left")
        LEFT.labels(stage.app, stage.name, label).inc()
        if not ours:
            LOST.labels(stage.app, stage.name).inc()
            log.warning("result_dropped", row=claim.key, fence=claim.fence)
            return
        if isinstance(outcome, (Advance, Back)):
            if isinstance(outcome, Advance):
                await self._succeeded()
            for name in self._next_stages(to):
                self._bells.ring_soon(stage.app, name)

    def _left(
        self, claim: Claim, to: str, reason: str | None, wait_s: float | None, by: int
    ) -> Left:
        return Left(claim.key, claim.fence, to, reason, wait_s, max(0, claim.attempt + by))

    async def _leave(self, left: Left) -> bool:
        """Write one result, together with those that finish at about the same time."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._finished.append((left, written))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await written

    async def _flush(self) -> None:
        while self._finished:
            batch, self._finished = self._finished, []
            try:
                async with self._pool.connection() as connection:
                    ours = await self.statements.leave(connection, [left for left, _ in batch])
            except Exception as error:  # noqa: BLE001 (each waiter is told)
                for _, written in batch:
                    if not written.done():
                        written.set_exception(error)
            else:
                for left, written in batch:
                    if not written.done():
                        written.set_result(left.key in ours)
        self._flushing = None

    async def _leave_with(
        self,
        claim: Claim,
        to: str,
        reason: str | None,
        values: Any,
        record: Any,
        attempts: int,
    ) -> bool:
        """Write a result that brings values or rows of its own, in a transaction of its own."""
        stage = self.stage
        table: Table[Any] = stage.table
        column = {a: table.c[stage.column(a)] for a in ("status", "fence", "lease_owner")}
        own: dict[str, Any] = {
            stage.column("status"): to,
            stage.column("lease_owner"): None,
            stage.column("lease_until"): None,
            stage.column("next_at"): None,
            stage.column("attempts"): attempts,
            stage.column("last_error"): None if reason is None else reason[:1000],
        }
        own |= {stage.column(name): value for name, value in values.items()}
        async with self._database.transaction() as session:
            result = await session.execute(
                update(table)
                .where(
                    table.c[stage.column(stage.key)] == claim.key,
                    column["fence"] == claim.fence,
                    column["status"] == stage.in_work,
                )
                .values(own)
                .returning(table.c[stage.column(stage.key)])
            )
            if result.first() is None:
                return False
            if record is not None:
                await record(session)
        return True

    async def _succeeded(self) -> None:
        """The provider works: an outage or a configuration error is over."""
        stage = self.stage
        if self._failures or self._probing:
            self._failures, self._probing = 0, False
            ended = await control.resume(self._database, stage.app, stage.name, by="outage")
            ended |= await control.resume(self._database, stage.app, stage.name, by="configuration")
            if ended:
                log.info("stage_goes_on")
                async with self._pool.connection() as connection:
                    await self.statements.hurry(connection)
                self._bells.ring_soon(stage.app, stage.name)
        await self._note(None)

    async def _note(self, error: str | None) -> None:
        """Keep the last success or error, at most once a second: it is for people."""
        now = asyncio.get_running_loop().time()
        if error is None and now - self._noted_at < 1.0:
            return
        self._noted_at = now
        await control.note(self._database, self.stage.app, self.stage.name, error)

    # ── leases and the end ───────────────────────────────────────────────────────────────────

    async def keep_leases(self) -> None:
        """Renew the leases in hand each third of their time; stop work whose lease is lost."""
        while not self._closed:
            await asyncio.sleep(self.stage.lease_s / 3)
            held = dict(self._in_hand)
            if not held:
                continue
            try:
                async with self._pool.connection() as connection:
                    ours = await self.statements.renew(connection, list(held.values()))
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("leases_not_renewed", error=error)
                continue
            for task, claim in held.items():
                if claim.key not in ours and not task.done():
                    LOST.labels(self.stage.app, self.stage.name).inc()
                    log.warning("lease_lost", row=claim.key, fence=claim.fence)
                    task.cancel()

    async def close(self, grace_s: float) -> None:
        """Take up nothing more; finish what is in hand within `grace_s`, then release it."""
        self._closed = True
        self._freed.set()
        if self._in_hand:
            await asyncio.wait(list(self._in_hand), timeout=grace_s)
        for task in list(self._in_hand):
            task.cancel()
        if self._in_hand:
            await asyncio.gather(*self._in_hand, return_exceptions=True)
