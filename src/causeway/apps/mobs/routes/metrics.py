"""The chain minute by minute, hour by hour, day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import sketches
from causeway.apps.mobs.context import Ctx, reading
from causeway.apps.mobs.rollup import indexed_through, merge_errors
from causeway.apps.mobs.units import GWEI
from causeway.base.errors import PermanentError

router = APIRouter(tags=["metrics"])

Resolution = Literal["minute", "hour", "day"]
SECONDS: dict[str, int] = {"minute": 60, "hour": 3600, "day": 86_400}
LONGEST_S = 2_592_000
#: Minutes at most, so that an answer stays an answer.
MOST_BUCKETS = 45_000


class BadRange(PermanentError):
    """A range of time that cannot be."""


@router.get("/metrics/overview")
async def overview(
    ctx: Ctx,
    start_ts: Annotated[int | None, Query(ge=0)] = None,
    end_ts: Annotated[int | None, Query(ge=0)] = None,
    resolution: Resolution = "minute",
    contract_id: int | None = None,
) -> dict[str, Any]:
    """Return figures and series of a range; what is not indexed yet is null, never zero."""
    now = int(ctx.clock.now().timestamp())
    end = now if end_ts is None else end_ts
    start = end - 3600 if start_ts is None else start_ts
    if start >= end:
        raise BadRange(f"start_ts is {start}; allowed is less than end_ts ({end}).")
    if end - start > LONGEST_S:
        raise BadRange(f"end_ts − start_ts is {end - start}; allowed is at most {LONGEST_S}.")
    width = SECONDS[resolution]
    start, end = start - start % width, end - end % width
    async with reading(ctx) as session:
        through = await indexed_through(session)
        first = await session.scalar(text("SELECT min(bucket_ts) FROM mobs.metrics_hour"))
        rows = await _rows(session, start, end, width, contract_id)
    buckets = {int(row["bucket"]): row for row in rows}
    # The last bucket counts only when the chain has gone past its end.
    last = end if through is not None and through >= end + width else end - width
    wanted = list(range(start, last + 1, width))[:MOST_BUCKETS]
    known_from = None if first is None else int(first)
    return {
        "period": {"start_ts": start, "end_ts": end, "resolution": resolution},
        "summary": _summary([buckets[at] for at in wanted if at in buckets], through, resolution),
        "series": _series(wanted, buckets, through, known_from, width),
        "top_errors": _top(buckets[at] for at in wanted if at in buckets),
        "generated_at": now,
    }


_PLAIN = """
SELECT bucket_ts - bucket_ts % :width AS bucket, tx_count, tx_failed_count, {system}
    AS system_tx_count, gas_used_total, fees_total, gas_price_sum, gas_price_count, {blocks}
    AS block_count, unique_senders, top_errors, {sketches}
