"""Who signed: typed data (SNIP-12) and the account contract's own word (SRC-6).

On Starknet every account is a contract that decides for itself what a good signature is, so that
nothing is recovered from a signature here: the account is asked, as it is now. What it cannot be
asked is unknown, and never counts as refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import structlog

from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    Field,
    InvalidInput,
    TransactionReverted,
)
from causeway.chains.errors import RpcError
from causeway.chains.starknet import felts
from causeway.chains.starknet.abi import to_bytes, to_felts
from causeway.chains.starknet.errors import CONTRACT_NOT_FOUND, ENTRYPOINT_NOT_FOUND

_log = structlog.get_logger(__name__)

_VALID = felts.from_short_string("VALID")
#: What accounts from before SRC-6 answer.
_LEGACY_VALID = 1
#: Longer signatures are refused unread; those of multisigs and guardians have some dozens of felts.
MOST_FELTS = 512
_NO_FUNCTION = ("ENTRYPOINT_NOT_FOUND", "Entry point", "EntryPointSelector")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known about a signature, and why it is not good."""

    verdict: Literal["valid", "invalid", "unknown"]
    reason: str | None = None


class CallableChain(Protocol):
    """What is needed of a chain: `causeway.chains.starknet.chain.StarknetChain` has it."""

    async def call(self, to: str, data: bytes) -> bytes:
        """Run a view."""
        ...


def message_hash(typed_data: Mapping[str, Any], account: str) -> int:
    """Return the hash of typed data (SNIP-12, both revisions) that an account signs.

    It binds the account and, by the domain, application and chain. Raises `InvalidInput` for data
    of another form, `ConfigurationError` without the extra `causeway[starknet]`.
    """
    try:
        from marshmallow import ValidationError
        from starknet_py.utils.typed_data import TypedData
    except ImportError:
        raise ConfigurationError(
            "typed data of Starknet needs packages that are not installed",
            hint="install causeway[starknet]",
        ) from None
    signer = int(felts.address(account, name="account"), 16)
    try:
        made: Any = TypedData.from_dict(dict(typed_data))  # pyright: ignore[reportArgumentType] - its own check says what is wrong
        return int(made.message_hash(signer))
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        allowed = "typed data of SNIP-12: types, primaryType, domain and message"
        raise InvalidInput(
            fields=[Field("typed_data", f"{type(error).__name__}: {error}"[:200], allowed)]
        ) from error


async def verify(
    chain: CallableChain,
    account: str,
    hash_: int,
    signature: Sequence[int],
    *,
    accept_legacy: bool = False,
) -> Judgement:
    """Ask the account whether it signed this hash.

    With `accept_legacy` the answer 1 of accounts from before SRC-6 is good too. Raises
    `InvalidInput` for an address that is none.
    """
    signer = felts.address(account, name="account")
    if len(signature) > MOST_FELTS or not all(0 <= one < felts.PRIME for one in signature):
        return Judgement("invalid", "not a signature")
    felts.felt(hash_, name="hash")
    data = to_bytes([felts.selector("is_valid_signature"), hash_, len(signature), *signature])
    try:
        answer = to_felts(await chain.call(signer, data))
    except TransactionReverted as error:
        if any(text in error.message for text in _NO_FUNCTION):
            return Judgement("invalid", "not an account")
        return Judgement("invalid", "the account refuses it")
    except RpcError as error:
        if error.code == CONTRACT_NOT_FOUND:
            return Judgement("invalid", "account not deployed")
        if error.code == ENTRYPOINT_NOT_FOUND:
            return Judgement("invalid", "not an account")
        _log.warning("signature_not_checkable", signer=signer, error=error)
        return Judgement("unknown", "the chain's answer says nothing")
    except CausewayError as error:
        _log.warning("signature_not_checkable", signer=signer, error=error)
        return Judgement("unknown", "the chain could not be asked")
    if answer == [_VALID] or (accept_legacy and answer == [_LEGACY_VALID]):
        return Judgement("valid")
    return Judgement("invalid", "another signature")
