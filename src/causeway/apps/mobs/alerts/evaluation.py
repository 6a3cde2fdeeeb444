"""What a rule observes: numbers out of the stored blocks, transactions, probes and reorgs.

Everything is asked about a window that ends at a time of the chain, so that the same questions can
be put to the present and to any moment before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.alerts.rules import (
    OF_PROVIDERS,
    WHOLE_WINDOW,
    Condition,
    holds,
    parse,
)
from causeway.apps.mobs.fees import forks_between

#: Chain time before the window that prices are compared with, seconds.
BASELINE_S = 3600
#: A probe older than this says nothing of the present, seconds.
PROBE_S = 90
#: Transactions kept as evidence of an event.
EVIDENCE = 20


@dataclass(frozen=True)
class Moment:
    """When a rule is evaluated: the chain's time, and the clock on the wall. Unix seconds."""

    through: int | None
    now: int
    #: Whether it is the present: history says nothing of providers that are probed now.
    live: bool = True
    #: Times at which prices changed their meaning.
    forks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Observation:
    """What one series of a rule is at a moment."""

    series: str
    #: None: not known.
    value: Decimal | None
    is_true: bool | None
    #: Hashes of transactions it rests on.
    evidence: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def observe(
    session: AsyncSession, rule: Mapping[str, Any], moment: Moment
) -> list[Observation]:
    """Return what a rule (a row of `alerts`) observes: one series, or one for each contract."""
    kind = rule["alert_type"]
    if kind == "provider_down":
        return [await _providers_down(session, rule, moment)]
    if kind == "custom":
        condition = parse(rule["conditions"])
        if condition.metric in OF_PROVIDERS or condition.metric in _OF_KERNEL:
            return await _of_pipelines(session, rule, condition, moment)
    else:
        condition = None
    if not _is_fresh(rule, moment) or moment.through is None:
        return [Observation("", None, None)]
    if condition is not None:
        return await _custom(session, rule, condition, moment.through)
    if kind == "failure_rate":
        return [await _failure_rate(session, rule, moment.through)]
    return [await _gas_spike(session, rule, moment.through, moment.forks)]


def reads_blocks(rule: Mapping[str, Any]) -> bool:
    """Say whether a rule is about what stands in blocks, which a reorg can take away."""
    if rule["alert_type"] == "custom":
        metric = rule["conditions"].get("metric")
        return metric not in OF_PROVIDERS and metric not in _OF_KERNEL
    return rule["alert_type"] != "provider_down"


def _is_fresh(rule: Mapping[str, Any], moment: Moment) -> bool:
    """Say whether the index is near enough to the present to speak of it."""
    if moment.through is None:
        return False
    if not moment.live:
        return True
    allowed = max(60, int(rule["window_minutes"]) * 30)
    return moment.now - moment.through <= allowed


def window(rule: Mapping[str, Any], through: int) -> tuple[int, int]:
    """Return the window that ends at this time: after the first, up to the second."""
    return through - 60 * int(rule["window_minutes"]), through


_NOT_SYSTEM = "block_timestamp > :start AND block_timestamp <= :end AND NOT is_system"


