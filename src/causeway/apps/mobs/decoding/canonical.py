"""Decoding ABI data that is exactly what an encoder would have written, in linear time.

Revert data is written by strangers. A general decoder follows whatever offsets it finds, so that a
few kilobytes can unfold into gigabytes; and it accepts bytes that no encoder of that type writes,
so that a guessed type seems to fit. Here each dynamic part must lie just where the Solidity ABI's
encoding puts it, padding must be zero and nothing may be left: what decodes encodes back to the
same bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_WORD = 32
_NUMBER = re.compile(r"(u?int)(\d{1,3})\Z")
_FIXED_BYTES = re.compile(r"bytes(\d{1,2})\Z")
_ARRAY = re.compile(r"(.*)\[(\d{0,6})\]\Z", re.DOTALL)
#: Types nested deeper than this are nobody's.
_DEEPEST = 16


class NotCanonical(ValueError):
    """The data are not what an encoder writes for these types."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of the ABI."""

    name: str
    #: Bytes it takes in the head.
    head: int
    dynamic: bool
    #: `uint`, `int`, `address`, `bool`, `fixed` (bytesN), `bytes`, `string`, `array` or `tuple`.
    family: str
    #: Bits of a number, bytes of a `bytesN`, items of an array (-1: any).
    size: int = 0
    parts: tuple[Kind, ...] = ()


@lru_cache(maxsize=4096)
def kind_of(name: str) -> Kind:
    """Return the type with this canonical name; `NotCanonical` when it is none we know."""
    return _kind(name, 0)


def _kind(name: str, depth: int) -> Kind:
    if depth > _DEEPEST:
        raise NotCanonical("a type nested too deeply")
    array = _ARRAY.match(name)
    if array:
        item = _kind(array[1], depth + 1)
        if item.head == 0:
            raise NotCanonical(f"{name}: items without a size")
        if not array[2]:
            return Kind(name, _WORD, True, "array", -1, (item,))
        count = int(array[2])
        head = _WORD if item.dynamic else count * item.head
        return Kind(name, head, item.dynamic, "array", count, (item,))
    if name.startswith("(") and name.endswith(")"):
        parts = tuple(_kind(part, depth + 1) for part in split_types(name[1:-1]))
        dynamic = any(part.dynamic for part in parts)
        head = _WORD if dynamic else sum(part.head for part in parts)
        return Kind(name, head, dynamic, "tuple", len(parts), parts)
    if name in ("string", "bytes"):
        return Kind(name, _WORD, True, name)
    if name in ("address", "bool"):
        return Kind(name, _WORD, False, name)
    if name == "function":  # an address and a selector
        return Kind(name, _WORD, False, "fixed", 24)
    number = _NUMBER.match(name)
    if number and int(number[2]) in range(8, 257, 8):
        return Kind(name, _WORD, False, number[1], int(number[2]))
    fixed = _FIXED_BYTES.match(name)
    if fixed and 1 <= int(fixed[1]) <= _WORD:
        return Kind(name, _WORD, False, "fixed", int(fixed[1]))
    raise NotCanonical(f"{name!r} is no type")


def split_types(text: str) -> list[str]:
    """Split `a,(b,c)[],d` at its outer commas; an empty text gives nothing."""
    parts: list[str] = []
    depth, start = 0, 0
    for at, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
        if sign == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    if depth:
        raise NotCanonical("brackets that do not match")
    if text.strip():
        parts.append(text[start:].strip())
    return parts


def decode_canonical(types: tuple[str, ...], data: bytes) -> tuple[object, ...]:
    """Return the values of these types in `data`.

    Integers, booleans, text (invalid UTF-8 replaced), bytes (also addresses, 20 of them), tuples.
    Raises `NotCanonical` when an encoder would not have written exactly these bytes.
    """
    values, end = _sequence(tuple(kind_of(one) for one in types), data, 0)
    if end != len(data):
        raise NotCanonical("more data than the types have")
    return values


def _sequence(kinds: tuple[Kind, ...], data: bytes, base: int) -> tuple[tuple[object, ...], int]:
    """Return the values of a tuple's members whose head begins at `base`, and the end."""
    head = base
    tail = base + sum(kind.head for kind in kinds)
    if tail > len(data):
        raise NotCanonical("less data than the types need")
    values: list[object] = []
    for kind in kinds:
        if not kind.dynamic:
            values.append(_static(kind, data, head))
        else:
            if int.from_bytes(data[head : head + _WORD], "big") != tail - base:
                raise NotCanonical("an offset that no encoder writes")
            value, tail = _dynamic(kind, data, tail)
            values.append(value)
        head += kind.head
    return tuple(values), tail


def _dynamic(kind: Kind, data: bytes, at: int) -> tuple[object, int]:
    if kind.family == "tuple":
        return _sequence(kind.parts, data, at)
    if kind.family == "array":
        count = kind.size
        if count < 0:
            count, at = _length(data, at)
        if count * kind.parts[0].head > len(data) - at:
            raise NotCanonical("more items than there is data")
        return _sequence(kind.parts * count, data, at)
    size, at = _length(data, at)
    if size > len(data) - at:
        raise NotCanonical("a length beyond the data")
    end = at + (size + _WORD - 1) // _WORD * _WORD
    if end > len(data) or any(data[at + size : end]):
        raise NotCanonical("padding that is not zero")
    content = data[at : at + size]
    return (content.decode("utf-8", "replace") if kind.family == "string" else content), end


def _length(data: bytes, at: int) -> tuple[int, int]:
    if at + _WORD > len(data):
        raise NotCanonical("no room for a length")
    return int.from_bytes(data[at : at + _WORD], "big"), at + _WORD


def _static(kind: Kind, data: bytes, at: int) -> object:
    family = kind.family
    if family in ("array", "tuple"):
        kinds = kind.parts * kind.size if family == "array" else kind.parts
        return _sequence(kinds, data, at)[0]
    word = data[at : at + _WORD]
    if family == "fixed":
        if any(word[kind.size :]):
            raise NotCanonical("padding that is not zero")
        return word[: kind.size]
    if family == "int":
        value = int.from_bytes(word, "big", signed=True)
        if not -(1 << (kind.size - 1)) <= value < 1 << (kind.size - 1):
            raise NotCanonical(f"no {kind.name}")
        return value
    value = int.from_bytes(word, "big")
    if family == "address":
        if value >> 160:
            raise NotCanonical("no address")
        return word[12:]
    if family == "bool":
        if value > 1:
            raise NotCanonical("no truth value")
        return value == 1
    if value >> kind.size:
        raise NotCanonical(f"no {kind.name}")
    return value
