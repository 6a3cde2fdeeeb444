"""How call trees are stored: compressed JSON of bounded size. Pure functions."""

from __future__ import annotations

import zlib
from typing import Any, cast

import msgspec
import orjson

#: JSON of a call tree that is kept, bytes.
LARGEST = 1 << 20
#: Of inputs and outputs of a tree that is too large so many characters are kept.
_KEPT = 1024


def pack(tree: Any) -> tuple[bytes, bool]:
    """Return a call tree (a struct or JSON) packed, and whether something had to be left out.

    First long inputs and outputs are cut, then the deepest calls left out.
    """
    whole = msgspec.json.encode(tree)
    if len(whole) <= LARGEST:
        return zlib.compress(whole), False
    plain = _cut(orjson.loads(whole))
    whole = orjson.dumps(plain)
    if len(whole) > LARGEST:
        # The deepest level at which it fits: a tree is cut once, not once for each level.
        low, high = 1, 1024
        while low < high:
            middle = (low + high + 1) // 2
            if len(orjson.dumps(_pruned(plain, middle))) <= LARGEST:
                low = middle
            else:
                high = middle - 1
        pruned = _pruned(plain, low)
        calls = cast("list[Any]", pruned.get("calls", []))
        while calls and len(orjson.dumps(pruned)) > LARGEST:
            del calls[len(calls) // 2 :]
        whole = orjson.dumps(pruned)
    return zlib.compress(whole), True


def _cut(frame: dict[str, Any]) -> dict[str, Any]:
    stack = [frame]
    while stack:
        one = stack.pop()
        for name in ("input", "output"):
            text = one.get(name)
            if isinstance(text, str) and len(text) > _KEPT:
                one[name] = text[:_KEPT] + "…"
        stack += one.get("calls", [])
    return frame


def _pruned(frame: dict[str, Any], depth: int) -> dict[str, Any]:
    """Return a copy with `depth` levels."""
    kept = {name: value for name, value in frame.items() if name != "calls"}
    calls = frame.get("calls", [])
    if calls and depth > 1:
        kept["calls"] = [_pruned(one, depth - 1) for one in calls]
    elif calls:
        kept["calls_left_out"] = len(calls)
    return kept


def unpack(packed: bytes) -> Any:
    """Return a packed call tree as JSON."""
    return orjson.loads(zlib.decompress(packed))
