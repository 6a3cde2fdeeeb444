"""How many transactions a range of time has: from hours and minutes, the edges counted.

What is listed are rows that are stored, and successful ones are let go earlier than failed ones:
each status is counted from the day it is kept since.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions

Status = Literal["all", "success", "failed"]

#: A minute's or hour's transactions by status, and the table their rows are in.
_OF_BUCKET = {
    "all": ("tx_count", "txs"),
    "failed": ("tx_failed_count", "txs_failed"),
    "success": ("tx_count - tx_failed_count", "txs_ok"),
}


async def by_time(
    session: AsyncSession, status: Status, since: int, until: int, *, system: bool
) -> int:
    """Return how many rows there are from `since` to `until`, both included (Unix seconds).

    With `system` also those that the chain itself makes, which never fail.
    """
    kept = {
        one: min(await partitions.days_of(session, table), default=0) * partitions.DAY_S
        for one, table in (("success", "txs_ok"), ("failed", "txs_failed"))
    }
    if status == "all" and since < max(kept.values()):
        return sum(
            [
                await _count(session, one, max(since, kept[one]), until, system=system)
                for one in ("success", "failed")
            ]
        )
    earliest = max(kept.values()) if status == "all" else kept[status]
    return await _count(session, status, max(since, earliest), until, system=system)


async def _count(
    session: AsyncSession, status: str, since: int, until: int, *, system: bool
) -> int:
    of_bucket, table = _OF_BUCKET[status]
    if system and status != "failed":
        of_bucket += " + system_tx_count"
    only = "" if system else " AND NOT is_system"
    first = -(-since // 60) * 60
    # Minutes are good up to the first one that is to be computed again, and from when they are
    # kept; hours, one row each, in between.
    known, minutes_from = (
        await session.execute(
            text(
                "SELECT least((SELECT min(bucket_ts) FROM mobs.dirty_minutes WHERE "
                "bucket_ts >= :first), (SELECT max(bucket_ts) + 60 FROM mobs.metrics_minute)), "
                "(SELECT min(bucket_ts) FROM mobs.metrics_minute)"
            ),
            {"first": first},
        )
    ).one()
    last = max(first, min(int(known or 0), (until + 1) // 60 * 60))
    hour, last_hour = -(-first // 3600) * 3600, last // 3600 * 3600
    if hour >= last_hour:
        hour = last_hour = last
    if minutes_from is None or first < int(minutes_from):
        first = hour
    if minutes_from is None or last_hour < int(minutes_from):
        last = last_hour
    count = await session.scalar(
        text(
            f"SELECT coalesce((SELECT sum({of_bucket}) FROM mobs.metrics_minute "
            "WHERE bucket_ts >= :first AND bucket_ts < :hour "
            "OR bucket_ts >= :last_hour AND bucket_ts < :last), 0) + "
            f"coalesce((SELECT sum({of_bucket}) FROM mobs.metrics_hour "
            "WHERE bucket_ts >= :hour AND bucket_ts < :last_hour), 0) + "
            f"(SELECT count(*) FROM mobs.{table} WHERE block_timestamp >= :since "
            f"AND block_timestamp < :first AND block_timestamp <= :until{only}) + "
            f"(SELECT count(*) FROM mobs.{table} WHERE block_timestamp >= :last "
            f"AND block_timestamp <= :until{only})"
        ),
        {
            "first": first,
            "hour": hour,
            "last_hour": last_hour,
            "last": last,
            "since": since,
            "until": until,
        },
    )
    return int(count or 0)
