"""The stage engine: each row worked once, whatever dies, with the whole story kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from causeway.base.errors import InvalidStateTransition
from causeway.pipelines import control, effects, runner, sweeper
from causeway.pipelines.bells import TASK, Bells, queue_of
from causeway.pipelines.claims import Left, Statements, open_pool
from causeway.pipelines.history import refused_transition
from causeway.pipelines.loops import LeasedLoop, run_loop
from causeway.store.engine import Database
from causeway.store.lease import Lease
from tests.postgres_fixtures import PostgresServer, migrated_template
from tests.staged import EDGES, Behaviour, create, stages, working


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    """Look at a condition until it holds, or fail."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def scalar(database: Database, query: str, **values: Any) -> Any:
    """Return one value."""
    async with database.sessions() as session:
        return await session.scalar(text(query), values)


def at_once(_tries: int, _jitter: float) -> float:
    """Retry without a pause."""
    return 0.0


def all_done(database: Database, rows: int) -> Callable[[], Awaitable[bool]]:
    """Return a condition: every row has arrived."""

    async def condition() -> bool:
        query = "SELECT count(*) FROM staged.items WHERE status = 'done'"
        return await scalar(database, query) == rows

    return condition


@asynccontextmanager
async def worker_process(
    database: Database, lease_s: float = 1.0, seconds: float = 0.0, fault: str = ""
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a worker as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.staged", database.conninfo, str(lease_s), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "CAUSEWAY_FAULT": fault},
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("processes", [2, 4])
async def test_no_row_is_worked_twice_by_several_processes(
    database: Database, processes: int
) -> None:
    await create(database, rows=200)
    workers = [worker_process(database, lease_s=30) for _ in range(processes)]
    entered = await asyncio.gather(*(w.__aenter__() for w in workers))
    try:
        await until(all_done(database, 200), 30)
    finally:
        await asyncio.gather(*(w.__aexit__(None, None, None) for w in workers))
    assert len(entered) == processes
    query = "SELECT count(*) FROM (SELECT id, stage FROM staged.done GROUP BY 1, 2 HAVING"
    assert await scalar(database, f"{query} count(*) > 1) AS twice") == 0
    assert await scalar(database, "SELECT count(*) FROM staged.done") == 400


@pytest.mark.parametrize("point", ["pipelines.claimed", "pipelines.worked", "pipelines.left"])
async def test_rows_of_a_killed_worker_are_taken_back_and_the_story_tells(
    database: Database, point: str
) -> None:
    await create(database, rows=5)
    async with worker_process(database, fault=point) as victim:
        await victim.wait()
        assert victim.returncode == -signal.SIGKILL
    async with working(database, Behaviour(database), lease_s=1.0):
        await until(all_done(database, 5))
    reasons = await scalar(
        database, "SELECT string_agg(reason, ';') FROM causeway.transitions WHERE to_status = 'new'"
    )
    if point != "pipelines.left":
        assert "is gone" in reasons
    story = await scalar(
        database,
        "SELECT array_agg(to_status ORDER BY id) FROM causeway.transitions WHERE row_key = '1'",
    )
    assert story[0] == "new"
    assert story[-1] == "done"
    assert all(pair in EDGES for pair in pairwise(story))


async def test_a_late_result_of_a_paused_worker_is_dropped_by_the_fence(
    database: Database,
) -> None:
    await create(database, rows=1)
    async with worker_process(database, lease_s=0.6, seconds=1.0) as sleeper:

        async def claimed() -> bool:
            query = "SELECT count(*) FROM staged.items WHERE status = 'working'"
            return await scalar(database, query) == 1

        await until(claimed)
        sleeper.send_signal(signal.SIGSTOP)
        async with working(database, Behaviour(database), lease_s=0.6):
            await until(all_done(database, 1))
            fence = await scalar(database, "SELECT fence FROM staged.items")
            sleeper.send_signal(signal.SIGCONT)
            sleeper.terminate()
            await sleeper.wait()
    assert await scalar(database, "SELECT status FROM staged.items") == "done"
    assert await scalar(database, "SELECT fence FROM staged.items") == fence


async def test_a_stop_releases_what_it_cannot_finish_without_counting_the_attempt(
    database: Database,
) -> None:
    await create(database, rows=1)
    slow = Behaviour(database, seconds=60)
    async with working(database, slow, lease_s=60):
        await asyncio.wait_for(slow.started.wait(), 10)
    async with database.sessions() as session:
        row = (await session.execute(text("SELECT * FROM staged.items"))).one()
    assert (row.status, row.attempts, row.lease_owner) == ("new", 0, None)
    assert row.last_error == "the worker stopped"


async def test_permanent_errors_fail_at_once_and_ours_after_the_last_attempt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "backoff_s", at_once)
    await create(database, rows=1)

    async def failed() -> bool:
        return await scalar(database, "SELECT status FROM staged.items") == "failed"

    async with working(database, Behaviour(database, how="permanent")):
        await until(failed)
    assert await scalar(database, "SELECT last_error FROM staged.items") == "this can never work"
    async with database.transaction() as session:
        await session.execute(text("UPDATE staged.items SET status = 'new', attempts = 0"))
    bug = Behaviour(database, how="bug")
    async with working(database, bug, max_attempts=3):
        await until(failed)
    assert bug.calls == 3
    assert "gave up after 3 attempts" in await scalar(
        database, "SELECT last_error FROM staged.items"
    )