def _where(rule: Mapping[str, Any], filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the further conditions of a question about transactions, and their values."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    ids = filters.get("contract_ids") or list(rule["contract_ids"] or ())
    if ids:
        parts.append("contract_id = ANY(:contracts)")
        values["contracts"] = ids
    for name, column in (
        ("from", "from_address"),
        ("to", "to_address"),
        ("signature", "error_signature"),
        ("method_id", "method_id"),
    ):
        if name in filters:
            parts.append(f"{column} = :{column}")
            values[column] = bytes.fromhex(str(filters[name])[2:])
    return "".join(f" AND {part}" for part in parts), values


async def _failed_hashes(
    session: AsyncSession, where: str, values: Mapping[str, Any]
) -> tuple[str, ...]:
    rows = await session.scalars(
        text(
            f"SELECT hash FROM mobs.txs WHERE {_NOT_SYSTEM} AND status = 0{where} "
            f"ORDER BY block_timestamp DESC, block_number DESC, tx_index DESC LIMIT {EVIDENCE}"
        ),
        dict(values),
    )
    return tuple("0x" + bytes(one).hex() for one in rows)


async def _failure_rate(
    session: AsyncSession, rule: Mapping[str, Any], through: int
) -> Observation:
    start, end = window(rule, through)
    where, values = _where(rule, {})
    values |= {"start": start, "end": end}
    total, failed = (
        await session.execute(
            text(
                "SELECT count(*), count(*) FILTER (WHERE status = 0) "
                f"FROM mobs.txs WHERE {_NOT_SYSTEM}{where}"
            ),
            values,
        )
    ).one()
    if total == 0 or total < int(rule["conditions"].get("min_tx", 1)):
        return Observation("", None, None, context={"transactions": total})
    value = Decimal(100 * failed) / Decimal(total)
    is_true = value > rule["threshold"]
    evidence = await _failed_hashes(session, where, values) if is_true else ()
    return Observation("", value, is_true, evidence, {"transactions": total, "failed": failed})


async def _gas_spike(
    session: AsyncSession, rule: Mapping[str, Any], through: int, forks: tuple[int, ...]
) -> Observation:
    start, end = window(rule, through)
    where, values = _where(rule, {})
    values |= {"start": start - BASELINE_S, "end": end, "middle": start}
    if forks_between(forks, start - BASELINE_S, end):
        return Observation("", None, None, context={"baseline": "spans a change of fees"})
    here, before = (
        await session.execute(
            text(
                "SELECT avg(gas_price) FILTER (WHERE block_timestamp > :middle), "
                "avg(gas_price) FILTER (WHERE block_timestamp <= :middle) "
                f"FROM mobs.txs WHERE {_NOT_SYSTEM} AND tx_type <> 126{where}"
            ),
            values,
        )
    ).one()
    if here is None or not before:
        return Observation("", None, None)
    value = Decimal(here) / Decimal(before)
    return Observation("", value, value > rule["threshold"], context={"baseline": str(before)})


async def _providers_down(
    session: AsyncSession, rule: Mapping[str, Any], moment: Moment
) -> Observation:
    if not moment.live:
        rows = (
            await session.execute(
                text(
                    "SELECT DISTINCT ON (endpoint_id) score FROM mobs.rpc_health_samples "
                    "WHERE sampled_at > :since AND sampled_at <= :now "
                    "ORDER BY endpoint_id, sampled_at DESC"
                ),
                {"since": moment.now - PROBE_S, "now": moment.now},
            )
        ).all()
        if not rows:
            return Observation("", None, None)
        value = Decimal(sum(score <= 50 for (score,) in rows))
        return Observation("", value, value >= rule["threshold"])
    newest, down, names = (
        await session.execute(
            text(
                "SELECT max(last_probe_at), count(*) FILTER (WHERE status = 'unhealthy'), "
                "array_agg(name ORDER BY name) FILTER (WHERE status = 'unhealthy') "
                "FROM mobs.rpc_endpoints WHERE is_active"
            )
        )
    ).one()
    if newest is None or moment.now - newest > PROBE_S:
        return Observation("", None, None)
    value = Decimal(down)
    return Observation("", value, value >= rule["threshold"], context={"providers": names or []})


#: SQL of one transaction's part in a metric.
_PER_TX = {
    "gas_price": "gas_price",
    "gas_used": "gas_used",
    "fee": "total_fee",
    "native_transfer_value": "value_wei",
}
_PER_BLOCK = {
    "block_time": "timestamp - lag(timestamp) OVER (ORDER BY number)",
    "block_gas_ratio": "gas_used::numeric / nullif(gas_limit, 0)",
}
_COUNTED = {
    "tx_count": "count(*)",
    "tx_failed_count": "count(*) FILTER (WHERE status = 0)",
    "error_count": "count(*) FILTER (WHERE status = 0)",
    "method_count": "count(*)",
    "failure_rate": "100.0 * count(*) FILTER (WHERE status = 0) / nullif(count(*), 0)",
    "unique_senders": "count(DISTINCT from_address)",
}
#: A minute without transactions has none of these; of a rate it has nothing.
_ZERO_WITHOUT = ("tx_count", "tx_failed_count", "error_count", "method_count", "unique_senders")
_OF_KERNEL = ("indexer_lag", "trace_queue_depth", "reorg_depth", "reorg_count")
_ON_FAILURES = ("tx_failed_count", "failure_rate", "error_count")
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _aggregate(of: str, aggregation: str, minutes: int, *order: str) -> str:
    if aggregation in _QUANTILES:
        return f"percentile_disc({_QUANTILES[aggregation]}) WITHIN GROUP (ORDER BY {of})"
    if aggregation == "last":
        last_first = ", ".join(f"{one} DESC" for one in order)
        return f"(array_agg({of} ORDER BY {last_first}))[1]"
    if aggregation == "rate_per_min":
        return f"sum({of})::numeric / {minutes}"
    return f"{aggregation}({of})"


async def _custom(
    session: AsyncSession, rule: Mapping[str, Any], condition: Condition, through: int
) -> list[Observation]:
    start, end = window(rule, through)
    where, values = _where(rule, condition.filters)
    values |= {"start": start, "end": end}
    minutes = int(rule["window_minutes"])
    metric = condition.metric
    if metric in _PER_BLOCK:
        of = _aggregate("v", condition.aggregation, minutes, "timestamp")
        value = await session.scalar(
            text(
                f"SELECT {of} FROM (SELECT timestamp, {_PER_BLOCK[metric]} AS v "
                "FROM mobs.blocks WHERE timestamp > :start AND timestamp <= :end) AS b "
                "WHERE v IS NOT NULL"
            ),
            {"start": start, "end": end},
        )
        return [_observation("", value, condition, rule, ())]
    if metric in _PER_TX:
        where += " AND tx_type <> 126" if metric == "gas_price" else ""
        of = _aggregate(
            _PER_TX[metric],
            condition.aggregation,
            minutes,
            *("block_timestamp", "block_number", "tx_index"),
        )
    else:
        of = _COUNTED[metric]
        if condition.aggregation == "rate_per_min":
            of = f"({of})::numeric / {minutes}"
        elif condition.aggregation not in WHOLE_WINDOW[metric]:
            return await _by_minute(session, rule, condition, where, values)
    by = condition.by == "contract"
    if by:
        where += " AND contract_id IS NOT NULL"
    rows = (
        await session.execute(
            text(
                f"SELECT {'contract_id' if by else 'NULL'}, count(*), {of} "
                f"FROM mobs.txs WHERE {_NOT_SYSTEM}{where}"
                f"{' GROUP BY contract_id ORDER BY contract_id' if by else ''}"
            ),
            values,
        )
    ).all()
    found: list[Observation] = []
    for contract, count, value in rows:
        enough = count >= condition.min_tx or (metric in _ZERO_WITHOUT and condition.min_tx <= 1)
        series = f"contract:{contract}" if by else ""
        one = _observation(series, value if enough else None, condition, rule, ())
        if one.is_true and metric in _ON_FAILURES:
            own = " AND contract_id = :contract" if by else ""
            more = values | ({"contract": contract} if by else {})
            one = replace(one, evidence=await _failed_hashes(session, where + own, more))
        found.append(one)
    return found


async def _by_minute(
    session: AsyncSession,
    rule: Mapping[str, Any],
    condition: Condition,
    where: str,
    values: dict[str, Any],
) -> list[Observation]:
    """Return an aggregate of the figures of a window's minutes: the busiest, the last, a p95."""
    metric, minutes = condition.metric, int(rule["window_minutes"])
    by = condition.by == "contract"
    if by:
        where += " AND contract_id IS NOT NULL"
    missing = "0" if metric in _ZERO_WITHOUT else "NULL"
    of = _aggregate("v", condition.aggregation, minutes, "minute")
    rows = (
        await session.execute(
            text(
                f"WITH m AS (SELECT {'contract_id' if by else '0'} AS who, "
                f"({minutes} - 1 - (:end - block_timestamp) / 60) AS minute, count(*) AS n, "
                f"{_COUNTED[metric]} AS v FROM mobs.txs WHERE {_NOT_SYSTEM}{where} GROUP BY 1, 2), "
                f"w AS (SELECT {'DISTINCT who FROM m' if by else '0 AS who'}), dense AS (SELECT "
                f"w.who, minute, coalesce(m.n, 0) AS n, coalesce(m.v, {missing}) AS v FROM w "
                f"CROSS JOIN generate_series(0, {minutes} - 1) AS minute "
                "LEFT JOIN m USING (who, minute)) "
                f"SELECT who, sum(n), {of} FROM dense WHERE v IS NOT NULL GROUP BY who ORDER BY who"
            ),
            values,
        )
    ).all()
    found: list[Observation] = []
    for who, count, value in rows:
        enough = count >= condition.min_tx or (metric in _ZERO_WITHOUT and condition.min_tx <= 1)
        series = f"contract:{who}" if by else ""
        one = _observation(series, value if enough else None, condition, rule, ())
        if one.is_true and metric in _ON_FAILURES:
            own = " AND contract_id = :contract" if by else ""
            more = values | ({"contract": who} if by else {})
            one = replace(one, evidence=await _failed_hashes(session, where + own, more))
        found.append(one)
    return found or ([] if by else [Observation("", None, None)])


def _observation(
    series: str,
    value: Any,
    condition: Condition,
    rule: Mapping[str, Any],
    evidence: tuple[str, ...],
) -> Observation:
    if value is None:
        return Observation(series, None, None)
    exact = Decimal(value)
    return Observation(series, exact, holds(exact, condition.operator, rule["threshold"]), evidence)


async def _of_pipelines(
    session: AsyncSession, rule: Mapping[str, Any], condition: Condition, moment: Moment
) -> list[Observation]:
    """Return what is observed of providers, reorgs and the pipelines themselves."""
    since = moment.now - 60 * int(rule["window_minutes"])
    metric = condition.metric
    if metric == "indexer_lag":
        lag = None if moment.through is None else max(0, moment.now - moment.through)
        return [_observation("", lag, condition, rule, ())]
    if metric == "trace_queue_depth":
        value = await session.scalar(text("SELECT count(*) FROM mobs.trace_queue"))
        return [_observation("", value, condition, rule, ())]
    if metric in ("reorg_depth", "reorg_count"):
        of = "count(*)" if metric == "reorg_count" else "coalesce(max(depth), 0)"
        value = await session.scalar(
            text(
                f"SELECT {of} FROM mobs.reorgs WHERE detected_at > :since AND detected_at <= :now"
            ),
            {"since": since, "now": moment.now},
        )
        return [_observation("", value, condition, rule, ())]
    column = {
        "provider_latency": "latency_ms",
        "head_age": "head_age_s",
        # Behind what two of them have, as where probes are judged: a lone one makes nobody late.
        "provider_lag": "greatest(0, (SELECT h[CASE WHEN cardinality(h) > 2 THEN 2 ELSE 1 END] "
        "FROM (SELECT array_agg(o.block_number ORDER BY o.block_number DESC) AS h "
        "FROM mobs.rpc_health_samples AS o WHERE o.sampled_at = s.sampled_at "
        "AND o.block_number IS NOT NULL) AS heads) - block_number)",
    }[metric]
    of = _aggregate("v", condition.aggregation, int(rule["window_minutes"]), "sampled_at")
    by = condition.by == "provider"
    only = condition.filters.get("endpoint_id")
    rows = (
        await session.execute(
            text(
                f"SELECT {'endpoint_id' if by else 'NULL'}, {of} FROM "
                f"(SELECT endpoint_id, sampled_at, {column} AS v FROM mobs.rpc_health_samples AS s "
                "WHERE sampled_at > :since AND sampled_at <= :now "
                "AND (CAST(:only AS integer) IS NULL OR endpoint_id = :only)) AS p "
                f"WHERE v IS NOT NULL{' GROUP BY endpoint_id ORDER BY endpoint_id' if by else ''}"
            ),
            {"since": since, "now": moment.now, "only": only},
        )
    ).all()
    return [
        _observation(f"provider:{one}" if by else "", value, condition, rule, ())
        for one, value in rows
    ]
