"""COPY into PostgreSQL in its binary form, encoded column by column.

The encoder makes one list of fields for each column and then weaves them into rows, which costs a
fraction of what a driver's row-by-row adaptation does. The table's declared types decide how a
column is written. Integers of any size go into `Numeric` columns exactly.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import psycopg
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Table,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from causeway.base.errors import Bug, InvalidInput
from causeway.store import packed

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_LENGTH = struct.Struct("!i")
#: Rows handed to the server at once: a megabyte or so.
_ROWS_AT_ONCE = 8192
#: Fewer rows than these are woven one by one: setting up arrays costs more.
_FEW = 16

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: The two bytes of every digit of base 10,000.
_DIGITS = [struct.pack("!h", digit) for digit in range(10_000)]

Encode = Callable[[Any], bytes]


def _fixed(form: str, size: int) -> Encode:
    pack = struct.Struct(f"!i{form}").pack
    return lambda value: pack(size, value)


def _bytea(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("PostgreSQL text cannot hold the character NUL")
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


#: Length, count of digits, weight, sign and scale, by sign and count.
_HEADS = {
    sign: [struct.pack("!ihHHH", 8 + 2 * n, n, max(n - 1, 0), sign, 0) for n in range(41)]
    for sign in (0, 0x4000)
}


def _whole(value: Any) -> int:
    """Return a number that is whole as an integer: reading such a column gives `Decimal`."""
    if type(value) is int:
        return value
    if isinstance(value, Decimal):
        if value != value.to_integral_value():
            raise ValueError("it is not whole")
        return int(value)
    return operator.index(value)


def _numeric(value: int) -> bytes:
    """Return an integer as `numeric`: digits of base 10,000, the first with the highest weight."""
    value = _whole(value)
    sign = 0
    if value < 0:
        sign, value = 0x4000, -value
    digits: list[bytes] = []
    while value:
        value, digit = divmod(value, 10_000)
        digits.append(_DIGITS[digit])
    digits.reverse()
    return _HEADS[sign][len(digits)] + b"".join(digits)


def _numerics(values: Sequence[Any]) -> list[bytes]:
    """Return many integers as `numeric`, as `_numeric` does."""
    whole = [_whole(value) for value in values]
    digits = packed.digits_of(whole)
    if digits is None:
        return [_numeric(value) for value in whole]
    nonzero = digits != 0
    most = packed.DIGITS
    first = np.where(nonzero.any(axis=1), nonzero.argmax(axis=1), most).tolist()
    plain = digits.tobytes()
    heads = [_HEADS[0][most - at] for at in range(most + 1)]
    return [
        heads[at] + plain[2 * (row * most + at) : 2 * (row + 1) * most]
        for row, at in enumerate(first)
    ]


def _instant(value: datetime) -> bytes:
    return struct.pack("!iq", 8, (value - _EPOCH) // _MICROSECOND)


def _uuid(value: UUID) -> bytes:
    return b"\0\0\0\x10" + value.bytes


#: A NUL that is escaped, and no escaped backslash before the same letters.
_NUL_IN_JSON = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def _jsonb(value: object) -> bytes:
    encoded = orjson.dumps(value)
    if _NUL_IN_JSON.search(encoded):
        raise ValueError("PostgreSQL jsonb cannot hold the character NUL")
    return _LENGTH.pack(len(encoded) + 1) + b"\x01" + encoded


#: Object ids of element types, which a binary array names.
_OIDS = {"integer": 23, "bigint": 20, "text": 25, "bytea": 17, "smallint": 21}


def _array(kind: str, element: Encode) -> Encode:
    head = struct.Struct("!iiiii")

    def encode(values: Sequence[Any]) -> bytes:
        fields = [element(value) for value in values]
        if not fields:
            return struct.pack("!iiii", 12, 0, 0, _OIDS[kind])
        body = b"".join(fields)
        return (
            _LENGTH.pack(head.size + len(body))
            + head.pack(1, 0, _OIDS[kind], len(fields), 1)
            + body
        )

    return encode


def _encoder(kind: TypeEngine[Any]) -> tuple[str, Encode]:
    """Return the name and the encoder of a column's type."""
    if isinstance(kind, SmallInteger):
        return "smallint", _fixed("h", 2)
    if isinstance(kind, BigInteger):
        return "bigint", _fixed("q", 8)
    if isinstance(kind, Integer):
        return "integer", _fixed("i", 4)
    if isinstance(kind, LargeBinary):
        return "bytea", _bytea
    if isinstance(kind, Boolean):
        return "boolean", _fixed("?", 1)
    if isinstance(kind, String):
        return "text", _text
    if isinstance(kind, Float):
        return "double precision", _fixed("d", 8)
    if isinstance(kind, Numeric):
        return "numeric", _numeric
    if isinstance(kind, DateTime):
        return "timestamptz", _instant
    if isinstance(kind, Uuid):
        return "uuid", _uuid
    if isinstance(kind, JSONB):
        return "jsonb", _jsonb
    if isinstance(kind, ARRAY):
        inner, element = _encoder(kind.item_type)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if inner in _OIDS:
            return f"{inner}[]", _array(inner, element)
    raise Bug(f"no binary form is known for a column of type {kind!r}")


