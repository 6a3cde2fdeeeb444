"""Columns of a declared table as fields of fixed width, by the argument's and the column's type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Numeric, SmallInteger, String
from sqlalchemy.types import TypeEngine

from causeway.chains.evm.words import signed_64
from causeway.chains.logs import Argument, Words
from causeway.store import packed


def argument_field(one: Argument, words: Words, kind: TypeEngine[Any]) -> packed.Field | None:
    """Return an event's argument as a field; None where the pair of types has no fixed width."""
    number = one.type.startswith(("uint", "int")) and not (one.indexed and one.hashed)
    if number:
        return _number(one, words, kind)
    if one.type == "bool" and isinstance(kind, Boolean):
        return packed.boolean(words[:, 31])
    if one.type == "bool":
        return None
    plain = words
    if one.type == "address":
        plain = words[:, 12:]
    elif one.type.startswith("bytes") and not one.hashed:
        plain = words[:, : int(one.type.removeprefix("bytes"))]
    return _bytes(plain, kind)


def place_field(values: Sequence[Any], kind: TypeEngine[Any]) -> packed.Field | None:
    """Return values of a fact's place as a field; None where they have no fixed width."""
    first = values[0]
    if isinstance(first, int) and isinstance(kind, Integer):
        return packed.integers(np.array(values, dtype=np.int64), _name(kind))
    if isinstance(first, bytes) and isinstance(kind, LargeBinary):
        size = len(first)
        if set(map(len, values)) == {size}:
            return packed.bytea(np.frombuffer(b"".join(values), np.uint8).reshape(-1, size))
    return None


def _number(one: Argument, words: Words, kind: TypeEngine[Any]) -> packed.Field | None:
    if isinstance(kind, Integer):
        values = signed_64(words)
        if values is None or (one.type.startswith("uint") and len(values) and values.min() < 0):
            return None
        return packed.integers(values, _name(kind))
    if isinstance(kind, Numeric) and kind.scale in (None, 0):
        if one.type.startswith("int") and (words[:, 0] >= 128).any():
            return None
        raw = words.tobytes()
        return packed.numeric(
            [int.from_bytes(raw[at : at + 32], "big") for at in range(0, len(raw), 32)]
        )
    return None


def _bytes(plain: Words, kind: TypeEngine[Any]) -> packed.Field | None:
    if isinstance(kind, LargeBinary):
        return packed.bytea(plain)
    return packed.hex_text(plain) if isinstance(kind, String) else None


def _name(kind: Integer) -> str:
    if isinstance(kind, SmallInteger):
        return "smallint"
    return "bigint" if isinstance(kind, BigInteger) else "integer"
