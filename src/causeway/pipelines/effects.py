"""The effect ledger: one thing done outside the database, remembered under (row, step, key)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from causeway.pipelines.models import Effect
from causeway.store.engine import Database

#: Asks the other side whether the effect is there already; None when it is not.
LookBefore = Callable[[], Awaitable[Any]]


async def once(
    database: Database,
    *,
    app: str,
    row_key: str,
    step: str,
    key: str,
    call: Callable[[], Awaitable[Any]],
    look_before: LookBefore | None = None,
) -> Any:
    """Do something outside at most once where that can be known, and return its result.

    A result that is recorded is returned without calling. When an earlier call was begun and its
    result is not known (the process died in between), `look_before` is asked first; what it finds
    counts. Without it the call is repeated: give the other side `key` as an idempotency key.
    Results must be JSON values.
    """
    name = {"app": app, "row_key": row_key, "step": step, "key": key}
    async with database.transaction() as session:
        row = (
            await session.execute(
                text(
                    "INSERT INTO causeway.effects AS e (app, row_key, step, key) "
                    "VALUES (:app, :row_key, :step, :key) "
                    "ON CONFLICT (app, row_key, step, key) DO UPDATE "
                    "SET attempts = e.attempts + CASE WHEN e.finished THEN 0 ELSE 1 END "
                    "RETURNING finished, result, attempts"
                ),
                name,
            )
        ).one()
    if row.finished:
        return row.result
    found = None
    if row.attempts > 1 and look_before is not None:
        found = await look_before()
    result = await call() if found is None else found
    return await _finish(database, name, result)


async def _finish(database: Database, name: dict[str, str], result: Any) -> Any:
    row = insert(Effect).values(**name, finished=True, result=result)
    async with database.transaction() as session:
        await session.execute(
            row.on_conflict_do_update(
                index_elements=[Effect.app, Effect.row_key, Effect.step, Effect.key],
                set_={
                    "finished": True,
                    "finished_at": text("clock_timestamp()"),
                    "result": row.excluded.result,
                },
                where=Effect.finished.is_(False),
            )
        )
    return result
