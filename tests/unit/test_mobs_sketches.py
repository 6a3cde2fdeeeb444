"""Sketches that are merged say nearly what the whole data say."""

from __future__ import annotations

import hashlib
import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.mobs.sketches import (
    EMPTY,
    HASH_BITS,
    LOG_GROWTH,
    REGISTER_BITS,
    REGISTERS,
    ZERO,
    distinct,
    merge_counts,
    merge_registers,
    quantile,
)


def prices_sketch(prices: list[int]) -> bytes:
    """As the database makes it."""
    counts: dict[int, int] = {}
    for price in prices:
        bucket = ZERO if price <= 0 else math.ceil(math.log(price) / LOG_GROWTH)
        counts[bucket] = counts.get(bucket, 0) + 1
    return b"".join(struct.pack("!hi", *pair) for pair in sorted(counts.items()))


def senders_sketch(senders: range) -> bytes:
    """As the database makes it, with another hash."""
    registers: dict[int, int] = {}
    for one in senders:
        digest = hashlib.blake2b(str(one).encode(), digest_size=8).digest()
        h = int.from_bytes(digest, "big") & (2**HASH_BITS - 1)
        rest = h >> REGISTER_BITS
        rank = HASH_BITS - REGISTER_BITS + 1 - rest.bit_length()
        register = h & (REGISTERS - 1)
        registers[register] = max(rank, registers.get(register, 0))
    return b"".join(struct.pack("!hB", *pair) for pair in sorted(registers.items()))


@given(
    st.lists(st.lists(st.integers(0, 10**24), max_size=50), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]),
)
def test_merged_percentiles_are_within_one_per_cent(parts: list[list[int]], q: float) -> None:
    found = quantile(merge_counts(map(prices_sketch, parts)), q)
    everything = sorted(price for part in parts for price in part)
    if not everything:
        assert found is None
        return
    true = everything[math.floor(q * (len(everything) - 1))]
    assert found is not None
    assert abs(found - true) <= 0.0101 * true + 0.5


@pytest.mark.parametrize("many", [0, 1, 2, 100, 5_000, 9_000, 20_000, 40_000, 300_000])
def test_senders_are_counted_within_two_per_cent(many: int) -> None:
    # Three overlapping parts.
    parts = [range(many * i // 4, many * (i + 2) // 4) for i in range(3)]
    found = distinct(merge_registers(map(senders_sketch, parts)))
    assert abs(found - many) <= 0.02 * many


def test_merging_does_not_depend_on_order() -> None:
    rng = random.Random(7)
    parts = [prices_sketch([rng.randrange(10**9) for _ in range(30)]) for _ in range(6)]
    shuffled = rng.sample(parts, len(parts))
    assert merge_counts(parts) == merge_counts([merge_counts(shuffled[:3]), *shuffled[3:]])
    people = [senders_sketch(range(i * 50, i * 50 + 90)) for i in range(5)]
    assert merge_registers(people) == merge_registers([people[4], *people[:4], people[1]])
    assert merge_registers([]) == merge_counts([]) == EMPTY
    assert distinct(EMPTY) == 0
    assert quantile(EMPTY, 0.5) is None