@pytest.mark.parametrize("how", ["away", "configuration"])
async def test_an_outage_pauses_the_stage_uses_up_no_attempt_and_ends_by_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(runner, "backoff_s", at_once)
    monkeypatch.setattr(runner, "PAUSE_SEEN_WITHIN_S", 0.0)
    monkeypatch.setattr(control, "PROBE_EVERY_S", 0.4)
    await create(database, rows=20)
    behaviour = Behaviour(database, how=how)
    async with working(database, behaviour, max_attempts=2):

        async def paused() -> bool:
            async with database.sessions() as session:
                found = await control.paused(session, "staged", "first")
            return found is not None and found.by == ("outage" if how == "away" else how)

        await until(paused)
        calls = behaviour.calls

        async def probed() -> bool:
            return behaviour.calls > calls + 2

        await until(probed)  # one row now and then, no more
        assert await scalar(database, "SELECT max(attempts) FROM staged.items") <= 1
        assert (
            await scalar(database, "SELECT count(*) FROM staged.items WHERE status='failed'") == 0
        )
        behaviour.how = ""
        await until(all_done(database, 20))


async def test_an_operators_pause_is_ended_by_nobody_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PROBE_EVERY_S", 0.0)
    await create(database, rows=2)
    await control.pause(database, "staged", "first", "for a while")
    assert not await control.pause(database, "staged", "first", "away", by="outage")
    assert not await control.may_probe(database, "staged", "first")
    async with working(database, Behaviour(database), poll_interval_s=0.1):
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO staged.items (id, status) VALUES (9, 'half')"))

        async def passed() -> bool:  # the other stage goes on
            query = "SELECT status FROM staged.items WHERE id = 9"
            return await scalar(database, query) == "done"

        await until(passed)
        query = "SELECT count(*) FROM staged.items WHERE status = 'new'"
        assert await scalar(database, query) == 2
        await control.resume(database, "staged", "first")
        await until(all_done(database, 3))


async def test_a_restart_of_postgresql_in_the_middle_loses_nothing(
    postgres_server: PostgresServer,
) -> None:
    database = Database(
        postgres_server.create(
            "worked_on", await asyncio.to_thread(migrated_template, postgres_server)
        )
    )
    await create(database, rows=60)
    slow = Behaviour(database, seconds=0.05)
    async with working(database, slow, lease_s=1.0):
        await asyncio.wait_for(slow.started.wait(), 10)
        await asyncio.to_thread(postgres_server.restart)

        async def finished() -> bool:
            try:
                return await all_done(database, 60)()
            except DBAPIError:
                return False

        await until(finished, 40)
    await database.close()


STATUSES = ("new", "working", "half", "done", "failed")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=st.tuples(st.sampled_from(STATUSES), st.sampled_from(STATUSES)))
def test_the_database_refuses_every_edge_that_is_not_declared(
    guarded: Callable[[str, str], DBAPIError | None], pair: tuple[str, str]
) -> None:
    error = guarded(*pair)
    if pair[0] == pair[1] or pair in EDGES:
        assert error is None
    else:
        assert error is not None
        refused = refused_transition(error)
        assert isinstance(refused, InvalidStateTransition)
        assert refused.context["current"], refused.context["wanted"] == pair


