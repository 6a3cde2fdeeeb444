"""From "connect my account" to a stored connection: the two requests of an authorization.

The state is kept for ten minutes, for one provider and one subject, and is used up by the first
callback whatever becomes of it. The subject comes from the state alone: nothing in the callback's
address can change whom the account is linked to.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from causeway.base.errors import CausewayError, NotAuthenticated, NotFound, TransientError
from causeway.connections import oauth_state
from causeway.connections.access import Provider
from causeway.connections.credential import Credential, Tokens
from causeway.connections.errors import AccountTaken, AuthorizationFailed
from causeway.connections.oauth import OAuthClient
from causeway.connections.vault import Connection, Vault, revokes_everything

_log = structlog.get_logger(__name__)

#: Seconds from the start of an authorization to its callback.
LIFETIME_S = 600.0
#: Longest code or state that is looked at.
_MOST_CHARACTERS = 2048


@dataclass(frozen=True)
class Begun:
    """Where the person goes, and the state that comes back from there."""

    url: str
    state: str


async def begin(vault: Vault, provider: Provider, subject: str) -> Begun:
    """Begin to connect an account of `provider` to `subject`, who has proved to be that."""
    oauth = _oauth(provider)
    started = await oauth_state.start(
        vault.database, _action(vault, provider), subject, lifetime_s=LIFETIME_S
    )
    return Begun(oauth.authorization_url(started), started.state)


async def finish(
    vault: Vault,
    provider: Provider,
    *,
    code: str | None,
    state: str | None,
    error: str | None = None,
    granted: str | None = None,
) -> Connection:
    """Complete the callback; return the connection.

    `granted` is the `scope` of the callback, where the provider says there what was allowed
    (Strava). It can only take away from what was asked for.

    Raises `AuthorizationFailed` with a code; what the database raises is raised as it is.
    """
    if error is not None:
        await _use_up(vault, provider, state)
        raise AuthorizationFailed("access_denied" if error == "access_denied" else "provider_error")
    kept = await _consume(vault, provider, state)
    if provider.oauth is None:
        raise AuthorizationFailed(
            "invalid_provider", f"{provider.name} is not set up here any more"
        )
    if not code or len(code) > _MOST_CHARACTERS:
        raise AuthorizationFailed("token_exchange_failed", "the callback brought no code")
    try:
        tokens = await provider.oauth.exchange(code, kept.verifier)
    except CausewayError as failure:
        raise _failed(provider, failure) from None
    if granted is not None:
        allowed = set(re.split(r"[,\s]+", granted[:_MOST_CHARACTERS]))
        asked = provider.oauth.app.scopes
        tokens = replace(tokens, scopes=tuple(scope for scope in asked if scope in allowed))
    try:
        account = await provider.account(
            Credential(provider.name, "oauth", tokens.access_token, scopes=tokens.scopes)
        )
        return await vault.save(provider.name, kept.subject, tokens, account)
    except AccountTaken as taken:
        await _give_back(vault, provider, tokens)
        raise AuthorizationFailed("account_already_linked", taken.message) from None
    except CausewayError as failure:
        await _give_back(vault, provider, tokens)
        raise _failed(provider, failure) from None
    except SQLAlchemyError:
        # Nobody will know this token again, and there is nowhere to write that down. Where it would
        # take others of the account along, it is left to end by itself.
        if not revokes_everything(provider.name):
            with suppress(CausewayError):
                await provider.revoke(tokens.access_token)
        raise


def _action(vault: Vault, provider: Provider) -> str:
    return f"connect {vault.app} {provider.name}"


def _oauth(provider: Provider) -> OAuthClient:
    if provider.oauth is None:
        raise NotFound(f"{provider.name} is not set up here")
    return provider.oauth


async def _consume(vault: Vault, provider: Provider, state: str | None) -> oauth_state.Returned:
    if not state or len(state) > _MOST_CHARACTERS:
        raise AuthorizationFailed("invalid_state", "the callback brought no state")
    try:
        return await oauth_state.consume(vault.database, _action(vault, provider), state)
    except oauth_state.AuthorizationExpired as late:
        raise AuthorizationFailed("expired_state", late.message) from None
    except NotAuthenticated as unknown:
        raise AuthorizationFailed("invalid_state", unknown.message) from None


async def _use_up(vault: Vault, provider: Provider, state: str | None) -> None:
    try:
        await _consume(vault, provider, state)
    except AuthorizationFailed:
        return


async def _give_back(vault: Vault, provider: Provider, tokens: Tokens) -> None:
    await vault.discard(provider.name, tokens.access_token)


def _failed(provider: Provider, failure: CausewayError) -> AuthorizationFailed:
    _log.warning(
        "authorization_failed",
        provider=provider.name,
        error=type(failure).__name__,
        why=failure.message,
        transient=isinstance(failure, TransientError),
    )
    return AuthorizationFailed("token_exchange_failed", failure.message)
