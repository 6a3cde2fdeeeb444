"""What a Starknet node's JSON-RPC error means: the codes of the specification, then its text."""

from __future__ import annotations

import re
from typing import Any, cast

from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    ProviderUnavailable,
    RateLimited,
    TransactionReverted,
)
from causeway.chains.classify import FAMILIES, ErrorReply
from causeway.chains.errors import (
    AlreadyKnown,
    BlockUnknown,
    InsufficientFunds,
    IntrinsicGasTooLow,
    MethodUnsupported,
    NonceTooLow,
    RangeTooLarge,
    ReplacementUnderpriced,
    RpcError,
    SendRejected,
    Underpriced,
)

CONTRACT_NOT_FOUND = 20
ENTRYPOINT_NOT_FOUND = 21
BLOCK_NOT_FOUND = 24
TRANSACTION_NOT_FOUND = 29
PAGE_TOO_BIG = 31
INVALID_TOKEN = 33
INVALID_NONCE = 52

_SENDING = "starknet_addInvokeTransaction"
#: Refusals of a transaction. A code that is not here leaves open what became of it.
_REFUSED: dict[int, type[SendRejected]] = {
    INVALID_NONCE: NonceTooLow,
    53: IntrinsicGasTooLow,
    54: InsufficientFunds,
    55: SendRejected,
    57: SendRejected,
    59: AlreadyKnown,
    61: SendRejected,
    64: ReplacementUnderpriced,
    65: Underpriced,
}
_RANGE = re.compile(r"range|too (many|large|big)|exceed|limit|timed? ?out|narrow", re.IGNORECASE)
_RATE = re.compile(r"rate.?limit|too many requests|per second|throttl|quota", re.IGNORECASE)
#: A felt with its text behind it, as nodes write panics; the text is what a person reads.
_SHOWN = re.compile(r"0x[0-9a-fA-F]+ \(\\?['\"](.+?)\\?['\"]\)")


def reason(data: object) -> str:
    """Return what a contract said in refusing, as text: its last word where it has several."""
    parts: list[str] = []

    def gather(one: object) -> None:
        if isinstance(one, str):
            parts.append(one)
        elif isinstance(one, dict):
            named = cast("dict[str, Any]", one)
            for name in ("execution_error", "revert_error", "error"):
                if name in named:
                    gather(named[name])

    gather(data)
    whole = " ".join(parts)
    told = [one for one in _SHOWN.findall(whole) if one != "ENTRYPOINT_FAILED"]
    return told[0] if told else whole[:500]


def classify(method: str, reply: ErrorReply) -> CausewayError:
    """Return the error that an error reply to a `starknet_` method stands for."""
    code, text = reply.code, reply.message
    if method == _SENDING:
        kind = _REFUSED.get(code)
        if kind is not None:
            detail = reason(reply.data)
            return kind(f"{text}: {detail}" if detail else text, code=code)
    if code in (40, 41):
        said = reason(reply.data)
        return TransactionReverted(said or text, error_name=said or None)
    if code == BLOCK_NOT_FOUND:
        by_block = method.startswith("starknet_getBlock")
        return BlockUnknown(text, code=code) if by_block else ChainBehind(text, code=code)
    if code == INVALID_TOKEN:
        return ChainBehind(f"the pages of a range do not fit together: {text}", code=code)
    if code == PAGE_TOO_BIG:
        return RangeTooLarge(text, code=code)
    if code == -32601:
        return MethodUnsupported(text, code=code)
    if code in (429, -32005, -32029) or _RATE.search(text):
        return RateLimited(text, code=code)
    if method == "starknet_getEvents" and code not in (34, -32602, -32600) and _RANGE.search(text):
        return RangeTooLarge(text, code=code)
    if code in (63, -32603, -32000) or 500 <= code < 600:
        return ProviderUnavailable(f"the provider failed: {text}", code=code)
    return RpcError(text, code=code)


FAMILIES["starknet"] = classify
