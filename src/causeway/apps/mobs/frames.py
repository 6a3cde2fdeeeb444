"""What a call tree says about a failure: where it began, what was said there. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causeway.apps.mobs.decoding import Decoded, Decoder, clean
from causeway.apps.mobs.wire import raw
from causeway.chains.evm.blocks import Frame

#: What a frame says when a contract has reverted it; anything else is the machine's own word.
_REVERTED = "execution reverted"


@dataclass(frozen=True)
class Reason:
    """Why a transaction failed."""

    #: `trace` or `replay`.
    source: str
    decoded: Decoded
    data: bytes | None = None
    #: The innermost frame that failed: address, depth (0: the transaction's own), function.
    origin: dict[str, Any] | None = None


def shape(tree: Frame) -> tuple[int, int]:
    """Return the depth of a call tree (1: no inner calls) and its number of calls."""
    deepest, count = 0, 0
    stack = [(tree, 1)]
    while stack:
        frame, depth = stack.pop()
        deepest, count = max(deepest, depth), count + 1
        stack += [(one, depth + 1) for one in frame.calls]
    return deepest, count


def failing_frame(tree: Frame) -> tuple[Frame, int]:
    """Return the innermost frame whose failure reached the root, and its depth (0: the root).

    A failure is passed on when the frame above ends with the very data of its last failing call; a
    frame that says something of its own is where the failure the sender saw began.
    """
    frame, depth = tree, 0
    while True:
        last = next((one for one in reversed(frame.calls) if one.error is not None), None)
        if last is None or not _passed_on(last, frame):
            return frame, depth
        frame, depth = last, depth + 1


def _passed_on(inner: Frame, outer: Frame) -> bool:
    said, told = inner.output or "0x", outer.output or "0x"
    if said != told:
        return False
    # Without data the frame above may have failed by itself: it ran out of gas, or the failing call
    # was not the last thing it did. Nothing was passed on if it names another reason.
    if told != "0x" or outer.error in (inner.error, _REVERTED):
        return True
    return (outer.error or "") == ""


def explain(tree: Frame, decoder: Decoder) -> Reason:
    """Return why a traced transaction failed, in words."""
    data = raw(tree.output) or b""
    frame, depth = failing_frame(tree)
    place = raw(frame.to)
    # In a delegate call the code is at `to` and what runs as `from` is the proxy before it.
    proxy = raw(frame.from_) if frame.type.upper() in ("DELEGATECALL", "CALLCODE") else None
    error = frame.error or tree.error or ""
    if not data and _REVERTED not in error.lower() and error:
        decoded = Decoded(None, clean(error[:1].upper() + error[1:]))
    else:
        decoded = decoder.error(data, place, proxy, raw(tree.to))
    return Reason(
        "trace",
        decoded,
        data or None,
        {"address": frame.to, "depth": depth, "function": _function(frame, place, proxy, decoder)},
    )


def _function(
    frame: Frame, place: bytes | None, proxy: bytes | None, decoder: Decoder
) -> str | None:
    if frame.type.upper().startswith("CREATE"):
        return "constructor"
    called = raw(frame.input) or b""
    if len(called) < 4:
        return None
    name = decoder.method(called, place) or decoder.method(called, proxy)
    return name or "0x" + called[:4].hex()
