"""Transitions per second of the stage engine beside a bare loop with the same guarantees.

The bare loop is what one would write by hand: claim fifty rows with SKIP LOCKED under a lease and a
fence, leave them in one statement guarded by the fence. It has no tasks, no bells, no pauses and no
renewal; the engine has all of them. Both on the same table of the same database, guard and history
included, which the database keeps whoever moves the rows; in turn, several times in one run. The
bare loop on a table without them is measured, too.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from itertools import pairwise
from typing import Any

from sqlalchemy import text

from causeway.pipelines.bells import Bells
from causeway.pipelines.claims import Pool, open_pool
from causeway.pipelines.history import attach_history
from causeway.pipelines.stage import Advance, Claim, Outcome, Stage
from causeway.pipelines.worker import PipelineWorker, Work
from causeway.runtime.installation import lines_of
from causeway.store import migrate
from causeway.store.engine import Database
from tests.staged import Base, Item

BATCH = 50
ROUNDS = 5
STATUSES = ("s0", "s1", "s2", "s3")


async def engine_vs_bare(database_url: str, rows: int = 3000) -> dict[str, float]:
    """Return transitions per second of both and the median of their ratios, run by run."""
    database = Database(database_url)
    await migrate.upgrade(database, lines_of([]))
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA staged"))
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("CREATE INDEX ON staged.items (status, id)"))
    edges = [edge for a, b in pairwise(STATUSES) for edge in ((a, f"{a}w"), (f"{a}w", b))]
    history = attach_history("staged.items", app="staged", key="id", edges=edges)
    bare: list[float] = []
    naked: list[float] = []
    engine: list[float] = []
    async with open_pool(database) as pool:
        for _ in range(ROUNDS):
            await _fill(database, rows, [])
            naked.append(await _bare(pool, rows))
            await _fill(database, rows, history)
            bare.append(await _bare(pool, rows))
            await _fill(database, 0, history)
            engine.append(await _engine(database, rows))
    await database.close()
    ratios = [e / b for e, b in zip(engine, bare, strict=True)]
    return {
        "engine_transitions_per_second": statistics.median(engine),
        "bare_loop_transitions_per_second": statistics.median(bare),
        "bare_loop_without_history_transitions_per_second": statistics.median(naked),
        "ratio_to_bare_loop_without_history": statistics.median(
            e / n for e, n in zip(engine, naked, strict=True)
        ),
        "ratio_to_bare_loop": statistics.median(ratios),
        "ratio_to_bare_loop_min": min(ratios),
        "ratio_to_bare_loop_max": max(ratios),
    }


async def _fill(database: Database, rows: int, history: list[str]) -> None:
    async with database.engine.begin() as connection:
        for event in ("insert", "update", "delete"):
            await connection.execute(
                text(f"DROP TRIGGER IF EXISTS causeway_history_{event} ON staged.items")
            )
        await connection.execute(text("DROP FUNCTION IF EXISTS staged.items_history()"))
        await connection.execute(text("TRUNCATE staged.items, causeway.transitions"))
        if rows:
            await connection.execute(
                text(
                    "INSERT INTO staged.items (id, status) "
                    f"SELECT i, '{STATUSES[0]}' FROM generate_series(1, {rows}) AS i"
                )
            )
        for statement in history:
            await connection.execute(text(statement))
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE staged.items"))


async def _bare(pool: Pool, rows: int) -> float:
    """Drain every stage with one connection; return transitions per second."""
    claim = b"""
        WITH due AS (SELECT id FROM staged.items WHERE status = %(from)s
            AND (next_at IS NULL OR next_at <= clock_timestamp())
            AND (lease_until IS NULL OR lease_until < clock_timestamp())
            ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
        UPDATE staged.items AS t SET status = %(working)s, lease_owner = 'bare',
            lease_until = clock_timestamp() + interval '120 s', fence = t.fence + 1,
            attempts = t.attempts + 1
        FROM due WHERE t.id = due.id RETURNING t.id, t.fence"""
    leave = b"""
        UPDATE staged.items AS t SET status = %(to)s, lease_owner = NULL, lease_until = NULL,
            attempts = 0
        FROM unnest(%(ids)s::bigint[], %(fences)s::bigint[]) AS d(id, fence)
        WHERE t.id = d.id AND t.fence = d.fence AND t.status = %(working)s"""
    started = time.perf_counter()
    async with pool.connection() as connection:
        for here, there in pairwise(STATUSES):
            while True:
                names: dict[str, Any] = {"from": here, "working": f"{here}w", "to": there}
                cursor = await connection.execute(claim, {**names, "most": BATCH})
                claimed = await cursor.fetchall()
                if not claimed:
                    break
                await connection.execute(
                    leave,
                    {
                        **names,
                        "ids": [row["id"] for row in claimed],
                        "fences": [row["fence"] for row in claimed],
                    },
                )
    return 2 * (len(STATUSES) - 1) * rows / (time.perf_counter() - started)


async def _engine(database: Database, rows: int) -> float:
    """Have a worker that is up drain every stage; return transitions per second.

    The clock runs from the ring to the last row's arrival, as it does for the bare loop from its
    first claim; how long a process takes to start is not a matter of transitions.
    """

    async def work(_context: None, _claim: Claim) -> Outcome:
        return Advance()

    stages = [
        Stage(
            name=here,
            app="staged",
            model=Item,
            key="id",
            claims=here,
            working=f"{here}w",
            done=there,
            failed="failed",
            work=work,
            batch=BATCH,
            order_by=("id",),
            poll_interval_s=5.0,
        )
        for here, there in pairwise(STATUSES)
    ]
    stop = asyncio.Event()
    async with Bells.open(database) as bells:
        worker = PipelineWorker(database, bells, [Work("staged", None, stages)], grace_s=1)
        task = asyncio.create_task(worker.run(stop))
        await _insert(database, 0, 0)
        await bells.ring("staged", STATUSES[0])
        await _all_done(database, 1)
        await _insert(database, 1, rows)
        started = time.perf_counter()
        await bells.ring("staged", STATUSES[0])
        await _all_done(database, rows + 1)
        seconds = time.perf_counter() - started
        stop.set()
        await task
    return 2 * (len(STATUSES) - 1) * rows / seconds


async def _insert(database: Database, first: int, last: int) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO staged.items (id, status) "
                f"SELECT i, '{STATUSES[0]}' FROM generate_series({first}, {last}) AS i"
            )
        )


async def _all_done(database: Database, rows: int) -> None:
    """Wait until that many rows have arrived; looked at rarely enough not to matter."""
    deadline, done = time.monotonic() + 120, None
    while time.monotonic() < deadline:
        async with database.sessions() as session:
            done = await session.scalar(
                text("SELECT count(*) FROM staged.items WHERE status = :last"),
                {"last": STATUSES[-1]},
            )
        if done == rows:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{done} of {rows} rows arrived")
