"""Rows of one width for COPY, laid out by numpy: no Python for each row.

A field is an array of (rows, bytes), as PostgreSQL's binary COPY has it after the field's length.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.uint8]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
#: Two halves of a number below 10^16 * 2^63, in digits of base 10,000 as `numeric` has them.
_HALF = 10**16
_LIMIT = _HALF * 2**63
DIGITS = 9
#: The digits of the low half stand from here on.
_LOW = 5
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: The Python type of a column's values, by its kind; another type is left to the general encoder.
_TYPES: dict[str, type[Any]] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "numeric": int,
    "bytea": bytes,
    "boolean": bool,
    "double precision": float,
    "timestamptz": datetime,
    "uuid": UUID,
}
_SIZES = {"smallint": (">i2", 2), "integer": (">i4", 4), "bigint": (">i8", 8)}


def bytea(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of byte strings of one length."""
    return values


def hex_text(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of byte strings written as text: `0x` and lower-case hex."""
    rows, size = values.shape
    digits = np.frombuffer(values.tobytes().hex().encode(), np.uint8).reshape(rows, 2 * size)
    prefix = np.broadcast_to(np.frombuffer(b"0x", np.uint8), (rows, 2))
    return np.concatenate([prefix, digits], axis=1)


def boolean(values: npt.NDArray[np.uint8]) -> Field:
    """Return a field of truth values, 0 or 1 each."""
    return values.reshape(-1, 1)


def integers(values: npt.NDArray[np.int64], kind: str) -> Field | None:
    """Return a field of `smallint`, `integer` or `bigint`; None when a number is too large."""
    form, size = _SIZES[kind]
    limit = 1 << (8 * size - 1)
    if size < 8 and len(values) and not (-limit <= values.min() and values.max() < limit):
        return None
    return values.astype(form).view(np.uint8).reshape(len(values), size)


def numeric(values: Sequence[int]) -> Field | None:
    """Return a field of integers as `numeric`; None when one is negative or very large.

    All have as many digits: the server drops the zeros in front.
    """
    digits = digits_of(values)
    if digits is None:
        return None
    whole = np.empty((len(values), 4 + DIGITS), dtype=">u2")
    whole[:, :4] = (DIGITS, DIGITS - 1, 0, 0)  # count, weight, sign, scale
    whole[:, 4:] = digits
    return whole.view(np.uint8).reshape(len(values), -1)


def digits_of(values: Sequence[int]) -> npt.NDArray[np.uint16] | None:
    """Return integers in base 10,000, `DIGITS` each; None when one is negative or too large."""
    if min(values, default=0) < 0 or max(values, default=0) >= _LIMIT:
        return None
    digits = np.empty((len(values), DIGITS), dtype=">u2")
    high = np.array([value // _HALF for value in values], dtype=np.int64)
    low = np.array([value % _HALF for value in values], dtype=np.int64)
    for part, first, after in ((high, 0, _LOW), (low, _LOW, DIGITS)):
        for at in range(after - 1, first - 1, -1):
            rest = part // 10_000  # by a constant, which is done without dividing
            digits[:, at] = part - rest * 10_000
            part = rest
    return digits


def fields_of(kinds: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[Field] | None:
    """Return columns of Python values as fields; None where one has no width common to all rows.

    `kinds` are PostgreSQL's names of the columns' types. Nulls, too, have another width.
    """
    if any(kind not in _TYPES for kind in kinds):
        return None
    made: dict[int, Field] = {}
    # Byte strings first: they are what has several widths, and then the rest need not be done.
    for at in sorted(range(len(kinds)), key=lambda n: kinds[n] != "bytea"):
        found = _column(kinds[at], columns[at])
        if found is None:
            return None
        made[at] = found
    return [made[at] for at in range(len(kinds))]


def _column(kind: str, values: Sequence[Any]) -> Field | None:
    if set(map(type, values)) != {_TYPES[kind]}:
        return None
    rows = len(values)
    try:
        if kind in _SIZES:
            return integers(np.array(values, dtype=np.int64), kind)
        if kind == "numeric":
            return numeric(values)
        if kind == "bytea":
            size = len(values[0])
            if not size or set(map(len, values)) != {size}:
                return None
            return bytea(np.frombuffer(b"".join(values), np.uint8).reshape(rows, size))
        if kind == "boolean":
            return boolean(np.array(values, dtype=np.uint8))
        if kind == "double precision":
            return np.array(values, dtype=">f8").view(np.uint8).reshape(rows, 8)
        if kind == "uuid":
            plain = b"".join([value.bytes for value in values])
            return bytea(np.frombuffer(plain, np.uint8).reshape(rows, 16))
        return integers(np.array(_microseconds(values), dtype=np.int64), "bigint")
    except (OverflowError, TypeError):
        return None  # a number or a time that does not fit: the general encoder says which


def _microseconds(values: Sequence[datetime]) -> list[int]:
    """Return times since 2000; many follow one another unchanged."""
    made: list[int] = []
    last: datetime | None = None
    since = 0
    for value in values:
        if value is not last:
            last, since = value, (value - _EPOCH) // _MICROSECOND
        made.append(since)
    return made


def laid_out(fields: Sequence[Field]) -> bytes:
    """Return the rows of these fields, without what begins and ends a COPY stream."""
    row = bytearray(struct.pack("!h", len(fields)))
    places: list[int] = []
    for field in fields:
        size = field.shape[1]
        row += struct.pack("!i", size)
        places.append(len(row))
        row += bytes(size)
    rows = np.empty((len(fields[0]), len(row)), np.uint8)
    rows[:] = np.frombuffer(row, np.uint8)
    for place, field in zip(places, fields, strict=True):
        rows[:, place : place + field.shape[1]] = field
    return rows.tobytes()


def rows_of(fields: Sequence[Field]) -> bytes:
    """Return the rows of these fields as one whole COPY stream."""
    return _HEADER + laid_out(fields) + _TRAILER
