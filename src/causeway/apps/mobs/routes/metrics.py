"""The chain minute by minute, hour by hour, day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import bounded, sketches
from causeway.apps.mobs.answers import large
from causeway.apps.mobs.context import Ctx, reading
from causeway.apps.mobs.coverage import Coverage, covered
from causeway.apps.mobs.queries import At, Id
from causeway.apps.mobs.rollup import merge_errors
from causeway.apps.mobs.units import GWEI
from causeway.base.errors import PermanentError

router = bounded.router("metrics")

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
    start_ts: At = None,
    end_ts: At = None,
    resolution: Resolution = "minute",
    contract_id: Id = None,
) -> Response:
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
        # A contract has minutes only.
        of_minutes = width == 60 or contract_id is not None
        coverage = await covered(session, start, end + width, minutes=of_minutes)
        rows = await _rows(session, start, end, width, contract_id)
    through = coverage.through
    buckets = {int(row["bucket"]): row for row in rows}
    # The last bucket counts only when the chain has gone past its end.
    last = end if through is not None and through >= end + width else end - width
    wanted = list(range(start, last + 1, width))[:MOST_BUCKETS]
    return large(
        {
            "period": {"start_ts": start, "end_ts": end, "resolution": resolution},
            "summary": _summary(
                [buckets[at] for at in wanted if at in buckets], through, resolution
            ),
            "series": _series(wanted, buckets, coverage, width),
            "top_errors": _top([buckets[at] for at in wanted if at in buckets]),
            "generated_at": now,
        }
    )


_PLAIN = """
SELECT bucket_ts - bucket_ts % :width AS bucket, tx_count, tx_failed_count, {system}
    AS system_tx_count, gas_used_total, fees_total, gas_price_sum, gas_price_count, {blocks}
    AS block_count, unique_senders, {sketches}
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
        sketches="price_sketch, senders_sketch, top_errors"
        if own
        else "gas_price_p50, gas_price_p95, gas_price_p99, NULL AS price_sketch, "
        "NULL AS senders_sketch",
    )
    rows = (await session.execute(text(statement), values)).mappings().all()
    if not own:
        # The whole range's percentiles and senders: from days, hours, and minutes at both ends.
        whole = await _whole_range(session, start, end + width - 60)
        days = await _days(session, start, end) if width == 86_400 else {}
        found = [dict(row) for row in rows]
        if width == 86_400:
            by_day: dict[int, list[Mapping[Any, Any]]] = {}
            for row in found:
                by_day.setdefault(int(row["bucket"]), []).append(row)
            found = [_day(day, several, days.get(day)) for day, several in by_day.items()]
        return [row | ({"whole": whole} if at == 0 else {}) for at, row in enumerate(found)]
    grouped: dict[int, list[Mapping[Any, Any]]] = {}
    for row in rows:
        grouped.setdefault(int(row["bucket"]), []).append(row)
    return [_merged(bucket, several) for bucket, several in grouped.items()]


def _day(day: int, hours: Sequence[Mapping[Any, Any]], merged: _Merged | None) -> dict[str, Any]:
    prices, senders, _ = merged or (b"", b"", [])
    return _sums(hours) | {
        "bucket": day,
        "block_count": sum(int(row["block_count"]) for row in hours),
        "unique_senders": sketches.distinct(senders),
        "gas_price_p50": sketches.quantile(prices, 0.5),
        "gas_price_p95": sketches.quantile(prices, 0.95),
        "gas_price_p99": sketches.quantile(prices, 0.99),
    }


#: Sketches of prices and senders, and the commonest errors.
_Merged = tuple[bytes, bytes, list[dict[str, Any]]]

#: Whole days put together before, each with what their hours were then.
_known_days: dict[int, tuple[tuple[int, ...], _Merged]] = {}


