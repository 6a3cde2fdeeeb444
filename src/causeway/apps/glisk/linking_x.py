"""Linking an author's X account: OAuth 2.0 with PKCE, asking for the name and nothing else.

The access token is used once, for the name, and never kept. Whatever goes wrong ends in one of
`CODES`, which the frontend knows; what the provider says is never passed on.
"""

from __future__ import annotations

import base64
import re
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

import structlog
from pydantic import BaseModel, SecretStr, ValidationError

from causeway.base.errors import NotAuthenticated, PermanentError, TransientError
from causeway.base.http import HttpClient, Response
from causeway.connections import oauth_state
from causeway.connections.oauth_state import Started
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)

Code = Literal[
    "access_denied",
    "missing_params",
    "state_mismatch",
    "token_exchange_failed",
    "validation_failed",
    "unexpected_error",
]
SCOPE = "tweet.read users.read"
#: The action under which states are kept.
ACTION = "glisk.x"

#: X allows 15 characters; some old names are longer.
_USERNAME = re.compile(r"[A-Za-z0-9_]{1,50}")

M = TypeVar("M", bound=BaseModel)


class XLinkFailed(PermanentError):
    """The X account could not be linked."""

    def __init__(self, code: Code, message: str | None = None) -> None:
        super().__init__(message or code)
        #: For the frontend.
        self.code: Code = code


class _Token(BaseModel):
    access_token: SecretStr


class _User(BaseModel):
    username: str


class _Me(BaseModel):
    data: _User


class XClient:
    """X's authorization page, token endpoint and `users/me`; `http` leads to https://api.x.com."""

    def __init__(
        self,
        http: HttpClient,
        *,
        client_id: str,
        client_secret: SecretStr,
        redirect_uri: str,
        authorize_url: str = "https://x.com/i/oauth2/authorize",
    ) -> None:
        self._http = http
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._authorize_url = authorize_url

    def authorization_url(self, started: Started) -> str:
        """Return where to send the person."""
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": SCOPE,
            "state": started.state,
            "code_challenge": started.code_challenge,
            "code_challenge_method": started.code_challenge_method,
        }
        return f"{self._authorize_url}?{urlencode(query, quote_via=quote)}"

    async def username(self, code: str, verifier: str) -> str:
        """Return the name of who gave us `code`.

        Raises `XLinkFailed`: `token_exchange_failed` when the code buys no token, for whatever
        reason, and `validation_failed` when the token does not lead to a name.
        """
        token = await self._token(code, verifier)
        bearer = {"Authorization": f"Bearer {token.get_secret_value()}"}
        try:
            answer = await self._http.request("GET", "/2/users/me", headers=bearer)
        except TransientError as error:
            raise _failed("validation_failed", error.message) from None
        name = _read(answer, _Me, "validation_failed").data.username
        if _USERNAME.fullmatch(name) is None:
            raise _failed("validation_failed", "X gave a name that is none")
        return name

    async def _token(self, code: str, verifier: str) -> SecretStr:
        pair = f"{self._client_id}:{self._client_secret.get_secret_value()}"
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        try:
            answer = await self._http.request("POST", "/2/oauth2/token", data=form, headers=basic)
        except TransientError as error:
            raise _failed("token_exchange_failed", error.message) from None
        return _read(answer, _Token, "token_exchange_failed").access_token


def _read(answer: Response, shape: type[M], failure: Code) -> M:
    if answer.status != 200:
        raise _failed(failure, f"X answered HTTP {answer.status}")
    try:
        return shape.model_validate_json(answer.body)
    except ValidationError:
        raise _failed(failure, "X answered in another shape") from None


def _failed(code: Code, why: str) -> XLinkFailed:
    _log.warning("x_link_failed", code=code, why=why)
    return XLinkFailed(code, why)


async def finish(
    database: Database, x: XClient, *, code: str | None, state: str | None, error: str | None
) -> tuple[str, str]:
    """Complete the callback; return the wallet the authorization was started for and its X name.

    The state is used up first, whatever follows: a callback is good once. Raises `XLinkFailed`.
    """
    if error is not None:
        if state:
            await _use_up(database, state)
        raise XLinkFailed("access_denied" if error == "access_denied" else "unexpected_error")
    if not code or not state:
        raise XLinkFailed("missing_params")
    try:
        kept = await oauth_state.consume(database, ACTION, state)
    except NotAuthenticated as unknown:
        raise XLinkFailed("state_mismatch", unknown.message) from None
    return kept.subject, await x.username(code, kept.verifier)


def profile_url(
    frontend_url: str, *, username: str | None = None, error: Code | None = None
) -> str:
    """Return where the callback sends the browser back to."""
    outcome = {"x_linked": "true" if error is None else "false"}
    if error is not None:
        outcome["error"] = error
    elif username is not None:
        outcome["username"] = username
    query = urlencode({"tab": "author", **outcome}, quote_via=quote)
    return f"{frontend_url.rstrip('/')}/profile?{query}"


async def _use_up(database: Database, state: str) -> None:
    try:
        await oauth_state.consume(database, ACTION, state)
    except NotAuthenticated:
        return
