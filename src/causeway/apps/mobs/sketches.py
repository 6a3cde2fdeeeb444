"""Sketches of prices and of senders that can be merged: minutes into hours, hours into days.

Prices: the logarithmic buckets of DDSketch (Masson, Rim and Lee, 2019) with 1 % relative error;
bucket `i` holds the prices in (g^(i-1), g^i], g = 1.01 / 0.99. Senders: HyperLogLog (Flajolet and
others, 2007) with 8,192 registers, a standard error of 1.15 %, read with Ertl's estimator (2017),
which needs no correction tables and is as good for a few senders as for many.

Both are bytes that the database makes from grouped rows (see rollup.py), so that no transaction has
to leave it; that is why no sketch library is used, which would want to see each value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import NDArray

#: Ratio of neighbouring buckets' bounds.
GROWTH = 1.01 / 0.99
LOG_GROWTH = math.log(GROWTH)
#: The bucket of a price of zero.
ZERO = -32768

REGISTER_BITS = 13
REGISTERS = 1 << REGISTER_BITS
#: Bits of a sender's hash, register and rank together.
HASH_BITS = 51
#: The highest rank: no bit of the rest of the hash is set.
_TOP = HASH_BITS - REGISTER_BITS + 1

#: A price sketch is a sequence of bucket and count; a senders sketch one of register and rank.
_BUCKET = np.dtype([("bucket", ">i2"), ("count", ">i4")])
_REGISTER = np.dtype([("register", ">i2"), ("rank", "u1")])

EMPTY = b""


def merge_counts(sketches: Iterable[bytes | None]) -> bytes:
    """Return one price sketch for several."""
    entries = np.frombuffer(b"".join(one for one in sketches if one), _BUCKET)
    buckets, place = np.unique(entries["bucket"], return_inverse=True)
    counts = np.zeros(len(buckets), np.int64)
    np.add.at(counts, place, entries["count"])
    merged = np.empty(len(buckets), _BUCKET)
    merged["bucket"] = buckets
    # Two thousand million transactions at one price are a year of a busy chain.
    merged["count"] = np.minimum(counts, 2**31 - 1)
    return merged.tobytes()


def quantile(sketch: bytes, q: float) -> int | None:
    """Return the price in wei below which a share `q` of the prices lies; None without any."""
    entries = np.sort(np.frombuffer(sketch, _BUCKET), order="bucket")
    if not len(entries):
        return None
    seen = np.cumsum(entries["count"].astype(np.int64))
    rank = q * float(seen[-1] - 1)
    bucket = int(entries["bucket"][int(np.searchsorted(seen, rank, side="right"))])
    return 0 if bucket == ZERO else round(2 * GROWTH**bucket / (GROWTH + 1))


def _registers(sketches: Iterable[bytes | None]) -> NDArray[np.uint8]:
    entries = np.frombuffer(b"".join(one for one in sketches if one), _REGISTER)
    registers = np.zeros(REGISTERS, np.uint8)
    np.maximum.at(registers, entries["register"].astype(np.int64), entries["rank"])
    return registers


def merge_registers(sketches: Iterable[bytes | None]) -> bytes:
    """Return one sketch of senders for several."""
    registers = _registers(sketches)
    used = np.flatnonzero(registers)
    merged = np.empty(len(used), _REGISTER)
    merged["register"] = used
    merged["rank"] = registers[used]
    return merged.tobytes()


def distinct(sketch: bytes) -> int:
    """Return about how many different senders a sketch has seen."""
    if not sketch:
        return 0
    counts = cast("list[int]", np.bincount(_registers([sketch]), minlength=_TOP + 1).tolist())
    z = REGISTERS * _tau(1 - counts[_TOP] / REGISTERS)
    for rank in range(_TOP - 1, 0, -1):
        z = (z + counts[rank]) / 2
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return round(REGISTERS * REGISTERS / (2 * math.log(2) * z))


def _sigma(x: float) -> float:
    """Return the part of registers never set (Ertl, algorithm 6)."""
    if x == 1:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if z == before:
            return z


def _tau(x: float) -> float:
    """Return the part of registers that are full (Ertl, algorithm 6)."""
    if x in (0, 1):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before = z
        y /= 2
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3
