"""How call trees are stored: compressed JSON of bounded size. Pure functions."""

from __future__ import annotations

import zlib
from typing import Any, cast

import msgspec

#: JSON of a call tree that is kept, bytes.
LARGEST = 1 << 20
#: Levels that are kept: who reads the JSON has to come through, too.
DEEPEST = 100
#: Of inputs and outputs of a tree that is too large so many characters are kept.
_KEPT = 1024


def pack(tree: Any) -> tuple[bytes, bool]:
    """Return a call tree (a struct or JSON) packed, and whether something had to be left out.

    First long inputs and outputs are cut, then the deepest calls left out.
    """
    whole = msgspec.json.encode(tree)
    plain = msgspec.json.decode(whole)
    depth = _depth(plain)
    if len(whole) <= LARGEST and depth <= DEEPEST:
        return zlib.compress(whole), False
    plain = _pruned(_cut(plain), DEEPEST)
    if _size(plain) > LARGEST:
        # The deepest level at which it fits.
        low, high = 1, min(depth, DEEPEST)
        while low < high:
            middle = (low + high + 1) // 2
            if _size(_pruned(plain, middle)) <= LARGEST:
                low = middle
            else:
                high = middle - 1
        wider = _pruned(plain, low + 1)
        plain = _pruned(plain, low)
        # Of the level that does not fit whole, as many calls of the root as do.
        calls = cast("list[Any]", wider.get("calls", []))
        while calls and low == 1:
            del calls[len(calls) // 2 :]
            if _size(wider) <= LARGEST:
                plain = wider
                break
    return zlib.compress(msgspec.json.encode(plain)), True


def _size(plain: dict[str, Any]) -> int:
    return len(msgspec.json.encode(plain))


def _depth(frame: dict[str, Any]) -> int:
    deepest = 0
    stack = [(frame, 1)]
    while stack:
        one, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(inner, depth + 1) for inner in one.get("calls", [])]
    return deepest


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
    return msgspec.json.decode(zlib.decompress(packed))