async def _days(session: AsyncSession, start: int, end: int) -> dict[int, _Merged]:
    """Return the sketches of the days between two times, merged once and remembered."""
    marks = {
        int(day): tuple(int(value) for value in mark)
        for day, *mark in await session.execute(
            text(
                "SELECT bucket_ts - bucket_ts % 86400, count(*), max(computed_at), sum(tx_count), "
                "sum(gas_price_sum) FROM mobs.metrics_hour "
                "WHERE bucket_ts >= :start AND bucket_ts < :end + 86400 GROUP BY 1"
            ),
            {"start": start, "end": end},
        )
    }
    wanted = [d for d, mark in marks.items() if _known_days.get(d, ((), None))[0] != mark]
    for day in wanted:
        rows = (
            await session.execute(
                text(
                    "SELECT price_sketch, senders_sketch, top_errors FROM mobs.metrics_hour "
                    "WHERE bucket_ts >= :day AND bucket_ts < :day + 86400"
                ),
                {"day": day},
            )
        ).all()
        if len(_known_days) > 500:
            _known_days.clear()
        _known_days[day] = (
            marks[day],
            (
                sketches.merge_counts(bytes(prices) for prices, _, _ in rows),
                sketches.merge_registers(bytes(senders) for _, senders, _ in rows),
                merge_errors(errors for _, _, errors in rows),
            ),
        )
    return {day: _known_days[day][1] for day in marks}


async def _whole_range(session: AsyncSession, start: int, end: int) -> dict[str, Any]:
    """Return the sketches of minutes `start` to `end`: whole days, hours, and what is left."""
    first_hour, last_hour = -(-start // 3600) * 3600, (end + 60) // 3600 * 3600
    first_day, last_day = -(-start // 86_400) * 86_400, (end + 60) // 86_400 * 86_400
    days: dict[int, _Merged] = {}
    if first_day < last_day:
        days = await _days(session, first_day, last_day - 86_400)
    rows = (
        await session.execute(
            text(
                "SELECT price_sketch, senders_sketch, top_errors FROM mobs.metrics_hour "
                "WHERE bucket_ts >= :first AND bucket_ts < :last "
                "AND (bucket_ts < :first_day OR bucket_ts >= :last_day) UNION ALL "
                "SELECT price_sketch, senders_sketch, top_errors FROM mobs.metrics_minute "
                "WHERE bucket_ts >= :start AND bucket_ts <= :end "
                "AND (bucket_ts < :first OR bucket_ts >= :last)"
            ),
            {
                "first": first_hour,
                "last": max(first_hour, last_hour),
                "first_day": first_day,
                "last_day": max(first_day, last_day),
                "start": start,
                "end": end,
            },
        )
    ).all()
    parts = [*days.values(), *((bytes(p), bytes(q), errors) for p, q, errors in rows)]
    return {
        "price_sketch": sketches.merge_counts(prices for prices, _, _ in parts),
        "senders_sketch": sketches.merge_registers(senders for _, senders, _ in parts),
        "top_errors": merge_errors(errors for _, _, errors in parts),
    }


def _sums(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    return {
        name: sum(int(row[name]) for row in rows)
        for name in (
            *("tx_count", "tx_failed_count", "system_tx_count", "gas_used_total"),
            *("fees_total", "gas_price_sum", "gas_price_count"),
        )
    }


def _merged(bucket: int, rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    prices = sketches.merge_counts(bytes(row["price_sketch"]) for row in rows)
    senders = sketches.merge_registers(bytes(row["senders_sketch"]) for row in rows)
    blocks = [row["block_count"] for row in rows if row["block_count"] is not None]
    return _sums(rows) | {
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
    coverage: Coverage,
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
        whole = coverage.whole(at, width)
        series["timestamps"].append(at)
        if row is None and not whole:
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
        series["status"].append("complete" if whole else "partial")
    return series


def _top(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    whole = rows[0].get("whole") if rows else None
    lists = [whole["top_errors"]] if whole is not None else [row["top_errors"] for row in rows]
    merged = merge_errors(lists)
    return [one for one in merged if one["signature"] != "other"][:5]
