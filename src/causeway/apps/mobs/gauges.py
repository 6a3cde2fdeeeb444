"""What Prometheus is shown of chain and pipelines: the last whole minute, queues, alerts.

Set by the process that holds the heartbeat; rates and percentiles over longer times are in the
database, at `/metrics/overview`.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_AGE = Gauge("causeway_mobs_index_age_seconds", "Age of the newest block that is stored")
_TRANSACTIONS = Gauge(
    "causeway_mobs_minute_transactions", "Transactions of the last whole minute", ["status"]
)
_PRICE = Gauge(
    "causeway_mobs_minute_gas_price_wei", "Gas price of the last whole minute", ["quantile"]
)
_SENDERS = Gauge("causeway_mobs_minute_senders", "Senders of the last whole minute")
_GAS = Gauge("causeway_mobs_minute_gas_used", "Gas used in the last whole minute")
_BLOCKS = Gauge("causeway_mobs_minute_blocks", "Blocks of the last whole minute")
_QUEUES = Gauge("causeway_mobs_waiting", "What waits: traces, minutes, notifications", ["what"])
_MISSING = Gauge("causeway_mobs_missing_blocks", "Blocks in holes of the index")
_FIRING = Gauge("causeway_mobs_alerts_firing", "Series of rules that fire", ["severity"])

_STATE = """
SELECT (SELECT (value->>'timestamp')::bigint FROM mobs.worker_state
        WHERE key = 'last_scanned_block') AS through,
    (SELECT count(*) FROM mobs.trace_queue) AS traces,
    (SELECT count(*) FROM mobs.dirty_minutes) AS minutes,
    (SELECT count(*) FROM mobs.notifications WHERE state = 'waiting') AS notifications,
    (SELECT coalesce(sum(last_block - first_block + 1), 0) FROM mobs.block_holes) AS missing,
    (SELECT jsonb_object_agg(severity, n) FROM (SELECT severity, count(*) AS n
        FROM mobs.alert_states JOIN mobs.alerts ON id = alert_id
        WHERE state = 'firing' GROUP BY severity) AS f) AS firing
"""
_MINUTE = """
SELECT tx_count, tx_failed_count, gas_used_total, block_count, unique_senders,
    gas_price_p50, gas_price_p95, gas_price_p99
FROM mobs.metrics_minute ORDER BY bucket_ts DESC LIMIT 1
"""


async def show(session: AsyncSession, now: int) -> None:
    """Set the gauges to what is stored now (Unix seconds)."""
    state = (await session.execute(text(_STATE))).one()
    if state.through is not None:
        _AGE.set(max(0, now - int(state.through)))
    for what in ("traces", "minutes", "notifications"):
        _QUEUES.labels(what).set(getattr(state, what))
    _MISSING.set(int(state.missing))
    firing: dict[str, Any] = state.firing or {}
    for severity in ("info", "warning", "critical"):
        _FIRING.labels(severity).set(firing.get(severity, 0))
    minute = (await session.execute(text(_MINUTE))).first()
    if minute is None:
        return
    _TRANSACTIONS.labels("failed").set(minute.tx_failed_count)
    _TRANSACTIONS.labels("success").set(minute.tx_count - minute.tx_failed_count)
    _SENDERS.set(minute.unique_senders)
    _GAS.set(float(minute.gas_used_total))
    _BLOCKS.set(minute.block_count)
    for quantile, price in (
        ("0.5", minute.gas_price_p50),
        ("0.95", minute.gas_price_p95),
        ("0.99", minute.gas_price_p99),
    ):
        _PRICE.labels(quantile).set(float(price or 0))
