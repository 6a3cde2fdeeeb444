"""Days of the long tables: made before they are needed, dropped whole when they are too old.

PostgreSQL's own declarative partitioning, and nothing else. There is no default partition: it
would have to be searched each time a day is added.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.store.engine import Database

DAY_S = 86_400
_DAYS_AHEAD = 7

#: Partitioned by day, by Unix seconds.
TABLES = (
    "txs_ok",
    "txs_failed",
    "blocks",
    "tx_traces",
    "rpc_health_samples",
    "metrics_minute",
)


def day_name(day: int) -> str:
    """Return the suffix of a day's tables, `20261121`; `day` counts from 1970."""
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y%m%d")


async def ensure(
    session: AsyncSession, first_ts: int, last_ts: int, tables: tuple[str, ...] = TABLES
) -> None:
    """Make the partitions of every day between two times, both included, that are not there."""
    days = range(first_ts // DAY_S, last_ts // DAY_S + 1)
    wanted = [(table, day) for table in tables for day in days]
    names = [f"{table}_{day_name(day)}" for table, day in wanted]
    there = set(
        await session.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'mobs'::regnamespace "
                "AND relname = ANY(:names)"
            ),
            {"names": names},
        )
    )
    missing = [w for w, name in zip(wanted, names, strict=True) if name not in there]
    if not missing:
        return
    # Two who find the same day missing make it one after the other.
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('mobs:partitions'))"))
    # From the root down, as everybody who writes takes them: two orders would be a deadlock.
    for root in dict.fromkeys("txs" if t.startswith("txs_") else t for t, _ in missing):
        await session.execute(text(f"LOCK TABLE mobs.{root} IN ACCESS EXCLUSIVE MODE"))
    for table, day in missing:
        await session.execute(
            text(
                f"CREATE TABLE IF NOT EXISTS mobs.{table}_{day_name(day)} "
                f"PARTITION OF mobs.{table} "
                f"FOR VALUES FROM ({day * DAY_S}) TO ({(day + 1) * DAY_S})"
            )
        )


async def ahead(database: Database, now: int) -> None:
    """Make today and the days to come, a table in a transaction of its own.

    With one lock at a time there is no order in which a reader of several tables could wait for
    this and this for the reader.
    """
    for tables in (("txs_ok", "txs_failed"), *((one,) for one in TABLES if one[:4] != "txs_")):
        async with database.transaction() as session:
            await ensure(session, now, now + _DAYS_AHEAD * DAY_S, tables)


async def days_of(session: AsyncSession, table: str) -> list[int]:
    """Return the days a table has partitions for, oldest first."""
    names = await session.scalars(
        text(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = to_regclass(:parent)"
        ),
        {"parent": f"mobs.{table}"},
    )
    days: list[int] = []
    for name in names:
        found = re.search(r"_(\d{8})$", name)
        if found:
            at = datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC)
            days.append(int(at.timestamp()) // DAY_S)
    return sorted(days)


async def drop(session: AsyncSession, table: str, day: int) -> None:
    """Drop a day of a table, with its rows; nothing when it is not there."""
    await session.execute(text(f"DROP TABLE IF EXISTS mobs.{table}_{day_name(day)}"))
