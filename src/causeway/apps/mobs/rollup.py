"""Minutes and hours of the chain, computed whole from the transactions that are stored.

The work list is the marked minutes that are over by the chain's own clock: what came late, was
undone or was loaded from history marks its minute again, so that the figures always converge to a
fresh aggregate over `txs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions, sketches
from causeway.apps.mobs.context import MobsContext
from causeway.apps.mobs.models import ContractMinute, HourMetrics, MinuteMetrics
from causeway.apps.mobs.scanner import note
from causeway.store.copy import copy_rows
from causeway.store.lease import Lease, guard

log = structlog.get_logger(__name__)

_MINUTES = Counter("causeway_mobs_minutes_computed_total", "Minutes computed from transactions")
_SECONDS = Histogram("causeway_mobs_rollup_seconds", "Time to compute a batch of minutes")

#: Minutes computed in one transaction.
_AT_ONCE = 60
#: Errors shown by name; the rest are counted together.
_ERRORS_SHOWN = 5
#: What a minute counts, together every transaction of its blocks.
_COUNTED = ("tx_count", "system_tx_count")

_MINUTE_TABLE: Table = MinuteMetrics.__table__  # pyright: ignore[reportAssignmentType]
_CONTRACT_TABLE: Table = ContractMinute.__table__  # pyright: ignore[reportAssignmentType]
_HOUR_TABLE: Table = HourMetrics.__table__  # pyright: ignore[reportAssignmentType]

#: The transactions that are asked about, and the minute of each since 1970: where there is one
#: minute only, as while the chain is followed, it is not worked out for each of them.
_MINUTE = "{minute}"
_OF_EACH = "block_timestamp / 60"
_THE_ONE = "CAST(:first AS bigint) / 60"
_THESE = "FROM mobs.txs WHERE block_timestamp >= :first AND block_timestamp < :last + 60{gaps}"
_GAPS = " AND block_timestamp - block_timestamp % 60 = ANY(:minutes)"
#: A price as a float: by way of an integer where it is one, which takes a third of the time.
_FLOAT = "CASE WHEN gas_price < 9e18 THEN gas_price::bigint::float8 ELSE gas_price::float8 END"

#: Everything that is asked of the transactions of some minutes, for the chain (`who` is 0) and for
#: each watched contract (its id). They are read once for sums and prices, which leaves some
#: thousand rows, and once for senders. Of the hashes that share a register the smallest has the
#: highest rank, so that ranks are computed for registers, not for senders.
_FIGURES = f"""
WITH parts AS MATERIALIZED (
    SELECT {_MINUTE} AS minute, contract_id, is_system, status,
        CASE WHEN is_system OR tx_type = 126 THEN NULL
            WHEN gas_price <= 0 THEN {sketches.ZERO}
            ELSE ceil(ln({_FLOAT}) / {sketches.LOG_GROWTH!r})::integer END AS bucket,
        count(*) AS n, sum(gas_used) AS gas_used, sum(total_fee) AS fees, sum(gas_price) AS prices
    {_THESE} GROUP BY 1, 2, 3, 4, 5),
both_of_them AS (
    SELECT 0 AS who, * FROM parts UNION ALL
    SELECT contract_id, * FROM parts WHERE contract_id IS NOT NULL),
figures AS (
    SELECT minute, who,
        coalesce(sum(n) FILTER (WHERE NOT is_system), 0) AS tx_count,
        coalesce(sum(n) FILTER (WHERE NOT is_system AND status = 0), 0) AS tx_failed_count,
        coalesce(sum(n) FILTER (WHERE is_system), 0) AS system_tx_count,
        sum(gas_used) AS gas_used_total,
        coalesce(sum(fees) FILTER (WHERE NOT is_system), 0) AS fees_total
    FROM both_of_them GROUP BY minute, who),
buckets AS (
    SELECT minute, who, bucket, sum(n) AS n, sum(prices) AS total
    FROM both_of_them WHERE bucket IS NOT NULL GROUP BY minute, who, bucket),
price_sketches AS (
    SELECT minute, who, sum(total) AS gas_price_sum, sum(n) AS gas_price_count, string_agg(
        int2send(bucket::smallint) || int4send(n::integer), ''::bytea ORDER BY bucket)
        AS price_sketch
    FROM buckets GROUP BY minute, who),
