"""A provider's two OAuth 2.0 addresses: where the person is sent, and where tokens come from.

The authorization code grant of RFC 6749 with PKCE (RFC 7636), for a confidential client that
presents its secret in the form, and the refresh grant. Errors are read from the body, whatever the
status: GitHub answers them with 200.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from pydantic import BaseModel, Field, SecretStr, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError, ProviderUnavailable
from causeway.base.http import Response
from causeway.connections.client import ProviderClient
from causeway.connections.credential import Tokens
from causeway.connections.errors import CredentialRefused
from causeway.connections.oauth_state import Started

#: What may stand in a header.
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")

#: Errors that say that our client is set up wrongly, not that the person's token is.
_OURS = frozenset(
    {"invalid_client", "unauthorized_client", "incorrect_client_credentials"}
    | {"redirect_uri_mismatch", "unsupported_grant_type", "application_suspended"}
)
_REFUSALS = frozenset({400, 401, 403})


@dataclass(frozen=True)
class OAuthApp:
    """An application as it is registered at a provider, and where the provider is."""

    client_id: str
    client_secret: SecretStr
    redirect_uri: str
    authorize_url: str
    token_url: str
    scopes: tuple[str, ...] = ()
    #: Between scopes, where the person is sent and in tokens.
    separator: str = " "
    pkce: bool = True
    #: Whether a refresh has to name the redirect address, too (WakaTime).
    redirect_in_refresh: bool = False
    #: Seconds before its end from which a token is refreshed.
    refresh_early_s: float = 600.0
    #: Further parameters of the authorization address.
    parameters: dict[str, str] = field(default_factory=dict[str, str])


class _Granted(BaseModel):
    access_token: SecretStr
    refresh_token: SecretStr | None = None
    expires_in: int | None = Field(None, ge=0, le=10**9)
    refresh_token_expires_in: int | None = Field(None, ge=0, le=10**9)
    scope: str | None = None


class OAuthClient:
    """The authorization and token endpoints of one provider."""

    def __init__(
        self, app: OAuthApp, client: ProviderClient, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.app = app
        self._client = client
        self._clock = clock

    def authorization_url(self, started: Started) -> str:
        """Return where to send the person."""
        app = self.app
        query = {
            "response_type": "code",
            "client_id": app.client_id,
            "redirect_uri": app.redirect_uri,
            "scope": app.separator.join(app.scopes),
            "state": started.state,
            **app.parameters,
        }
        if app.pkce:
            query["code_challenge"] = started.code_challenge
            query["code_challenge_method"] = started.code_challenge_method
        return f"{app.authorize_url}?{urlencode(query, quote_via=quote)}"

    async def exchange(self, code: str, verifier: str) -> Tokens:
        """Return what `code` buys; it is never presented twice.

        Raises `CredentialRefused` when it buys nothing, `ConfigurationError` when the provider
        does not know us, `ProviderUnavailable` or `RateLimited`.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.app.redirect_uri,
        }
        if self.app.pkce:
            form["code_verifier"] = verifier
        return await self._ask("exchange", form)

    async def refresh(self, refresh_token: SecretStr) -> Tokens:
        """Return new tokens; the old ones may be worth nothing from then on.

        The refresh token is the old one where the provider gives no other. Raises as `exchange`.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token.get_secret_value()}
        if self.app.redirect_in_refresh:
            form["redirect_uri"] = self.app.redirect_uri
        tokens = await self._ask("refresh", form)
        if tokens.refresh_token is not None:
            return tokens
        return Tokens(
            tokens.access_token,
            refresh_token,
            tokens.expires_at,
            tokens.refresh_expires_at,
            tokens.scopes,
        )

    async def _ask(self, operation: str, form: dict[str, str]) -> Tokens:
        app = self.app
        answer = await self._client.request(
            operation,
            "POST",
            app.token_url,
            headers={"Accept": "application/json"},
            data={
                "client_id": app.client_id,
                "client_secret": app.client_secret.get_secret_value(),
                **form,
            },
            repeatable=False,
            resource="oauth",
            accept=_REFUSALS,
        )
        body = _body(answer)
        if error := str(body.get("error") or "") or _listed(body):
            raise self._refused(error)
        if not answer.ok:
            raise self._refused(f"HTTP {answer.status}")
        try:
            granted = _Granted.model_validate(body)
        except ValidationError:
            raise ProviderUnavailable(
                f"{self._client.provider} gave no token", service=self._client.provider
            ) from None
        return self._tokens(granted)

    def _tokens(self, granted: _Granted) -> Tokens:
        for token in (granted.access_token, granted.refresh_token):
            if token is not None and not _TOKEN.fullmatch(token.get_secret_value()):
                raise ProviderUnavailable(
                    f"{self._client.provider} gave something that cannot be a token",
                    service=self._client.provider,
                )
        scopes = re.split(r"[,\s]+", granted.scope.strip()) if granted.scope else []
        return Tokens(
            granted.access_token,
            granted.refresh_token,
            self._in(granted.expires_in),
            self._in(granted.refresh_token_expires_in),
            tuple(scope for scope in scopes if scope),
        )

    def _in(self, seconds: int | None) -> datetime | None:
        return None if not seconds else self._clock.now() + timedelta(seconds=seconds)

    def _refused(self, error: str) -> CredentialRefused | ConfigurationError:
        name = self._client.provider
        # The provider's own code is one word; anything else of it is not passed on.
        word = error if re.fullmatch(r"[\w .-]{1,60}", error) else "something unreadable"
        if error in _OURS:
            return ConfigurationError(
                f"{name} refuses us: {word}",
                hint=f"check the client id, the secret and the callback address set for {name}",
            )
        return CredentialRefused(f"{name} gives no token: {word}", service=name, error=word)


def _listed(body: dict[str, Any]) -> str:
    """Return the first of Strava's `errors`, as one word where it is about our application."""
    try:
        first = body["errors"][0]
        resource, code = str(first["resource"]), str(first["code"])
    except (KeyError, IndexError, TypeError):
        return ""
    return "invalid_client" if resource == "Application" else f"{resource} {code}"


def _body(answer: Response) -> dict[str, Any]:
    """Return the members of an answer, JSON or a form, as older providers write it."""
    if "form-urlencoded" in answer.headers.get("content-type", ""):
        return dict(parse_qsl(answer.body.decode("utf-8", "replace")))
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ProviderUnavailable(
            f"{answer.service} answered {answer.status} with something that is no token",
            service=answer.service,
        )
    return body  # pyright: ignore[reportUnknownVariableType]
