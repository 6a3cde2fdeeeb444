"""What a rule may say: its conditions checked, so that none is stored that cannot be evaluated.

Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from causeway.base.errors import Field, InvalidInput

METRICS = (
    "tx_count",
    "tx_failed_count",
    "failure_rate",
    "gas_price",
    "gas_used",
    "fee",
    "block_time",
    "block_gas_ratio",
    "unique_senders",
    "error_count",
    "method_count",
    "native_transfer_value",
    "provider_latency",
    "provider_lag",
    "head_age",
    "reorg_depth",
    "reorg_count",
    "indexer_lag",
    "trace_queue_depth",
)
AGGREGATIONS = ("sum", "avg", "min", "max", "last", "p50", "p95", "p99", "rate_per_min")
OPERATORS = (">", ">=", "<", "<=", "==", "!=")
FILTERS = ("contract_ids", "from", "to", "signature", "method_id", "endpoint_id")
KEYS = (
    *("metric", "aggregation", "operator", "filters", "by", "min_tx"),
    *("keep_firing_minutes", "signature", "method_id"),
)
#: Changing any of these makes it another rule: what runs is resolved.
ANOTHER_RULE = frozenset(
    {"conditions", "threshold", "window_minutes", "for_minutes", "contract_ids", "no_data"}
)
#: Metrics that need no transactions.
OF_PROVIDERS = ("provider_latency", "provider_lag", "head_age")

_COUNTS = ("tx_count", "tx_failed_count", "error_count", "method_count")
#: Aggregations of counted metrics that are about the window as a whole; the first is the default.
#: Others are about the figures of its minutes.
WHOLE_WINDOW: Mapping[str, tuple[str, ...]] = {
    **{name: ("sum",) for name in _COUNTS},
    "failure_rate": ("avg",),
    "unique_senders": ("sum",),
}
_OF_TRANSACTIONS = ("gas_price", "gas_used", "fee", "native_transfer_value")
#: Metrics that are one figure already.
_PLAIN = ("indexer_lag", "trace_queue_depth", "reorg_depth", "reorg_count")

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SELECTOR = re.compile(r"0x[0-9a-fA-F]{8}")


@dataclass(frozen=True)
class Condition:
    """A custom rule's condition."""

    metric: str
    aggregation: str
    operator: str
    filters: Mapping[str, Any]
    #: None, `contract` or `provider`: one series for each.
    by: str | None
    min_tx: int


def wrong(field: str, value: Any, allowed: str) -> InvalidInput:
    """Return the error for one field of a rule."""
    shown = str(value)[:100]
    return InvalidInput(
        f"{field} is {shown}; allowed is {allowed}.", fields=[Field(field, shown, allowed)]
    )


def check(alert_type: str, conditions: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` unless a rule of this type with these conditions can be evaluated."""
    unknown = [key for key in conditions if key not in KEYS]
    if unknown:
        raise wrong(f"conditions.{unknown[0]}", conditions[unknown[0]], f"one of {', '.join(KEYS)}")
    for key in ("min_tx", "keep_firing_minutes"):
        value = conditions.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9:
            raise wrong(f"conditions.{key}", value, "0..1000000000")
    if alert_type == "custom":
        parse(conditions)


def parse(conditions: Mapping[str, Any]) -> Condition:
    """Return a custom rule's condition; `InvalidInput` names the field that is wrong."""
    metric = _one_of(conditions, "metric", METRICS)
    default = "max" if metric in OF_PROVIDERS else "avg"
    if metric in WHOLE_WINDOW:
        default = WHOLE_WINDOW[metric][0]
    elif metric in _PLAIN:
        default = {"reorg_depth": "max", "reorg_count": "sum"}.get(metric, "last")
    aggregation = _one_of({"aggregation": default} | dict(conditions), "aggregation", AGGREGATIONS)
    if metric in _PLAIN and aggregation != default:
        raise wrong("conditions.aggregation", aggregation, f"{default}, for {metric}")
    if metric == "failure_rate" and aggregation in ("sum", "rate_per_min"):
        raise wrong("conditions.aggregation", aggregation, "avg, min, max, last or a percentile")
    operator = _one_of(conditions, "operator", OPERATORS)
    filters: Any = conditions.get("filters", {})
    if not isinstance(filters, dict):
        raise wrong("conditions.filters", filters, "an object")
    checked = cast("dict[str, Any]", filters)
    for name, value in checked.items():
        _filter(name, value)
    for name in ("signature", "method_id"):
        if name in conditions:
            _filter(name, conditions[name])
            checked = checked | {name: conditions[name]}
    if metric == "error_count" and "signature" not in checked:
        raise wrong("conditions.filters.signature", None, "0x and 8 hex digits")
    if metric == "method_count" and "method_id" not in checked:
        raise wrong("conditions.filters.method_id", None, "0x and 8 hex digits")
    by = conditions.get("by")
    if by not in (None, "contract", "provider"):
        raise wrong("conditions.by", by, "contract or provider")
    if by == "contract" and metric not in (*WHOLE_WINDOW, *_OF_TRANSACTIONS):
        raise wrong("conditions.by", by, f"none, for {metric}")
    if by == "provider" and metric not in OF_PROVIDERS:
        raise wrong(
            "conditions.by", by, f"contract, for a metric other than {', '.join(OF_PROVIDERS)}"
        )
    return Condition(metric, aggregation, operator, checked, by, int(conditions.get("min_tx", 1)))


def _one_of(conditions: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = conditions.get(name)
    if value not in allowed:
        raise wrong(f"conditions.{name}", value, f"one of {', '.join(allowed)}")
    return str(value)


def _filter(name: str, value: Any) -> None:
    where = f"conditions.filters.{name}"
    match name:
        case "contract_ids":
            ids = cast("list[Any]", value) if isinstance(value, list) else None
            if not ids or not all(type(one) is int and 0 < one < 2**31 for one in ids):
                raise wrong(where, value, "a list of contract ids")
        case "from" | "to":
            if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
                raise wrong(where, value, "0x and 40 hex digits")
        case "signature" | "method_id":
            if not isinstance(value, str) or not _SELECTOR.fullmatch(value):
                raise wrong(where, value, "0x and 8 hex digits")
        case "endpoint_id":
            if type(value) is not int or not 0 < value < 2**31:
                raise wrong(where, value, "a provider's id")
        case _:
            raise wrong(where, value, f"one of {', '.join(FILTERS)}")


def holds(value: Any, operator: str, threshold: Any) -> bool:
    """Say whether `value operator threshold` is true; both are exact numbers."""
    match operator:
        case ">":
            return bool(value > threshold)
        case ">=":
            return bool(value >= threshold)
        case "<":
            return bool(value < threshold)
        case "<=":
            return bool(value <= threshold)
        case "==":
            return bool(value == threshold)
        case _:
            return bool(value != threshold)