senders AS (
    SELECT {_MINUTE} AS minute, 0 AS who, from_address {_THESE} AND NOT is_system GROUP BY 1, 3
    UNION ALL SELECT {_MINUTE}, contract_id, from_address {_THESE} AND NOT is_system
        AND contract_id IS NOT NULL GROUP BY 1, 2, 3),
registers AS (
    SELECT minute, who, (h & {sketches.REGISTERS - 1})::integer AS register,
        min(h >> {sketches.REGISTER_BITS}) AS least, count(*) AS n
    FROM (SELECT minute, who, hashtextextended(encode(from_address, 'hex'), 0)
            & {2**sketches.HASH_BITS - 1} AS h FROM senders) AS hashed
    GROUP BY minute, who, register),
senders_sketches AS (
    SELECT minute, who, sum(n) AS unique_senders, string_agg(
        int2send(register::smallint) || substring(int2send((
            {sketches.HASH_BITS - sketches.REGISTER_BITS + 1} - length(ltrim(
            least::bit({sketches.HASH_BITS - sketches.REGISTER_BITS})::text, '0'))
        )::smallint) FROM 2), ''::bytea ORDER BY register) AS senders_sketch
    FROM registers GROUP BY minute, who),
failures AS MATERIALIZED (
    SELECT {_MINUTE} AS minute, contract_id, error_signature, error_decoded, count(*) AS n
    {_THESE} AND status = 0 AND NOT is_system GROUP BY 1, 2, 3, 4),
texts AS (
    SELECT minute, 0 AS who, error_signature, error_decoded, sum(n) AS n
    FROM failures GROUP BY 1, 3, 4
    UNION ALL SELECT minute, contract_id, error_signature, error_decoded, n
    FROM failures WHERE contract_id IS NOT NULL),
errors AS (
    SELECT minute, who, coalesce('0x' || encode(error_signature, 'hex'), 'none') AS signature,
        (array_agg(error_decoded ORDER BY n DESC, error_decoded))[1] AS name, sum(n) AS n,
        row_number() OVER (PARTITION BY minute, who ORDER BY sum(n) DESC,
            coalesce('0x' || encode(error_signature, 'hex'), 'none')) AS place
    FROM texts GROUP BY minute, who, error_signature),
lists AS (
    SELECT minute, who, jsonb_agg(
            jsonb_build_object('signature', signature, 'name', name, 'count', n)
            ORDER BY place) FILTER (WHERE place <= {_ERRORS_SHOWN}) AS errors,
        sum(n) FILTER (WHERE place > {_ERRORS_SHOWN}) AS other
    FROM errors GROUP BY minute, who)
SELECT minute * 60 AS bucket_ts, * FROM figures
    LEFT JOIN senders_sketches USING (minute, who)
    LEFT JOIN price_sketches USING (minute, who)
    LEFT JOIN lists USING (minute, who)
