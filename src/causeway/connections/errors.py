"""What can be wrong with a link to another service, so that a score can tell the cases apart.

    NotFound
      NotConnected         there is no token: nobody connected this account
      NoData               the provider answered, and does not have what was asked for
    PermanentError
      CredentialRefused    the provider refuses the token: revoked, expired for good, or wrong
      AuthorizationFailed  an authorization did not end in a connection; `code` says why
    Conflict
      AccountTaken         the account is linked to somebody else

An outage is none of these: `ProviderUnavailable` and `RateLimited`, of `causeway.base.errors`.
"""

from __future__ import annotations

from typing import Literal

from causeway.base.errors import Conflict, NotFound, PermanentError


class NotConnected(NotFound):
    """No account is connected."""


class NoData(NotFound):
    """The provider does not have what was asked for."""


class CredentialRefused(PermanentError):
    """The provider refuses the credentials: revoked, expired or wrong."""


class AccountTaken(Conflict):
    """This account is linked to somebody else already."""


#: How an authorization can fail.
FailureCode = Literal[
    "access_denied",
    "provider_error",
    "invalid_state",
    "expired_state",
    "invalid_provider",
    "token_exchange_failed",
    "account_already_linked",
]


class AuthorizationFailed(PermanentError):
    """The authorization did not end in a connection."""

    def __init__(self, code: FailureCode, message: str | None = None) -> None:
        super().__init__(message or code)
        #: For the frontend.
        self.code: FailureCode = code
