"""Every error Causeway raises on purpose.

    CausewayError                 the message is the class docstring unless one is given
      TransientError              try again, later; `retry_after_s` when somebody said when
        ProviderUnavailable       nobody answered, or the answer was a server's failure
        RateLimited               asked to slow down
        ChainBehind               the chain, or the provider we ask, is not there yet
        LeaseLost                 another worker holds the row now; what we have is dropped
      PermanentError              trying again changes nothing; a person reads the reason
        InvalidInput              `fields` says which, with what value, and what is allowed
        InvalidStateTransition    this state does not lead to that one
        NotFound
        Conflict
        NotAllowed                we know who you are, and you may not
        NotAuthenticated          we do not know who you are
        SignatureInvalid
        TooLarge
        TransactionReverted       the chain refused, with its reason decoded
      ConfigurationError          stops the start and lists everything at once; pauses a stage
      Bug                         an invariant broke: loud, never retried

The two roots decide what a pipeline does with a row; one table in `causeway.runtime.problems`
maps the leaves to HTTP statuses and CLI exit codes. Nothing here knows about either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class CausewayError(Exception):
    """Something went wrong."""

    #: A word of its own that clients tell it by (`EXPIRED`), beside its type.
    problem_code: str | None = None

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, **context: Any
    ) -> None:
        self.message = message or (type(self).__doc__ or "Something went wrong.").strip()
        #: What a person can do about it, in one sentence.
        self.hint = hint
        #: Names and values that help to find the cause; never secrets.
        self.context: Mapping[str, Any] = context
        super().__init__(self.message)


class TransientError(CausewayError):
    """It did not work this time; trying again later may."""

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: float | None = None,
        hint: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, hint=hint, **context)
        #: Seconds to wait before the next try, when the other side said so.
        self.retry_after_s = retry_after_s


class ProviderUnavailable(TransientError):
    """The service did not answer, or answered with a failure of its own."""


class RateLimited(TransientError):
    """The service asks us to slow down."""


class ChainBehind(TransientError):
    """The chain, or the provider we asked, has not reached that block yet."""


class LeaseLost(TransientError):
    """Another worker holds this row now; the result in hand is dropped."""


class PermanentError(CausewayError):
    """It cannot work as it was asked; trying again changes nothing."""


@dataclass(frozen=True)
class Field:
    """One wrong input: its path (`event.data.block.number`), what came, what is allowed."""

    path: str
    value: str
    allowed: str


class InvalidInput(PermanentError):
    """The input is not valid."""

    def __init__(
        self,
        message: str | None = None,
        *,
        fields: Sequence[Field] = (),
        hint: str | None = None,
        **context: Any,
    ) -> None:
        if message is None and fields:
            message = "; ".join(f"{f.path}: {f.value!r} is not {f.allowed}" for f in fields)
        super().__init__(message, hint=hint, **context)
        self.fields = tuple(fields)


class InvalidStateTransition(PermanentError):
    """This state does not lead to that one."""

    def __init__(self, subject: str, current: str, wanted: str) -> None:
        super().__init__(
            f"{subject} is '{current}' and cannot become '{wanted}'",
            subject=subject,
            current=current,
            wanted=wanted,
        )


class NotFound(PermanentError):
    """There is no such thing."""


class Conflict(PermanentError):
    """What is there already does not allow this."""


class NotAllowed(PermanentError):
    """You may not do this."""


class NotAuthenticated(PermanentError):
    """Say who you are first."""

    #: What the answer's `WWW-Authenticate` says.
    challenge: str = "Bearer"


class SignatureInvalid(PermanentError):
    """The signature does not belong to this message and this signer."""


class TooLarge(PermanentError):
    """More than is accepted."""


class TransactionReverted(PermanentError):
    """The chain refused the transaction."""

    def __init__(
        self,
        message: str | None = None,
        *,
        error_name: str | None = None,
        error_args: Sequence[Any] = (),
        data: bytes = b"",
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        #: The contract's own error, decoded from its ABI (`AlreadyRevealed`), when it has one.
        self.error_name = error_name
        self.error_args = tuple(error_args)
        self.data = data


class ConfigurationError(CausewayError):
    """The configuration is missing something or is unsafe."""

    def __init__(self, problems: Sequence[str] | str, *, hint: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems), hint=hint)


class Bug(CausewayError):
    """An invariant of ours broke; please report it."""
