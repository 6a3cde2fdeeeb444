"""One stage in one process: claims rows, works on several at once, records what came of each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Counted
from collections.abc import Callable, Sequence
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

#: Hands that are full for longer than this call for help from other processes, seconds.
BUSY_AFTER_S = 0.05

#: A pause is heeded at the latest after this, seconds.
PAUSE_SEEN_WITHIN_S = 0.5

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
        ring_for: Callable[[str], None] = lambda _status: None,
    ) -> None:
        self.stage = stage
        self.statements = Statements(stage)
        self._context = context
        self._database = database
        self._pool = pool
        self._bells = bells
        self._owner = f"{stage.name}@{worker_name}"
        self._ring_for = ring_for
        #: Rows being worked on, by key.
        self._in_hand: dict[Any, tuple[asyncio.Task[None], Claim]] = {}
        #: Results that wait to be written, and how many are waiting or being written.
        self._finished: list[tuple[Left, type[Any]]] = []
        self._writing = 0
        self._flushing: asyncio.Task[None] | None = None
        #: Rows whose result is being written: they need no lease any more.
        self._leaving: set[Any] = set()
        self._draining = asyncio.Lock()
        self._again = False
        self._freed = asyncio.Event()
        self._closed = False
        self._failures = 0
        self._probing = False
        self._noted_at = 0.0
        self._pause: control.Pause | None = None
        self._pause_known_until = 0.0
        # Looked up once: this is the path every transition takes.
        self._left = {
            kind: LEFT.labels(stage.app, stage.name, kind.__name__.lower())
            for kind in (Advance, Back, Retry, Fail)
        }
        self._lost = LOST.labels(stage.app, stage.name)
        self._seconds = WORK_SECONDS.labels(stage.app, stage.name)

    # ── taking up ────────────────────────────────────────────────────────────────────────────

    async def drain(self) -> None:
        """Take up rows until none is left to take or the hands are full; they are worked on after.

        A second bell while this goes on returns at once: the first call sees what it rang for.
        """
        if self.poke():
            return
        async with self._draining:
            structlog.contextvars.bind_contextvars(stage=self.stage.name)
            while not self._closed:
                self._again = False
                # Rows whose results are being written are not in hand any more; a full batch of
                # them is as far as writing may fall behind.
                behind = max(0, self._writing - self.stage.batch)
                free = self.stage.batch - len(self._in_hand) - behind
                if free <= 0:
                    self._freed.clear()
                    await self._until_free()
                    continue
                claims = await self._claim(free)
                fault_point("pipelines.claimed")
                for claim in claims:
                    task = asyncio.create_task(self._work(claim))
                    self._in_hand[claim.key] = (task, claim)
                if len(claims) < free and not self._again:
                    return

    def poke(self) -> bool:
        """Have a drain that is going on look once more; False when none is."""
        self._again = self._draining.locked()
        return self._again

    async def _until_free(self) -> None:
        """Wait for a free hand; when that takes long, ring, so that other processes help."""
        try:
            await asyncio.wait_for(self._freed.wait(), BUSY_AFTER_S)
        except TimeoutError:
            self._bells.ring_soon(self.stage.app, self.stage.name)
            await self._freed.wait()

    async def _claim(self, most: int) -> list[Claim]:
        early = False
        pause = await self._paused()
        if pause is not None:
            may = pause.by != "operator" and await control.may_probe(
                self._database, self.stage.app, self.stage.name
            )
            if not may:
                return []
            most, early, self._probing = 1, True, True
        async with self._pool.connection() as connection:
            return await self.statements.claim(connection, self._owner, most, early=early)

    async def _paused(self) -> control.Pause | None:
        """Return why the stage is paused, as of a moment ago: it is asked at every claim."""
        now = asyncio.get_running_loop().time()
        if now >= self._pause_known_until:
            async with self._database.sessions() as session:
                self._pause = await control.paused(session, self.stage.app, self.stage.name)
            self._pause_known_until = now + PAUSE_SEEN_WITHIN_S
        return self._pause

    # ── work ─────────────────────────────────────────────────────────────────────────────────

    async def _work(self, claim: Claim) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        # The task has a context of its own, so nothing need be unbound.
        structlog.contextvars.bind_contextvars(row=claim.key)
        try:
            outcome: Outcome | None = await self.stage.work(self._context, claim)
            fault_point("pipelines.worked")
            self._seconds.observe(loop.time() - started)
            await self._record(claim, outcome)
        except asyncio.CancelledError:
            if self._closed:  # a stop: the row is free for others at once
                tries, reason = max(0, claim.attempt - 1), "the worker stopped"
                back = Left(claim.key, claim.fence, self.stage.claims, reason, 0.0, tries)
                self._write(back, Retry)
            raise
        except Exception as error:  # noqa: BLE001 (one row's error never ends the stage)
            await self._failed(claim, error)
        finally:
            self._leaving.discard(claim.key)
            del self._in_hand[claim.key]
            if not self._in_hand or not self._writing:
                self._freed.set()

    async def _failed(self, claim: Claim, error: Exception) -> None:
        """Record what an error of the work, or of writing its result, means for the row."""
        try:
            outcome = await self._judge(claim, error)
            if outcome is not None:
                await self._record(claim, outcome)
        except Exception as again:
            log.error("result_not_recorded", exc_info=again)

    async def _judge(self, claim: Claim, error: Exception) -> Outcome | None:
        """Turn an error into what becomes of the row; None when the row is not ours any more."""
        stage = self.stage
        tries = claim.attempt
        if isinstance(error, LeaseLost):
            self._lost.inc()
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
        if isinstance(error, DBAPIError) and (refused := refused_transition(error)) is not None:
            log.error("transition_refused", error=refused)
            return self._retry_or_fail(claim, Retry(backoff_s(tries, 1.0), refused.message))
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
        if not values and record is None:
            self._write(Left(claim.key, claim.fence, to, reason, wait_s, attempts), type(outcome))
            return
        self._leaving.add(claim.key)
        ours = await self._leave_with(claim, to, reason, values, record, attempts)
        fault_point("pipelines.left")
        await self._written([(claim.key, claim.fence, to, type(outcome))] if ours else [])
        if not ours:
            self._drop(claim.key, claim.fence)

    def _drop(self, key: Any, fence: int) -> None:
        self._lost.inc()
        log.warning("result_dropped", row=key, fence=fence)

    async def _written(self, rows: Sequence[tuple[Any, int, str, type[Any]]]) -> None:
        """Count what was written, ring for who comes next, and note that the stage does well."""
        for kind, count in Counted(row[3] for row in rows).items():
            self._left[kind].inc(count)
        for status in {row[2] for row in rows if row[3] in (Advance, Back)}:
            self._ring_for(status)
        if any(row[3] is Advance for row in rows):
            await self._succeeded()

    def _write(self, left: Left, kind: type[Any]) -> None:
        """Have a result written, together with those that finish at about the same time."""
        self._finished.append((left, kind))
        self._writing += 1
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._finished:
            batch, self._finished = self._finished, []
            try:
                async with self._pool.connection() as connection:
                    ours = await self.statements.leave(connection, [left for left, _ in batch])
                fault_point("pipelines.left")
                written = [(b.key, b.fence, b.to, kind) for b, kind in batch if b.key in ours]
                for left, _ in batch:
                    if left.key not in ours:
                        self._drop(left.key, left.fence)
                await self._written(written)
            except Exception as error:
                refused = refused_transition(error) if isinstance(error, DBAPIError) else None
                log.error("results_not_recorded", rows=len(batch), exc_info=refused or error)
            finally:
                self._writing -= len(batch)
                self._freed.set()
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
            self._pause_known_until = 0.0
            if ended:
                log.info("stage_goes_on")
                async with self._pool.connection() as connection:
                    await self.statements.hurry(connection)
                self._bells.ring_soon(stage.app, stage.name)
        if asyncio.get_running_loop().time() - self._noted_at >= 1.0:
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
            held = {k: v for k, v in self._in_hand.items() if k not in self._leaving}
            if not held:
                continue
            try:
                async with self._pool.connection() as connection:
                    ours = await self.statements.renew(connection, [c for _, c in held.values()])
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("leases_not_renewed", error=error)
                continue
            for key, (task, claim) in held.items():
                if key not in ours and key not in self._leaving and not task.done():
                    self._lost.inc()
                    log.warning("lease_lost", row=key, fence=claim.fence)
                    task.cancel()

    async def close(self, grace_s: float) -> None:
        """Take up nothing more; finish what is in hand within `grace_s`, then release it."""
        self._closed = True
        self._freed.set()
        tasks = [task for task, _ in self._in_hand.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._flushing is not None:
            await self._flushing