"""


async def compute_minutes(session: AsyncSession, minutes: Sequence[int]) -> None:
    """Compute minutes (Unix seconds of their starts) anew from what is stored.

    A minute without any block is unknown and has no row; one with empty blocks has a row of zeros.
    Where the blocks had more transactions than are stored, retention has let some go: such a minute
    stays as it was when all of them were there.
    """
    for _, group in itertools.groupby(sorted(set(minutes)), lambda minute: minute // 3600):
        await _compute(session, list(group))


async def _compute(session: AsyncSession, minutes: list[int]) -> None:
    first, last = minutes[0], minutes[-1]
    place = {"first": first, "last": last, "minutes": minutes}
    await partitions.ensure(session, first, last, ("metrics_minute",))
    heads = await session.execute(
        text(
            "SELECT timestamp - timestamp % 60 AS minute, count(*), sum(tx_count) "
            "FROM mobs.blocks WHERE timestamp >= :first AND timestamp < :last + 60 "
            "AND timestamp - timestamp % 60 = ANY(:minutes) GROUP BY 1"
        ),
        place,
    )
    blocks: dict[int, int] = {}
    told: dict[int, int] = {}
    for minute, count, transactions in heads:
        blocks[minute], told[minute] = count, int(transactions)
    # A busy minute has more senders than the usual memory holds; compiling would take longer than
    # the work.
    await session.execute(
        text("SELECT set_config('work_mem', '32MB', true), set_config('jit', 'off', true)")
    )
    dense = len(minutes) == (last - first) // 60 + 1
    found = await session.execute(
        text(
            _FIGURES.format(
                gaps="" if dense else _GAPS, minute=_OF_EACH if first < last else _THE_ONE
            )
        ),
        {"first": first, "last": last} if dense else place,
    )
    figures: dict[int, Mapping[Any, Any]] = {}
    by_contract: list[Mapping[Any, Any]] = []
    for row in found.mappings():
        if row["who"]:
            by_contract.append(row)
        else:
            figures[row["bucket_ts"]] = row
    kept = {
        minute: sum(int(figures.get(minute, {}).get(name, 0)) for name in _COUNTED)
        for minute in blocks
    }
    minutes = [one for one in minutes if one not in blocks or kept[one] >= told[one]]
    rows = [
        {"bucket_ts": minute, "block_count": blocks[minute]} | whole(figures.get(minute, {}))
        for minute in minutes
        if minute in blocks
    ]
    watched = set(
        await session.scalars(
            text("SELECT id FROM mobs.contracts WHERE id = ANY(:ids) FOR KEY SHARE"),
            {"ids": list({row["who"] for row in by_contract})},
        )
    )
    names, these = set(_CONTRACT_TABLE.c.keys()), set(minutes)
    contract_rows = [
        {"contract_id": row["who"], "bucket_ts": row["bucket_ts"]}
        | {name: value for name, value in whole(row).items() if name in names}
        for row in by_contract
        if row["who"] in watched and row["bucket_ts"] in blocks and row["bucket_ts"] in these
    ]
    for table in ("metrics_minute", "metrics_minute_contract"):
        await session.execute(
            text(f"DELETE FROM mobs.{table} WHERE bucket_ts = ANY(:minutes)"), {"minutes": minutes}
        )
    await _insert(session, _MINUTE_TABLE, rows)
    await _insert(session, _CONTRACT_TABLE, contract_rows)
    _MINUTES.inc(len(minutes))


def whole(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the columns of an interval from what a query found of it; zeros for nothing."""
    prices = bytes(row.get("price_sketch") or sketches.EMPTY)
    total, count = int(row.get("gas_price_sum") or 0), int(row.get("gas_price_count") or 0)
    errors: list[dict[str, Any]] = list(row.get("errors") or ())
    if row.get("other"):
        errors.append({"signature": "other", "name": "other", "count": int(row["other"])})
    names = ("tx_count", "tx_failed_count", "system_tx_count", "gas_used_total", "fees_total")
    sums = {name: int(row.get(name) or 0) for name in names}
    return sums | {
        **_prices(prices, total, count),
        "unique_senders": int(row.get("unique_senders") or 0),
        "senders_sketch": bytes(row.get("senders_sketch") or sketches.EMPTY),
        "top_errors": errors,
    }


def _prices(sketch: bytes, total: int, count: int) -> dict[str, Any]:
    return {
        "gas_price_sum": total,
        "gas_price_count": count,
        "gas_price_avg": total // count if count else None,
        "gas_price_p50": sketches.quantile(sketch, 0.5),
        "gas_price_p95": sketches.quantile(sketch, 0.95),
        "gas_price_p99": sketches.quantile(sketch, 0.99),
        "price_sketch": sketch,
    }


