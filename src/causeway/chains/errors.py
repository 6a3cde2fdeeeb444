"""What a provider's JSON-RPC error means.

    RpcError                 the provider answered with an error (`code`, `message`, `data`)
      BlockUnknown           said instead of a null block by some nodes
      RangeTooLarge          too many blocks, or too many results, in one question
      MethodUnsupported      the provider does not offer the method
      ExecutionHalted        a call ended badly without a revert: out of gas, no such opcode
      SendRejected           a raw transaction was refused, or was there already
        AlreadyKnown         these very bytes are in the pool: as good as accepted
        NonceTooLow          the nonce is spent
        ReplacementUnderpriced
        NonceTooHigh         an earlier nonce is missing at that node
        InsufficientFunds
        Underpriced
        FeeCapExceeded       above the fee the node allows
        IntrinsicGasTooLow

Failures that time may heal are `ProviderUnavailable`, `RateLimited` and `ChainBehind` of
`causeway.base.errors`, with two of our own:

    ChainBehind
      StatePruned            the provider keeps no state of blocks that old
      WrongAnswer            what the provider says cannot be true

A revert is `TransactionReverted` there, with its data; what a log holds that its ABI does not
allow is `UndecodableLog`, an `InvalidInput`.
"""

from __future__ import annotations

from causeway.base.errors import ChainBehind, InvalidInput, PermanentError


class UndecodableLog(InvalidInput):
    """The log does not have the shape its event's ABI says."""


class RpcError(PermanentError):
    """The provider answered with an error."""

    def __init__(
        self, message: str | None = None, *, code: int = 0, data: bytes | None = None
    ) -> None:
        super().__init__(message, code=code)
        #: The JSON-RPC error code; 0 when there was none.
        self.code = code
        #: The error's data when it was hex, as bytes.
        self.data = data


class BlockUnknown(RpcError):
    """The provider does not have this block, or does not offer this tag."""


class RangeTooLarge(RpcError):
    """The provider refuses that many blocks, or that many results, at once."""


class MethodUnsupported(RpcError):
    """The provider does not offer this method."""


class StatePruned(ChainBehind):
    """The provider keeps no state of blocks that old; another one may."""


class WrongAnswer(ChainBehind):
    """The endpoint's answers do not fit together; another one is asked."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        #: What is wrong, in a word (`broken_chain`, `bloom_denies`, ...).
        self.kind = kind


class ExecutionHalted(RpcError):
    """The call ran into its end without a revert: out of gas, or code that cannot run."""


class SendRejected(RpcError):
    """The provider did not take the transaction."""


class AlreadyKnown(SendRejected):
    """The provider has this very transaction already."""


class NonceTooLow(SendRejected):
    """The nonce of the transaction is spent."""


class ReplacementUnderpriced(SendRejected):
    """Another transaction holds this nonce and the fees are not raised enough to replace it."""


class NonceTooHigh(SendRejected):
    """A transaction with an earlier nonce is missing at that provider."""


class InsufficientFunds(SendRejected):
    """The sender cannot pay for gas and value."""


class Underpriced(SendRejected):
    """The fees are below what the provider takes."""


class FeeCapExceeded(SendRejected):
    """The fees are above what the provider allows."""


class IntrinsicGasTooLow(SendRejected):
    """The gas limit does not even cover the transaction's own bytes."""
