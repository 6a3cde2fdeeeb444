"""How decoded values are shown: as JSON, and in one line of text that is safe to store and print.

Texts on a chain are anybody's: they hold NUL (which PostgreSQL refuses), terminal escapes and
marks that turn the direction of writing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import cast

from causeway.apps.mobs.decoding.canonical import Kind

#: Longest text that is stored of an error, characters.
LONGEST = 256
_LONGEST_VALUE = 80
_MOST_ITEMS = 64
_LONGEST_PARAMETER = 4096

#: Categories of characters that are taken out: control, surrogate, not assigned to anyone.
_OUT = frozenset({"Cc", "Cs", "Co", "Cn"})
#: Marks that turn the direction of writing (UAX #9), and the byte order mark.
_TURNING = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)


def clean(text: str, longest: int = LONGEST) -> str:
    """Return `text` without characters that harm a database or a screen, cut to `longest`."""
    kept = "".join(
        sign
        for sign in text[: longest * 4]
        if sign not in _TURNING and unicodedata.category(sign) not in _OUT
    )
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def as_json(kind: Kind, value: object) -> object:
    """Return a decoded value as JSON: integers as decimal strings, bytes as lower-case hex."""
    if kind.family in ("uint", "int"):
        return str(value)
    if kind.family == "bool":
        return value
    if isinstance(value, bytes):
        return _hex(value)
    if isinstance(value, str):
        return clean(value, _LONGEST_PARAMETER)
    items = cast("Sequence[object]", value)
    kinds = kind.parts if kind.family == "tuple" else kind.parts * len(items)
    shown: list[object] = [
        as_json(part, item) for part, item in zip(kinds[:_MOST_ITEMS], items, strict=False)
    ]
    if len(items) > _MOST_ITEMS:
        shown.append(f"… {len(items) - _MOST_ITEMS} more")
    return shown


def _hex(value: bytes) -> str:
    shown = "0x" + value[: _LONGEST_PARAMETER // 2].hex()
    return shown if len(value) <= _LONGEST_PARAMETER // 2 else shown + "…"


def in_line(value: object) -> str:
    """Return a JSON value in short form for a line of text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        items = cast("list[object]", value)
        text = f"[{', '.join(in_line(item) for item in items[:8])}{', …' * (len(items) > 8)}]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