async def _insert(session: AsyncSession, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        await copy_rows(session, table, names, [[row[name] for row in rows] for name in names])


async def indexed_through(session: AsyncSession) -> int | None:
    """Return the time of the newest applied block, Unix seconds; None before the first."""
    found = await session.scalar(
        text(
            "SELECT (value->>'timestamp')::bigint FROM mobs.worker_state "
            "WHERE key = 'last_scanned_block'"
        )
    )
    return None if found is None else int(found)


async def compute_marked(session: AsyncSession, most: int = _AT_ONCE) -> int:
    """Compute some of the marked minutes that are over, the newest first; return how many.

    A mark goes only if nobody marked the minute again meanwhile: who does so in a transaction that
    is still open holds the mark's row, and is waited for.
    """
    through = await indexed_through(session)
    if through is None:
        return 0
    marked = (
        await session.execute(
            text(
                "SELECT bucket_ts, marks FROM mobs.dirty_minutes WHERE bucket_ts + 60 <= :through "
                "ORDER BY bucket_ts DESC LIMIT :most"
            ),
            {"through": through, "most": most},
        )
    ).all()
    if not marked:
        return 0
    minutes = [minute for minute, _ in marked]
    with _SECONDS.time():
        await compute_minutes(session, minutes)
        await compute_hours(
            session, {minute - minute % 3600 for minute in minutes}, computed=minutes
        )
    await session.execute(
        text(
            "DELETE FROM mobs.dirty_minutes AS d USING unnest(CAST(:minutes AS bigint[]), "
            "CAST(:marks AS bigint[])) AS done (minute, marks) "
            "WHERE d.bucket_ts = done.minute AND d.marks = done.marks"
        ),
        {"minutes": minutes, "marks": [marks for _, marks in marked]},
    )
    await note(session, "metrics_rollup_cursor", {"last_bucket_ts": max(minutes)})
    return len(marked)


async def rollup(ctx: MobsContext, lease: Lease) -> None:
    """Compute every marked minute that is over. The work of the loop `mobs:rollup`."""
    computed = _AT_ONCE
    while computed == _AT_ONCE:
        async with ctx.database.transaction() as session:
            await guard(session, lease)
            computed = await compute_marked(session)


async def compute_hours(
    session: AsyncSession, hours: Iterable[int], *, computed: Sequence[int] = ()
) -> None:
    """Put hours (Unix seconds of their starts) together from their minutes.

    An hour of which a minute is not stored any more, though its blocks are, stays as it was.
    `computed` are minutes computed just now, whose marks are still there.
    """
    rows: list[dict[str, Any]] = []
    wanted = sorted(hours)
    gone = set(
        await session.scalars(
            text(
                "SELECT DISTINCT b.hour FROM (SELECT timestamp - timestamp % 3600 AS hour, "
                "timestamp - timestamp % 60 AS minute FROM mobs.blocks "
                "WHERE timestamp >= :first AND timestamp < :last + 3600 "
                "AND timestamp - timestamp % 3600 = ANY(:hours) GROUP BY 1, 2) AS b "
                "WHERE NOT EXISTS (SELECT FROM mobs.metrics_minute WHERE bucket_ts = b.minute) "
                "AND (b.minute = ANY(:computed) OR NOT EXISTS "
                "(SELECT FROM mobs.dirty_minutes WHERE bucket_ts = b.minute))"
            ),
            {
                "hours": wanted,
                "first": min(wanted, default=0),
                "last": max(wanted, default=0),
                "computed": list(computed),
            },
        )
    )
    wanted = [hour for hour in wanted if hour not in gone]
    for hour in wanted:
        minutes = await session.execute(
            text(
                "SELECT * FROM mobs.metrics_minute "
                "WHERE bucket_ts >= :hour AND bucket_ts < :hour + 3600"
            ),
            {"hour": hour},
        )
        found = minutes.mappings().all()
        if found:
            rows.append({"bucket_ts": hour} | combined(found))
    await session.execute(
        text("DELETE FROM mobs.metrics_hour WHERE bucket_ts = ANY(:hours)"), {"hours": wanted}
    )
    await _insert(session, _HOUR_TABLE, rows)


def combined(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Return the figures of several intervals as one: percentiles and senders from sketches."""
    sums = {
        name: int(sum(row[name] for row in rows))
        for name in (
            *("tx_count", "tx_failed_count", "system_tx_count", "gas_used_total"),
            *("fees_total", "block_count"),
        )
    }
    prices = sketches.merge_counts(bytes(row["price_sketch"]) for row in rows)
    total = int(sum(row["gas_price_sum"] for row in rows))
    count = int(sum(row["gas_price_count"] for row in rows))
    senders = sketches.merge_registers(bytes(row["senders_sketch"]) for row in rows)
    exact = rows[0]["unique_senders"] if len(rows) == 1 else None
    return sums | {
        **_prices(prices, total, count),
        "unique_senders": sketches.distinct(senders) if exact is None else exact,
        "senders_sketch": senders,
        "top_errors": merge_errors(row["top_errors"] for row in rows),
    }


def merge_errors(lists: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the five commonest errors of several lists, and how many others there were."""
    counts: dict[str, int] = {}
    names: dict[str, tuple[int, str | None]] = {}
    for one in lists:
        for error in one:
            signature, count = str(error["signature"]), int(error["count"])
            counts[signature] = counts.get(signature, 0) + count
            if count > names.get(signature, (0, None))[0]:
                names[signature] = (count, error["name"])
    other = counts.pop("other", 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    other += sum(count for _, count in ordered[_ERRORS_SHOWN:])
    found: list[dict[str, Any]] = [
        {"signature": signature, "name": names[signature][1], "count": count}
        for signature, count in ordered[:_ERRORS_SHOWN]
    ]
    if other:
        found.append({"signature": "other", "name": "other", "count": other})
    return found
