"""What a pool knows of its endpoints, for people: scores with their reasons, times, failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from causeway.chains.breaker import State
from causeway.chains.endpoint import UNLIMITED_RANGE, Endpoint
from causeway.chains.pool import ProviderPool
from causeway.chains.score import Score


@dataclass(frozen=True, slots=True)
class MethodReport:
    """One method at one endpoint. Times in seconds; None where nothing was measured lately."""

    method: str
    calls: int
    failures: dict[str, int]
    p50_s: float | None
    p95_s: float | None
    breaker: State
    score: Score


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One endpoint: who it is, where it stands, what it can do, how it does."""

    name: str
    #: Scheme and host only: the rest may be a key.
    url: str
    #: None while it has not been asked.
    right_chain: bool | None
    served_chain_id: int | None
    head: int | None
    lag_blocks: int
    forked: bool
    #: Most blocks of logs at once that it has not refused; None where it never refused.
    max_log_range: int | None
    max_batch: int
    lacks: tuple[str, ...]
    #: It has no state of earlier blocks.
    state_from: int
    #: Units a second it may be asked now; None without a known limit.
    budget_rate: float | None
    resting_s: float
    methods: tuple[MethodReport, ...]


def report(pool: ProviderPool) -> list[EndpointReport]:
    """Return what a pool knows of its endpoints, in their order."""
    now = pool.clock.monotonic()
    return [_endpoint(pool, one, now) for one in pool.endpoints]


def _endpoint(pool: ProviderPool, one: Endpoint, now: float) -> EndpointReport:
    return EndpointReport(
        one.name,
        str(one.url),
        one.right_chain,
        one.served_chain_id,
        one.head.number if one.head else None,
        one.lag,
        one.forked,
        None if one.max_log_range == UNLIMITED_RANGE else one.max_log_range,
        one.max_batch,
        tuple(sorted(method for method, until in one.lacks.items() if until > now)),
        one.state_from,
        one.budget.rate(now),
        max(0.0, one.cooling_until - now, one.budget.blocked_s(now)),
        tuple(
            MethodReport(
                method,
                record.calls,
                dict(record.failures),
                record.latency_s(0.5, now),
                record.latency_s(0.95, now),
                record.breaker.state(now),
                pool.router.score(one, pool.endpoints, method, now),
            )
            for method, record in sorted(one.methods.items())
            if record.calls
        ),
    )


class _Pools(Collector):
    """Shows the pools of this process to Prometheus when it asks."""

    def __init__(self) -> None:
        self.pools: WeakSet[ProviderPool] = WeakSet()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what is known now."""
        by_method = ["endpoint", "method"]
        score = GaugeMetricFamily(
            "causeway_chains_endpoint_score", "0 to 100; what routing goes by", labels=by_method
        )
        breaker = GaugeMetricFamily(
            "causeway_chains_breaker_open", "1 while an endpoint is not asked", labels=by_method
        )
        latency = GaugeMetricFamily(
            "causeway_chains_endpoint_p95_seconds", "Of the last minutes", labels=by_method
        )
        lag = GaugeMetricFamily(
            "causeway_chains_endpoint_lag_blocks", "Below the agreed head", labels=["endpoint"]
        )
        forked = GaugeMetricFamily(
            "causeway_chains_endpoint_forked", "1 on another fork", labels=["endpoint"]
        )
        shown = set[str]()
        for pool in list(self.pools):
            for one in report(pool):
                if one.name in shown:
                    continue  # another app of this process reads the same chain
                shown.add(one.name)
                lag.add_metric([one.name], one.lag_blocks)
                forked.add_metric([one.name], one.forked)
                for each in one.methods:
                    labels = [one.name, each.method]
                    score.add_metric(labels, each.score.points)
                    breaker.add_metric(labels, each.breaker != "closed")
                    if each.p95_s is not None:
                        latency.add_metric(labels, each.p95_s)
        yield from (score, breaker, latency, lag, forked)


_pools = _Pools()
REGISTRY.register(_pools)


def show(pool: ProviderPool) -> None:
    """Have the pool's endpoints among this process's metrics as long as the pool lives."""
    _pools.pools.add(pool)
