"""JSON as JavaScript writes it: what Pinata pins for `pinJSONToIPFS`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

_ARRAY_INDEX = re.compile(r"0|[1-9]\d{0,9}")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def stringify(value: object) -> str:
    """Return `JSON.stringify(value)`: compact, non-ASCII as it is, keys in JavaScript's order.

    That order is: keys that look like array indices first, ascending, then the others as they
    came. All numbers are doubles, so integers above 2^53 lose digits.
    """
    match value:
        case None | bool():
            return json.dumps(value)
        case int() | float():
            return _number(float(value))
        case str():
            return _string(value)
        case Mapping():
            items = cast("Mapping[str, object]", value).items()
            ordered = sorted(items, key=lambda item: _index(item[0]))
            return "{" + ",".join(f"{_string(k)}:{stringify(v)}" for k, v in ordered) + "}"
        case Sequence():
            return "[" + ",".join(map(stringify, cast("Sequence[object]", value))) + "]"
        case _:
            raise TypeError(f"no JSON: {type(value).__name__}")


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    # JSON.stringify is well-formed: half a surrogate pair becomes an escape.
    return _LONE_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", quoted)


def _index(key: str) -> int:
    if _ARRAY_INDEX.fullmatch(key) and int(key) < 2**32 - 1:
        return int(key)
    return 2**32


def _number(value: float) -> str:
    """Return ECMAScript's Number::toString of a finite double."""
    if value in (float("inf"), float("-inf")) or value != value:
        return "null"
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = len(whole) + int(exponent or 0) if whole != "0" else int(exponent or 0)
    if whole == "0":
        point -= len(fraction) - len(fraction.lstrip("0"))
    digits = digits.rstrip("0") or "0"
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
