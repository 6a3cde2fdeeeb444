"""The statements of a stage: claim, renew, leave, take back, look. Each is one round trip.

They go past SQLAlchemy, straight to psycopg: this is the path every transition takes. Times are
the database's own (`clock_timestamp()`), so that machines need not agree on theirs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.dialects import postgresql

from causeway.pipelines.stage import Claim, Stage
from causeway.store.engine import Database

Row = dict[str, Any]
Connection = AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]


@asynccontextmanager
async def open_pool(database: Database, size: int = 4) -> AsyncGenerator[Pool]:
    """Open a few connections for the stages of this process, in autocommit."""
    pool: Pool = AsyncConnectionPool(
        database.conninfo,
        connection_class=cast("type[Connection]", AsyncConnection),
        kwargs={"autocommit": True, "row_factory": dict_row, **database.connect_arguments},
        min_size=1,
        max_size=size,
        open=False,
        timeout=10,
        reconnect_timeout=5,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


@dataclass(slots=True)
class Left:
    """What became of one row, when nothing but the engine's own columns changes."""

    key: Any
    fence: int
    to: str
    reason: str | None
    #: Seconds until it may be claimed again; None: at once.
    wait_s: float | None
    #: Attempts kept on the row.
    attempts: int


def _sql(statement: str) -> bytes:
    """Bytes, because psycopg takes text only from literals; every name in it is a declared one."""
    return statement.encode()


