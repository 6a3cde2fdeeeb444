"""The `logsBloom` of a block: which logs it can have.

Implements the 2048-bit filter M3:2048 of Ethereum's yellow paper (4.3.1): three bits for the
address of each log and for each of its topics, taken from the item's keccak-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from causeway.chains.evm.hashing import keccak


def bloom_bits(item: bytes) -> int:
    """Return the bits of an address (20 bytes) or a topic (32 bytes), as a 2048-bit integer."""
    digest = keccak(item)
    return (
        1 << (int.from_bytes(digest[0:2], "big") & 2047)
        | 1 << (int.from_bytes(digest[2:4], "big") & 2047)
        | 1 << (int.from_bytes(digest[4:6], "big") & 2047)
    )


def bloom_of(logs: Iterable[tuple[bytes, Sequence[bytes]]]) -> int:
    """Return the bloom of logs, each given as address and topics."""
    items: set[bytes] = set()
    for address, topics in logs:
        items.add(address)
        items.update(topics)
    bloom = 0
    for item in items:
        bloom |= bloom_bits(item)
    return bloom
