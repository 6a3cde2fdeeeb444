"""Scores of providers, their reasons, who leads, and what an address shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.mobs.scoring import leader, score
from causeway.apps.mobs.urls import digest, keyless, masked
from causeway.base.errors import InvalidInput


@given(
    st.none() | st.integers(0, 60_000),
    st.integers(0, 50),
    st.none() | st.integers(0, 10**9),
    st.sampled_from([0.25, 1.0, 2.0, 12.0]),
    st.sampled_from([None, "timeout", "http_502", "wrong_chain", "wrong_fork", "stale"]),
)
def test_the_reasons_add_up(
    latency_ms: int | None, failures: int, lag: int | None, block_time_s: float, error: str | None
) -> None:
    found = score(
        latency_ms=latency_ms,
        failures=failures,
        lag_blocks=lag,
        block_time_s=block_time_s,
        error=error,
    )
    assert 0 <= found.points <= 100
    assert sum(one.points for one in found.deductions) == 100 - found.points
    assert all(one.points > 0 and one.reason for one in found.deductions)


@pytest.mark.parametrize(
    ("latency_ms", "failures", "lag", "points", "status"),
    [
        (85, 0, 0, 100, "healthy"),
        (200, 0, 0, 100, "healthy"),
        (201, 0, 0, 99, "healthy"),  # 99.98, floored
        (1150, 0, 0, 81, "healthy"),
        (1200, 0, 0, 80, "degraded"),
        (1700, 0, 0, 70, "degraded"),
        (9000, 0, 0, 70, "degraded"),
        (85, 0, 2, 100, "healthy"),  # 4 seconds are free
        (85, 0, 3, 90, "healthy"),
        (85, 0, 7, 50, "unhealthy"),
        (85, 0, 500, 0, "unhealthy"),
    ],
)
def test_points(latency_ms: int, failures: int, lag: int, points: int, status: str) -> None:
    found = score(latency_ms=latency_ms, failures=failures, lag_blocks=lag, block_time_s=2.0)
    assert (found.points, found.status) == (points, status)


@pytest.mark.parametrize(("failures", "points"), [(1, 75), (2, 50), (3, 25), (4, 25), (9, 25)])
def test_a_failed_probe_costs_its_errors_only(failures: int, points: int) -> None:
    found = score(
        latency_ms=4000, failures=failures, lag_blocks=100, block_time_s=2.0, error="timeout"
    )
    assert found.points == points


def test_another_chain_leaves_nothing() -> None:
    found = score(latency_ms=1, failures=0, lag_blocks=0, block_time_s=2.0, error="wrong_chain")
    assert (found.points, found.status) == (0, "unhealthy")


def test_asking_to_slow_down_is_no_failure() -> None:
    found = score(
        latency_ms=None, failures=0, lag_blocks=None, block_time_s=2.0, error="rate_limited"
    )
    assert (found.points, found.status) == (90, "healthy")


def test_a_lone_liar_makes_nobody_late() -> None:
    assert leader([100, 100, 10**9]) == 100
    assert leader([99, 100, 101]) == 100
    assert leader([5]) == 5
    assert leader([5, 9]) == 9
    assert leader([]) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://rpc.example/", "https://rpc.example/"),
        ("https://rpc.example:8443/v1/mainnet", "https://rpc.example:8443/v1/mainnet"),
        ("https://rpc.example/v3/0123456789abcdef0123456789abcdef", "https://rpc.example/v3/…"),
        ("https://me:word@rpc.example/x", "https://…@rpc.example/x"),
        ("https://rpc.example/?apikey=12", "https://rpc.example/?…"),
        ("https://rpc.example/?#k", "https://rpc.example/"),
        ("http://[::1]:8545", "http://[::1]:8545"),
        ("https://rpc.example/a-_0123456789abcdefghij", "https://rpc.example/…"),
    ],
)
def test_an_address_shows_no_key(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_an_address_with_a_key_is_not_for_the_database() -> None:
    assert keyless("https://rpc.example/mantle") == "https://rpc.example/mantle"
    for url in (
        "https://rpc.example/0123456789abcdef0123",
        "ftp://x",
        "x",
        "https://a:b@x",
        "http://a:b/",
    ):
        with pytest.raises(InvalidInput):
            keyless(url)
    assert digest("https://a") != digest("https://b")
