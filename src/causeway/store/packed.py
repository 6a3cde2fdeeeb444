"""Rows of one width for COPY, laid out by numpy: no Python for each row.

A field is an array of (rows, bytes), its length included, as PostgreSQL's binary COPY has it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.uint8]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
#: Two halves of a number below 10^16 * 2^63, in digits of base 10,000 as `numeric` has them.
_HALF = 10**16
_LIMIT = _HALF * 2**63
_DIGITS = 9
_POWERS = np.array([10_000**n for n in range(4, -1, -1)], dtype=np.int64)
_SIZES = {"smallint": (">i2", 2), "integer": (">i4", 4), "bigint": (">i8", 8)}


def bytea(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of byte strings of one length."""
    return _with_length(values)


def hex_text(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of byte strings written as text: `0x` and lower-case hex."""
    rows, size = values.shape
    digits = np.frombuffer(values.tobytes().hex().encode(), np.uint8).reshape(rows, 2 * size)
    prefix = np.broadcast_to(np.frombuffer(b"0x", np.uint8), (rows, 2))
    return _with_length(np.concatenate([prefix, digits], axis=1))


def boolean(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of truth values, 0 or 1 each."""
    return _with_length(values.reshape(-1, 1))


def integers(values: npt.NDArray[np.int64], kind: str) -> Field | None:
    """Return a field of `smallint`, `integer` or `bigint`; None when a number is too large."""
    form, size = _SIZES[kind]
    limit = 1 << (8 * size - 1)
    if size < 8 and len(values) and not (-limit <= values.min() and values.max() < limit):
        return None
    return _with_length(values.astype(form).view(np.uint8).reshape(len(values), size))


def numeric(values: Sequence[int]) -> Field | None:
    """Return a field of integers as `numeric`; None when one is negative or very large.

    All have as many digits: the server drops the zeros in front.
    """
    if min(values, default=0) < 0 or max(values, default=0) >= _LIMIT:
        return None
    high = np.array([value // _HALF for value in values], dtype=np.int64)
    low = np.array([value % _HALF for value in values], dtype=np.int64)
    digits = np.empty((len(values), 4 + _DIGITS), dtype=">u2")
    digits[:, :4] = (_DIGITS, _DIGITS - 1, 0, 0)  # count, weight, sign, scale
    digits[:, 4:9] = high[:, None] // _POWERS % 10_000
    digits[:, 9:] = low[:, None] // _POWERS[1:] % 10_000
    return _with_length(digits.view(np.uint8).reshape(len(values), -1))


def rows_of(fields: Sequence[Field]) -> bytes:
    """Return the rows of these fields as one whole COPY stream."""
    rows = len(fields[0])
    begin = np.frombuffer(struct.pack("!h", len(fields)), np.uint8)
    laid_out = np.concatenate([np.broadcast_to(begin, (rows, 2)), *fields], axis=1)
    return _HEADER + laid_out.tobytes() + _TRAILER


def _with_length(values: npt.NDArray[np.uint8]) -> Field:
    rows, size = values.shape
    length = np.frombuffer(struct.pack("!i", size), np.uint8)
    return np.concatenate([np.broadcast_to(length, (rows, 4)), values], axis=1)