class Statements:
    """A stage's statements, written out once."""

    def __init__(self, stage: Stage[Any]) -> None:
        self.stage = stage
        table = f"{stage.table.schema}.{stage.table.name}"
        c = {name: stage.column(name) for name in ("status", "attempts", "next_at")}
        c |= {name: stage.column(name) for name in ("lease_owner", "lease_until", "fence")}
        c |= {"error": stage.column("last_error"), "key": stage.column(stage.key)}
        self._columns = c
        key_type = stage.table.c[c["key"]].type.compile(dialect=postgresql.dialect())
        order = ", ".join(stage.column(a) for a in stage.order_by) or c["key"]
        free = f"({c['lease_until']} IS NULL OR {c['lease_until']} < clock_timestamp())"
        due = f"({c['next_at']} IS NULL OR {c['next_at']} <= clock_timestamp())"
        lease = "clock_timestamp() + make_interval(secs => %(lease_s)s)"
        self.claim_sql = _sql(f"""
            WITH due AS (
                SELECT {c["key"]} AS k FROM {table}
                WHERE {c["status"]} = %(claims)s AND (%(early)s OR {due}) AND {free}
                ORDER BY {order} LIMIT %(most)s FOR UPDATE SKIP LOCKED)
            UPDATE {table} AS t SET {c["status"]} = %(in_work)s, {c["lease_owner"]} = %(owner)s,
                {c["lease_until"]} = {lease}, {c["fence"]} = t.{c["fence"]} + 1,
                {c["attempts"]} = t.{c["attempts"]} + 1, {c["next_at"]} = NULL
            FROM due WHERE t.{c["key"]} = due.k RETURNING t.*""")
        self.renew_sql = _sql(f"""
            UPDATE {table} AS t SET {c["lease_until"]} = {lease}
            FROM unnest(%(keys)s::{key_type}[], %(fences)s::bigint[]) AS mine(k, fence)
            WHERE t.{c["key"]} = mine.k AND t.{c["fence"]} = mine.fence
                AND t.{c["status"]} = %(in_work)s RETURNING t.{c["key"]} AS k""")
        self.leave_sql = _sql(f"""
            UPDATE {table} AS t SET {c["status"]} = done.status, {c["lease_owner"]} = NULL,
                {c["lease_until"]} = NULL, {c["error"]} = left(done.reason, 1000),
                {c["attempts"]} = done.attempts,
                {c["next_at"]} = clock_timestamp() + make_interval(secs => done.wait_s)
            FROM unnest(%(keys)s::{key_type}[], %(fences)s::bigint[], %(statuses)s::text[],
                %(reasons)s::text[], %(attempts)s::int[], %(waits)s::float8[])
                AS done(k, fence, status, reason, attempts, wait_s)
            WHERE t.{c["key"]} = done.k AND t.{c["fence"]} = done.fence
                AND t.{c["status"]} = %(in_work)s RETURNING t.{c["key"]} AS k""")
        self.take_back_sql = _sql(f"""
            UPDATE {table} SET {c["status"]} = %(claims)s, {c["lease_owner"]} = NULL,
                {c["lease_until"]} = NULL, {c["fence"]} = {c["fence"]} + 1,
                {c["error"]} = 'the worker ' || {c["lease_owner"]} || ' is gone'
            WHERE {c["key"]} IN (
                SELECT {c["key"]} FROM {table} WHERE {c["status"]} = %(in_work)s
                    AND {c["lease_until"]} < clock_timestamp() AND {c["lease_owner"]} IS NOT NULL
                LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING {c["key"]} AS k""")
        self.due_sql = _sql(f"""
            SELECT EXISTS (SELECT FROM {table} WHERE {c["status"]} = %(claims)s AND {free}
                AND (%(early)s OR {due})) AS due""")
        self.hurry_sql = _sql(f"""
            UPDATE {table} SET {c["next_at"]} = NULL
            WHERE {c["status"]} = %(claims)s AND {c["next_at"]} > clock_timestamp()""")

    async def claim(
        self, connection: Connection, owner: str, most: int, *, early: bool = False
    ) -> list[Claim]:
        """Take up to `most` rows; `early` takes rows whose next try is not due yet, too."""
        c = self._columns
        cursor = await connection.execute(
            self.claim_sql,
            {
                "claims": self.stage.claims,
                "in_work": self.stage.in_work,
                "owner": owner,
                "lease_s": self.stage.lease_s,
                "most": most,
                "early": early,
            },
        )
        key, fence, attempts = c["key"], c["fence"], c["attempts"]
        return [Claim(r[key], r, r[fence], r[attempts]) for r in await cursor.fetchall()]

    async def renew(self, connection: Connection, claims: Sequence[Claim]) -> set[Any]:
        """Extend the leases of these rows; return the keys that are still ours."""
        cursor = await connection.execute(
            self.renew_sql,
            {
                "keys": [claim.key for claim in claims],
                "fences": [claim.fence for claim in claims],
                "lease_s": self.stage.lease_s,
                "in_work": self.stage.in_work,
            },
        )
        return {row["k"] for row in await cursor.fetchall()}

    async def leave(self, connection: Connection, rows: Sequence[Left]) -> set[Any]:
        """Write what became of these rows; return the keys that were still ours."""
        cursor = await connection.execute(
            self.leave_sql,
            {
                "keys": [row.key for row in rows],
                "fences": [row.fence for row in rows],
                "statuses": [row.to for row in rows],
                "reasons": [row.reason for row in rows],
                "attempts": [row.attempts for row in rows],
                "waits": [row.wait_s for row in rows],
                "in_work": self.stage.in_work,
            },
        )
        return {row["k"] for row in await cursor.fetchall()}

    async def take_back(self, connection: Connection) -> int:
        """Free the rows of workers whose lease ran out; return how many there were."""
        cursor = await connection.execute(
            self.take_back_sql, {"claims": self.stage.claims, "in_work": self.stage.in_work}
        )
        return cursor.rowcount

    async def due(self, connection: Connection, *, early: bool = False) -> bool:
        """Say whether any row waits to be taken up."""
        cursor = await connection.execute(
            self.due_sql, {"claims": self.stage.claims, "early": early}
        )
        row = await cursor.fetchone()
        return bool(row and row["due"])

    async def hurry(self, connection: Connection) -> None:
        """Have rows that wait for a later try taken up now: what they waited for is back."""
        await connection.execute(self.hurry_sql, {"claims": self.stage.claims})
