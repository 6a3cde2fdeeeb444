"""A stand-in for X: the authorization page (`/x/i/oauth2`), the token endpoint, `users/me`.

OAuth 2.0 with PKCE for a confidential client, in X's words. The page asks nobody: it sends the
browser back at once, with a code or, when `x_decision` is `deny`, with `access_denied`. A code is
good once and for 30 seconds, as X's are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from causeway.sandbox.world import World, route

CODE_LIFETIME_S = 30.0
TOKEN_LIFETIME_S = 7200
_SCOPES = {"tweet.read", "users.read", "offline.access", "tweet.write"}
_TITLES = {401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}
_PAGE = "<!DOCTYPE html><html><body><h1>Something went wrong</h1><p>%s</p></body></html>"


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in X's words."""
    title = _TITLES.get(status, "Service Unavailable")
    headers = {"x-rate-limit-remaining": "0"} if status == 429 else {}
    if status == 429:
        headers["Retry-After"] = str(max(1, round(seconds)))
    body = {"title": title, "type": "about:blank", "status": status, "detail": title}
    return JSONResponse(body, status, headers)


@dataclass(frozen=True)
class _Grant:
    redirect_uri: str
    challenge: str
    scope: str
    username: str
    expires_at: float


class X:
    """The `/x` paths."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._codes: dict[str, _Grant] = {}
        self._tokens: dict[str, _Grant] = {}

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/x/i/oauth2/authorize", self._authorize, "GET")
        route(app, "/x/2/oauth2/token", self._token, "POST")
        route(app, "/x/2/users/me", self._me, "GET")

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        wrong = self._wrong(dict(query))
        if wrong is not None:
            # Never sent back: the address to send to may be the forged part.
            return Response(_PAGE % wrong, 400, media_type="text/html")
        back = {"state": query["state"]}
        if self._world.settings.x_decision == "deny":
            back["error"] = "access_denied"
        else:
            back["code"] = secrets.token_urlsafe(48)
            self._codes[back["code"]] = _Grant(
                query["redirect_uri"],
                query["code_challenge"],
                query["scope"],
                self._world.settings.x_username,
                self._world.now() + CODE_LIFETIME_S,
            )
        joint = "&" if urlsplit(query["redirect_uri"]).query else "?"
        return RedirectResponse(query["redirect_uri"] + joint + urlencode(back), 302)

    def _wrong(self, query: dict[str, str]) -> str | None:
        """Return the first parameter that is not as X wants it."""
        scopes = query.get("scope", "").split(" ")
        good = {
            "response_type": query.get("response_type") == "code",
            "client_id": query.get("client_id") == self._world.settings.x_client_id,
            "redirect_uri": urlsplit(query.get("redirect_uri", "")).scheme in ("http", "https"),
            "scope": "users.read" in scopes and _SCOPES.issuperset(scopes),
            "state": bool(query.get("state")),
            "code_challenge_method": query.get("code_challenge_method") == "S256",
            "code_challenge": len(query.get("code_challenge", "")) == 43,
        }
        return next((name for name, fine in good.items() if not fine), None)

    async def _token(self, request: Request) -> Response:
        if request.headers.get("content-type", "") != "application/x-www-form-urlencoded":
            return _token_error(400, "invalid_request", "Content-Type must be a form")
        if not self._client_authenticated(request):
            return _token_error(401, "unauthorized_client", "Missing valid authorization header")
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if form.get("grant_type") != "authorization_code":
            return _token_error(400, "unsupported_grant_type", "Only authorization_code")
        grant = self._codes.pop(form.get("code", ""), None)
        if grant is None or grant.expires_at < self._world.now():
            said = "Value passed for the authorization code was invalid."
            return _token_error(400, "invalid_request", said)
        if form.get("redirect_uri") != grant.redirect_uri:
            said = "Value passed for the redirect uri did not match the uri of the code."
            return _token_error(400, "invalid_request", said)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != grant.challenge:
            said = "Value passed for the code verifier did not match the code challenge."
            return _token_error(400, "invalid_request", said)
        token = secrets.token_urlsafe(60)
        self._tokens[token] = grant
        return JSONResponse(
            {
                "token_type": "bearer",
                "expires_in": TOKEN_LIFETIME_S,
                "access_token": token,
                "scope": grant.scope,
            }
        )

    def _client_authenticated(self, request: Request) -> bool:
        settings = self._world.settings
        pair = base64.b64encode(f"{settings.x_client_id}:{settings.x_client_secret}".encode())
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, b"Basic " + pair)

    async def _me(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self._tokens.get(token)
        if scheme != "Bearer" or grant is None:
            return refusal(401)
        number = int.from_bytes(hashlib.sha256(grant.username.encode()).digest()[:7], "big")
        return JSONResponse(
            {"data": {"id": str(number), "name": grant.username, "username": grant.username}}
        )


def _token_error(status: int, error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status)