FROM mobs.{table} WHERE bucket_ts >= :start AND bucket_ts < :end + :width {where}
ORDER BY bucket_ts
"""


async def _rows(
    session: AsyncSession, start: int, end: int, width: int, contract_id: int | None
) -> Sequence[Mapping[Any, Any]]:
    """Return the figures of each bucket; longer ones are put together from hours."""
    values: dict[str, Any] = {"start": start, "end": end, "width": width}
    own = contract_id is not None
    table = (
        "metrics_minute_contract" if own else "metrics_minute" if width == 60 else "metrics_hour"
    )
    where = "AND contract_id = :contract" if own else ""
    if own:
        values["contract"] = contract_id
    statement = _PLAIN.format(
        table=table,
        where=where,
        system="0" if own else "system_tx_count",
        blocks="NULL" if own else "block_count",
        sketches="price_sketch, senders_sketch"
        if own or width > 60
        else "gas_price_p50, gas_price_p95, gas_price_p99, NULL AS price_sketch, "
        "NULL AS senders_sketch",
    )
    rows = (await session.execute(text(statement), values)).mappings().all()
    if width == 60 and not own:
        # The whole range's percentiles and senders: from hours, and minutes at both ends.
        whole = await _whole_range(session, start, end)
        return [dict(row) | ({"whole": whole} if at == 0 else {}) for at, row in enumerate(rows)]
    grouped: dict[int, list[Mapping[Any, Any]]] = {}
    for row in rows:
        grouped.setdefault(int(row["bucket"]), []).append(row)
    return [_merged(bucket, several) for bucket, several in grouped.items()]


async def _whole_range(session: AsyncSession, start: int, end: int) -> dict[str, Any]:
    first_hour, last_hour = -(-start // 3600) * 3600, (end + 60) // 3600 * 3600
    rows = (
        (
            await session.execute(
                text(
                    "SELECT price_sketch, senders_sketch FROM mobs.metrics_hour "
                    "WHERE bucket_ts >= :first AND bucket_ts < :last UNION ALL "
                    "SELECT price_sketch, senders_sketch FROM mobs.metrics_minute "
                    "WHERE bucket_ts >= :start AND bucket_ts <= :end "
                    "AND (bucket_ts < :first OR bucket_ts >= :last)"
                ),
                {
                    "first": first_hour,
                    "last": max(first_hour, last_hour),
                    "start": start,
                    "end": end,
                },
            )
        )
        .mappings()
        .all()
    )
    return {
        "price_sketch": sketches.merge_counts(bytes(row["price_sketch"]) for row in rows),
        "senders_sketch": sketches.merge_registers(bytes(row["senders_sketch"]) for row in rows),
    }


def _merged(bucket: int, rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    prices = sketches.merge_counts(bytes(row["price_sketch"]) for row in rows)
    senders = sketches.merge_registers(bytes(row["senders_sketch"]) for row in rows)
    sums = {
        name: sum(int(row[name]) for row in rows)
        for name in (
            *("tx_count", "tx_failed_count", "system_tx_count", "gas_used_total"),
            *("fees_total", "gas_price_sum", "gas_price_count"),
        )
    }
    blocks = [row["block_count"] for row in rows if row["block_count"] is not None]
    return sums | {
        "bucket": bucket,
        "block_count": sum(blocks) if blocks else None,
        "unique_senders": rows[0]["unique_senders"]
        if len(rows) == 1
        else sketches.distinct(senders),
        "gas_price_p50": sketches.quantile(prices, 0.5),
        "gas_price_p95": sketches.quantile(prices, 0.95),
        "gas_price_p99": sketches.quantile(prices, 0.99),
        "price_sketch": prices,
        "senders_sketch": senders,
        "top_errors": merge_errors(row["top_errors"] for row in rows),
    }


def _gwei(wei: int | None) -> float:
    return 0.0 if wei is None else round(int(wei) / GWEI, 6)


def _summary(
    rows: Sequence[Mapping[Any, Any]], through: int | None, resolution: str
) -> dict[str, Any]:
    total = sum(int(row["tx_count"]) for row in rows)
    failed = sum(int(row["tx_failed_count"]) for row in rows)
    priced = sum(int(row["gas_price_count"]) for row in rows)
    wei = sum(int(row["gas_price_sum"]) for row in rows)
    whole = rows[0].get("whole") if rows else None
    if whole is not None:
        prices, senders = whole["price_sketch"], whole["senders_sketch"]
    else:
        prices = sketches.merge_counts(bytes(row["price_sketch"] or b"") for row in rows)
        senders = sketches.merge_registers(bytes(row["senders_sketch"] or b"") for row in rows)
    exact = len(rows) == 1 and resolution == "minute"
    return {
        "tx_total": total,
        "tx_failed": failed,
        "failure_rate": round(100 * failed / total, 2) if total else 0.0,
        "gas_used_total": str(sum(int(row["gas_used_total"]) for row in rows)),
        "gas_price_avg_gwei": _gwei(wei // priced) if priced else 0.0,
        "blocks_processed": sum(int(row["block_count"] or 0) for row in rows),
        "unique_senders": int(rows[0]["unique_senders"]) if exact else sketches.distinct(senders),
        "gas_price_p50_gwei": _gwei(sketches.quantile(prices, 0.5)),
        "gas_price_p95_gwei": _gwei(sketches.quantile(prices, 0.95)),
        "gas_price_p99_gwei": _gwei(sketches.quantile(prices, 0.99)),
        "fees_total_wei": str(sum(int(row["fees_total"]) for row in rows)),
        "unique_senders_exact": exact or not rows,
        "complete_through_ts": through,
        "system_tx_count": sum(int(row["system_tx_count"]) for row in rows),
    }


def _series(
    wanted: Sequence[int],
    buckets: Mapping[int, Mapping[Any, Any]],
    through: int | None,
    known_from: int | None,
    width: int,
) -> dict[str, list[Any]]:
    """Return dense series: zero where the chain did nothing, null where it is not known."""
    series: dict[str, list[Any]] = {
        name: []
        for name in (
            *("timestamps", "tx_count", "tx_failed_count", "gas_price_avg", "gas_price_p50"),
            *("gas_price_p95", "gas_price_p99", "block_count", "gas_used", "unique_senders"),
            "status",
        )
    }
    for at in wanted:
        row = buckets.get(at)
        covered = through is not None and known_from is not None and at >= known_from
        over = covered and through is not None and at + width <= through
        series["timestamps"].append(at)
        if row is None and not over:
            for name in series:
                if name not in ("timestamps", "status"):
                    series[name].append(None)
            series["status"].append("missing")
            continue
        empty: Mapping[Any, Any] = row or {}
        count = int(empty.get("gas_price_count", 0))
        series["tx_count"].append(int(empty.get("tx_count", 0)))
        series["tx_failed_count"].append(int(empty.get("tx_failed_count", 0)))
        mean = int(empty["gas_price_sum"]) // count if count else 0
        series["gas_price_avg"].append(mean)
        for name in ("gas_price_p50", "gas_price_p95", "gas_price_p99"):
            value = empty.get(name)
            series[name].append(None if value is None else int(value))
        blocks = empty.get("block_count", 0)
        series["block_count"].append(None if blocks is None else int(blocks))
        series["gas_used"].append(int(empty.get("gas_used_total", 0)))
        series["unique_senders"].append(int(empty.get("unique_senders", 0)))
        series["status"].append("complete" if over else "partial")
    return series


def _top(rows: Any) -> list[dict[str, Any]]:
    merged = merge_errors(row["top_errors"] for row in rows)
    return [one for one in merged if one["signature"] != "other"][:5]