@pytest.fixture
def guarded(database_url: str) -> Callable[[str, str], DBAPIError | None]:
    """Return a function that tries an edge by plain SQL and returns what the database says."""

    async def attempt(current: str, wanted: str) -> DBAPIError | None:
        database = Database(database_url)
        try:
            if not await scalar(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'staged'"):
                await create(database)
            async with database.transaction() as session:
                await session.execute(text("DELETE FROM staged.items"))
                await session.execute(
                    text("INSERT INTO staged.items (id, status) VALUES (1, :s)"), {"s": current}
                )
            async with database.transaction() as session:
                await session.execute(text("UPDATE staged.items SET status = :s"), {"s": wanted})
        except DBAPIError as error:
            return error
        finally:
            await database.close()
        return None

    return lambda current, wanted: asyncio.run(attempt(current, wanted))


async def test_an_effect_is_done_once_and_looked_for_after_a_crash(database: Database) -> None:
    name: dict[str, Any] = {"app": "a", "row_key": "1", "step": "pay", "key": "k"}
    calls: list[int] = []

    async def pay() -> int:
        calls.append(1)
        return 42

    async def crash() -> int:
        calls.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await effects.once(database, **name, call=crash)

    async def found() -> int:
        return 41

    assert await effects.once(database, **name, call=pay, look_before=found) == 41
    assert await effects.once(database, **name, call=pay) == 41
    assert len(calls) == 1


async def test_a_loop_runs_at_one_holder_and_goes_on_when_that_one_is_gone(
    database: Database,
) -> None:
    running: list[str] = []
    seen: list[tuple[str, int]] = []

    async def work(context: str, lease: Lease) -> None:
        running.append(context)
        try:
            assert len(running) == 1
            seen.append((context, lease.fence))
            await asyncio.sleep(0)
        finally:
            running.remove(context)

    loop = LeasedLoop(name="l", interval_s=0.01, work=work, lease_s=0.6)
    stops = {name: asyncio.Event() for name in "ab"}
    tasks = {
        name: asyncio.create_task(run_loop(loop, name, database, name, stop))
        for name, stop in stops.items()
    }

    async def begun() -> bool:
        return len(seen) > 5

    await until(begun)
    first = seen[0][0]
    assert {name for name, _ in seen} == {first}
    tasks[first].cancel()  # gone without a word
    other = "b" if first == "a" else "a"

    async def taken() -> bool:
        return seen[-1][0] == other

    await until(taken)
    assert seen[-1][1] > seen[0][1]
    stops[other].set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


# ── the traps of the doorbell, each reproduced once and closed ───────────────────────────────────


async def stall(bells: Bells, database: Database, task: str, attempts: int = 0) -> int:
    """Have a job taken by a worker that is gone; return its id."""
    async with database.transaction() as session:
        await session.execute(text("SET LOCAL search_path TO causeway"))
        worker = await session.scalar(
            text(
                "INSERT INTO causeway.procrastinate_workers (last_heartbeat) "
                "VALUES (now() - interval '1 hour') RETURNING id"
            )
        )
        job = await session.scalar(
            text(
                "UPDATE causeway.procrastinate_jobs SET status = 'doing', worker_id = :w, "
                "attempts = :n WHERE task_name = :t AND status = 'todo' RETURNING id"
            ),
            {"w": worker, "t": task, "n": attempts},
        )
    return int(job)


async def test_trap_1_a_stalled_bell_blocks_no_later_one(database: Database) -> None:
    await create(database, rows=1)
    async with Bells.open(database) as bells:
        await bells.ring("staged", "first")
        await stall(bells, database, TASK)
    async with working(database, Behaviour(database)):
        await until(all_done(database, 1))


async def test_trap_2_a_rescue_goes_on_past_a_job_whose_twin_waits(database: Database) -> None:
    async with Bells.open(database) as bells:
        await bells.ring("staged", "first")
        await stall(bells, database, TASK)
        await bells.ring("staged", "first")  # the twin
        await bells.engine.configure_task("other", queue="q", allow_unknown=True).defer_async()
        other = await stall(bells, database, "other")
        assert await sweeper.rescue(bells.engine) == 2
        query = "SELECT status::text FROM causeway.procrastinate_jobs WHERE id = :id"
        assert await scalar(database, query, id=other) == "todo"


async def test_trap_3_a_job_that_kills_its_workers_is_given_up(database: Database) -> None:
    async with Bells.open(database) as bells:
        await bells.engine.configure_task("deadly", queue="q", allow_unknown=True).defer_async()
        job = await stall(bells, database, "deadly", attempts=sweeper.MOST_RESCUES)
        await sweeper.rescue(bells.engine)
        query = "SELECT status::text FROM causeway.procrastinate_jobs WHERE id = :id"
        assert await scalar(database, query, id=job) == "failed"


async def test_trap_4_the_rescue_is_a_leased_loop_and_no_job(database: Database) -> None:
    await create(database)
    async with working(database, Behaviour(database)):

        async def leased() -> bool:
            query = "SELECT count(*) FROM causeway.leases WHERE name = 'pipelines:rescue'"
            return await scalar(database, query) == 1

        await until(leased)
        tasks = "SELECT count(*) FROM causeway.procrastinate_jobs WHERE task_name LIKE '%rescue%'"
        assert await scalar(database, tasks) == 0


async def test_trap_5_jobs_of_other_queues_are_left_alone(database: Database) -> None:
    await create(database, rows=1)
    async with Bells.open(database) as bells:
        engine = bells.engine
        await engine.configure_task("theirs", queue="another", allow_unknown=True).defer_async()
    async with working(database, Behaviour(database)):
        await until(all_done(database, 1))
    query = "SELECT status::text FROM causeway.procrastinate_jobs WHERE task_name = 'theirs'"
    assert await scalar(database, query) == "todo"


async def test_trap_6_bells_that_were_answered_are_gone(database: Database) -> None:
    await create(database, rows=3)
    async with working(database, Behaviour(database)):
        await until(all_done(database, 3))

        async def gone() -> bool:
            query = "SELECT count(*) FROM causeway.procrastinate_jobs WHERE status <> 'todo'"
            return await scalar(database, query) == 0

        await until(gone)


async def test_trap_7_polling_alone_is_enough(database: Database) -> None:
    await create(database, rows=3)
    async with working(database, Behaviour(database), poll_only=True):
        await until(all_done(database, 3))


async def test_bells_are_coalesced_and_ringing_never_raises(database: Database) -> None:
    async with Bells.open(database) as bells:
        await asyncio.gather(*(bells.ring("staged", "first") for _ in range(20)))
        query = "SELECT count(*) FROM causeway.procrastinate_jobs WHERE queue_name = :q"
        assert await scalar(database, query, q=queue_of("staged", "first")) == 1


async def test_a_retry_after_is_honoured_to_the_second(database: Database) -> None:
    await create(database, rows=1)
    first, _ = stages()
    statements = Statements(first)
    async with open_pool(database) as pool, pool.connection() as connection:
        (claim,) = await statements.claim(connection, "me", 1)
        await statements.leave(
            connection, [Left(claim.key, claim.fence, "new", "later", 30.0, claim.attempt)]
        )
        assert await statements.claim(connection, "me", 1) == []
        assert not await statements.due(connection)
    wait_s = await scalar(
        database, "SELECT extract(epoch FROM next_at - clock_timestamp()) FROM staged.items"
    )
    assert 25 < wait_s <= 30


async def test_who_lost_its_lease_cannot_write_over_who_has_it_now(database: Database) -> None:
    await create(database, rows=1)
    first, _ = stages(lease_s=0.05)
    statements = Statements(first)
    async with open_pool(database) as pool, pool.connection() as connection:
        (late,) = await statements.claim(connection, "late", 1)

        async def taken_back() -> bool:
            return await statements.take_back(connection) == 1

        await until(taken_back)
        (now,) = await statements.claim(connection, "now", 1)
        assert now.fence > late.fence
        result = Left(late.key, late.fence, "half", None, None, 0)
        assert await statements.leave(connection, [result]) == set()
        assert await statements.renew(connection, [late]) == set()
        assert await statements.renew(connection, [now]) == {1}
        result = Left(now.key, now.fence, "half", None, None, 0)
        assert await statements.leave(connection, [result]) == {1}
