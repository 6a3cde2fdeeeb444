"""The `logsBloom` of a block: which logs it can have.

Implements the 2048-bit filter M3:2048 of Ethereum's yellow paper (4.3.1): three bits for the
address of each log and for each of its topics, taken from the item's keccak-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from causeway.chains.evm.hashing import keccak

_SIZE = 2048  # bits


def places_in(item: bytes) -> bytes:
    """Return the places of an address (20 bytes) or a topic (32 bytes), for `denied`."""
    return keccak(item)[:6]


def denied(blooms: Sequence[int], items: Sequence[Sequence[bytes]]) -> int | None:
    """Return the first bloom that lacks an item listed for it; None when there is none.

    `items` has for each bloom what `places_in` returns. All are looked up at once.
    """
    counts = [3 * len(some) for some in items]
    if not any(counts):
        return None
    whole = b"".join([bloom.to_bytes(_SIZE // 8, "big") for bloom in blooms])
    bits = np.unpackbits(np.frombuffer(whole, np.uint8)).reshape(-1, _SIZE)
    listed = np.frombuffer(b"".join(chain.from_iterable(items)), ">u2")
    rows = np.repeat(np.arange(len(blooms)), counts)
    there = bits[rows, _SIZE - 1 - (listed & (_SIZE - 1))]
    return None if there.all() else int(rows[there.argmin()])


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
