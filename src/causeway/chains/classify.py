"""From a JSON-RPC error object to one of our errors.

Codes come first; text is only a hint, because no two vendors write the same. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    ProviderUnavailable,
    RateLimited,
    TransactionReverted,
)
from causeway.chains.errors import (
    AlreadyKnown,
    BlockUnknown,
    ExecutionHalted,
    FeeCapExceeded,
    InsufficientFunds,
    IntrinsicGasTooLow,
    MethodUnsupported,
    NonceTooHigh,
    NonceTooLow,
    RangeTooLarge,
    ReplacementUnderpriced,
    RpcError,
    SendRejected,
    StatePruned,
    Underpriced,
)


@dataclass(frozen=True)
class ErrorReply:
    """A JSON-RPC error as it came."""

    code: int
    message: str
    data: object = None


#: By the prefix of their methods: chain families with error codes of their own.
FAMILIES: dict[str, Callable[[str, ErrorReply], CausewayError]] = {}

#: Methods that execute code without changing the chain: only these have reverts.
_EXECUTING = frozenset({"eth_call", "eth_estimateGas", "eth_createAccessList", "eth_simulateV1"})

#: Order matters: the first that matches decides (a vendor's "replacement transaction underpriced"
#: is not "underpriced"; "unknown transaction" is not "known transaction").
_SEND: tuple[tuple[re.Pattern[str], type[SendRejected]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (
            r"already known|already imported|already exists|already in mempool"
            r"|(?<!un)known transaction|transaction already in",
            AlreadyKnown,
        ),
        (
            r"nonce (is )?too low|old nonce|invalid transaction nonce|nonce already used"
            r"|nonce has already been used",
            NonceTooLow,
        ),
        (
            r"replacement transaction underpriced|could not replace existing"
            r"|another transaction with same nonce|replacement.*(fee|price|gas)",
            ReplacementUnderpriced,
        ),
        (r"nonce (is )?too high|nonce gap|gapped.nonce|nonce too (big|far)", NonceTooHigh),
        (r"insufficient (funds|balance)|overshot|doesn'?t have enough funds", InsufficientFunds),
        (
            r"underpriced|max fee per gas less than block base fee|fee(s)? too low"
            r"|gas price (is )?too low|below (the )?(minimum|current minimum)|less than base fee",
            Underpriced,
        ),
        (
            r"exceeds the configured cap|fee cap (exceeded|too high)|txfee.*exceeds|feecap exceed"
            r"|max fee per gas (too high|higher)",
            FeeCapExceeded,
        ),
        (r"intrinsic gas|gas too low|insufficient gas for", IntrinsicGasTooLow),
    )
)

_RATE = re.compile(
    r"rate.?limit|too many requests|per second|request count|throughput|compute units"
    r"|throttl|capacity|credits|quota|slow down",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"header not found|block not found|unknown block|beyond current head|not yet available"
    r"|header for hash not found|after last accepted block|block.*is not available"
    r"|block.?out.?of.?range|block height is|resource not found"
    r"|invalid block range params",
    re.IGNORECASE,
)
_PRUNED = re.compile(
    r"missing trie node|state (at block|for block|histories?).*(pruned|not available|unavailable)"
    r"|pruned|archive|historical state|required historical|old data not available",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(
    r"(method|namespace)\b.{0,60}(not (found|supported|available|enabled|allowed|whitelisted"
    r"|implemented)|does not exist|unsupported|is disabled|is not defined)"
    r"|unsupported method|unknown method|unknown rpc method|invalid method",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"range|too many|too large|too big|exceed|more than|limited to|max(imum)? (results|blocks|is)"
    r"|response size|timed? ?out|narrow|smaller|reduce|pagina|no more than|greater than",
    re.IGNORECASE,
)
_REVERTED = re.compile(r"execution reverted|vm execution error|^reverted", re.IGNORECASE)
#: What the machine itself says when code ends badly: no provider's fault, and no other's answer.
_HALTED = re.compile(
    r"^EVM error|out of ?gas|invalid opcode|invalid jump|stack (over|under)flow|write protection"
    r"|stack limit reached|max code size|invalid code: must not begin",
    re.IGNORECASE,
)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def revert_data(data: object) -> bytes | None:
    """Return the revert data in an error's `data`, whatever dress it wears; None without any."""
    if isinstance(data, dict):
        nested = msgspec.convert(data, dict[str, object])
        for name in ("data", "result", "output"):
            found = revert_data(nested.get(name))
            if found is not None:
                return found
        return None
    if not isinstance(data, str):
        return None
    match = _HEX.search(data.removeprefix("Reverted "))
    return bytes.fromhex(match[0][2:]) if match and data.endswith(match[0]) else None


def classify(method: str, reply: ErrorReply) -> CausewayError:
    """Return the error that a JSON-RPC error reply to `method` stands for."""
    family = FAMILIES.get(method.partition("_")[0])
    if family is not None:
        return family(method, reply)
    if method == "eth_sendRawTransaction":
        return classify_send(reply)
    data = revert_data(reply.data)
    text = reply.message
    if method in _EXECUTING:
        if reply.code == 3 or data or _REVERTED.search(text):
            return TransactionReverted(text, data=data or b"")
        if _HALTED.search(text):
            return ExecutionHalted(text, code=reply.code)
        rejected = _send_kind(text)
        if rejected in (InsufficientFunds, IntrinsicGasTooLow, NonceTooHigh, NonceTooLow):
            return rejected(text, code=reply.code)
    if reply.code in (-32601, -32004) or _UNSUPPORTED.search(text):
        return MethodUnsupported(text, code=reply.code)
    if method.startswith("eth_getBlockBy") and (_BEHIND.search(text) or reply.code == -39001):
        return BlockUnknown(text, code=reply.code)
    if method == "eth_getLogs":
        if _BEHIND.search(text):
            return ChainBehind(text, code=reply.code)
        if _RANGE.search(text) and not _RATE.search(text):
            return RangeTooLarge(text, code=reply.code)
    if reply.code in (-32005, -32016, -32029, 429) or _RATE.search(text):
        return RateLimited(text, code=reply.code)
    if _PRUNED.search(text):
        return StatePruned(text, code=reply.code)
    if _BEHIND.search(text) or reply.code == -32001:
        return ChainBehind(text, code=reply.code)
    if reply.code in (-32603, -32002) or 500 <= reply.code < 600:
        return ProviderUnavailable(f"the provider failed: {text}", code=reply.code)
    if method == "eth_getLogs" and reply.code not in (-32600, -32601, -32700):
        # Whatever the text says: asking for less is the only thing that can help.
        return RangeTooLarge(text, code=reply.code)
    return RpcError(text, code=reply.code, data=data)


def _send_kind(text: str) -> type[SendRejected] | None:
    return next((kind for pattern, kind in _SEND if pattern.search(text)), None)


def classify_send(reply: ErrorReply) -> CausewayError:
    """Return what an error reply to `eth_sendRawTransaction` means.

    A generic internal error leaves open whether the node took the bytes, so it is transient: the
    same bytes may be sent again, never other ones.
    """
    kind = _send_kind(reply.message)
    if kind is not None:
        return kind(reply.message, code=reply.code)
    if reply.code in (-32005, -32016, -32029, 429) or _RATE.search(reply.message):
        return RateLimited(reply.message, code=reply.code)
    if reply.code in (-32603, -32002) or 500 <= reply.code < 600:
        return ProviderUnavailable(f"the provider failed: {reply.message}", code=reply.code)
    return RpcError(reply.message, code=reply.code, data=revert_data(reply.data))