#: What encoding a value that does not fit raises.
_REFUSED = (struct.error, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)

#: Kinds of one fixed size, packed in place.
_PACKED = {"smallint": ("h", 2), "integer": ("i", 4), "bigint": ("q", 8)}


def _fields(
    name: str, kind: TypeEngine[Any], values: Sequence[Any], *, nullable: bool
) -> list[bytes]:
    """Return a column's fields, each with its length."""
    what, encode = _encoder(kind)
    try:
        if nullable and None in values:
            return [_NULL if value is None else encode(value) for value in values]
        if what == "bytea" and values:
            size = len(values[0])
            length = _LENGTH.pack(size)
            if set(map(len, values)) == {size}:
                return [length + value for value in values]
        if what in _PACKED:
            form, size = _PACKED[what]
            pack = struct.Struct(f"!i{form}").pack
            return [pack(size, value) for value in values]
        if what == "numeric" and values:
            return _numerics(values)
        if what in ("timestamptz", "text") and len(values) > 1:
            return _repeated(encode, values)
        return [encode(value) for value in values]
    except (
        struct.error,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
    ) as error:
        wrong = _first_wrong(encode, values)
        raise InvalidInput(
            f"column {name} ({what}) cannot hold {wrong}: {error}", column=name
        ) from error


def _repeated(encode: Encode, values: Sequence[Any]) -> list[bytes]:
    """Encode values of which many follow one another unchanged."""
    fields: list[bytes] = []
    last: Any = object()
    field = b""
    for value in values:
        if value is not last:
            last, field = value, encode(value)
        fields.append(field)
    return fields


def _first_wrong(encode: Encode, values: Sequence[Any]) -> str:
    for at, value in enumerate(values):
        try:
            if value is not None:
                encode(value)
        except Exception:  # noqa: BLE001 - it is only looked for
            return f"a {type(value).__name__} in row {at}"
    return "one of its values"


def encode_rows(
    table: Table, names: Sequence[str], columns: Sequence[Sequence[Any]]
) -> Iterator[bytes]:
    """Yield rows in PostgreSQL's binary COPY form, in pieces of bounded size.

    Raises `InvalidInput` naming the column whose type cannot hold a value.
    """
    count = len(columns[0]) if columns else 0
    if any(len(column) != count for column in columns):
        raise Bug(f"columns of different lengths for {table}")
    kinds = [_encoder(table.c[name].type)[0] for name in names]
    piece = _HEADER
    for at in range(0, count, _ROWS_AT_ONCE):
        part = [column[at : at + _ROWS_AT_ONCE] for column in columns]
        arrays = packed.fields_of(kinds, part) if count >= _FEW else None
        yield piece + (_woven(table, names, part) if arrays is None else packed.laid_out(arrays))
        piece = b""
    yield piece + _TRAILER


def _woven(table: Table, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> bytes:
    """Return rows of any width: a list of fields for each column, woven into rows."""
    begin = struct.pack("!h", len(names))
    fields = [
        _fields(name, table.c[name].type, column, nullable=bool(table.c[name].nullable))
        for name, column in zip(names, columns, strict=True)
    ]
    return b"".join(chain.from_iterable(zip(repeat(begin), *fields, strict=False)))


async def copy_rows(
    session: AsyncSession,
    table: Table,
    names: Sequence[str],
    columns: Sequence[Sequence[Any]],
    *,
    into: str | None = None,
) -> int:
    """Write rows, given as columns, into a table by COPY, in the session's transaction.

    `into` names another table with these columns, such as a temporary one. Returns the number of
    rows. Raises `InvalidInput` for a value its column cannot hold, and what the driver raises.
    """
    if not columns or not columns[0]:
        return 0
    await copy_encoded(session, table, names, encode_rows(table, names, columns), into=into)
    return len(columns[0])


async def copy_encoded(
    session: AsyncSession,
    table: Table,
    names: Sequence[str],
    pieces: Iterable[bytes],
    *,
    into: str | None = None,
) -> None:
    """Write rows that `encode_rows` has encoded; otherwise as `copy_rows`."""
    connection = await session.connection()
    raw: Any = (await connection.get_raw_connection()).driver_connection
    driver: psycopg.AsyncConnection[Any] = raw
    target = into or f'"{table.schema}"."{table.name}"'
    listed = ", ".join(f'"{name}"' for name in names)
    statement = f"COPY {target} ({listed}) FROM STDIN (FORMAT binary)".encode()
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in pieces:
            await copy.write(piece)
