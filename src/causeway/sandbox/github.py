"""A stand-in for GitHub: the authorization page and tokens (`/github`), the API (`/github-api`).

The page asks nobody and sends the browser back at once. Errors of the token endpoint come with
200, as GitHub's do. Each person may make so many requests an hour of REST and of GraphQL; used up,
REST answers 403 and GraphQL 200 with `errors`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from causeway.sandbox.grants import Pair
from causeway.sandbox.world import Refused, World, route

_DOCS = "https://docs.github.com/rest"
REFRESH_LIFETIME_S = 15_897_600
_MESSAGES = {401: "Bad credentials", 403: "Forbidden", 404: "Not Found", 405: "Not Found"}


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in GitHub's words; 429 and 403 are the secondary limit."""
    headers = {"X-GitHub-Media-Type": "github.v3; format=json"}
    message = _MESSAGES.get(status, "Server Error")
    if status == 429:
        headers["Retry-After"] = str(max(1, round(seconds)))
        message = (
            "You have exceeded a secondary rate limit. "
            "Please wait a few minutes before you try again."
        )
    body = {"message": message, "documentation_url": _DOCS, "status": str(status)}
    return JSONResponse(body, status, headers)


def account_id(login: str) -> int:
    """Return the number of an account, the same for ever."""
    return int.from_bytes(hashlib.sha256(login.encode()).digest()[:4], "big") >> 4


def node_id(number: int) -> str:
    """Return the id of an account in GraphQL."""
    return "U_" + base64.urlsafe_b64encode(number.to_bytes(8, "big")).rstrip(b"=").decode()


class GitHub:
    """The `/github` and `/github-api` paths."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._grants = world.grants["github"]

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/github/login/oauth/authorize", self._authorize, "GET")
        route(app, "/github/login/oauth/access_token", self._token, "POST")
        route(app, "/github-api/user", self._user, "GET")
        route(app, "/github-api/graphql", self._graphql, "POST")
        route(app, "/github-api/applications/{client_id}/token", self._delete_token, "DELETE")

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        settings = self._world.settings
        redirect = query.get("redirect_uri", "")
        challenge = query.get("code_challenge")
        if query.get("client_id") != settings.github_client_id:
            return Response("<h1>404</h1>", 404, media_type="text/html")
        if urlsplit(redirect).scheme not in ("http", "https"):
            return Response("<h1>Be careful!</h1>", 400, media_type="text/html")
        if challenge is not None and query.get("code_challenge_method") != "S256":
            return Response("<h1>code_challenge_method</h1>", 400, media_type="text/html")
        back = {"state": query["state"]} if "state" in query else {}
        if settings.github_decision == "deny":
            back |= {
                "error": "access_denied",
                "error_description": "The user has denied your application access.",
                "error_uri": "https://docs.github.com/apps/oauth-apps",
            }
        else:
            scope = query.get("scope", "").replace(" ", ",")
            back["code"] = self._grants.code(
                settings.github_login, scope, redirect, challenge, self._world.now()
            )
        joint = "&" if urlsplit(redirect).query else "?"
        return RedirectResponse(redirect + joint + urlencode(back), 302)

    async def _token(self, request: Request) -> Response:
        form = dict(request.query_params) | dict(
            parse_qsl((await request.body()).decode(errors="replace"))
        )
        answer = self._grant(form)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(answer)
        return Response(urlencode(answer), media_type="application/x-www-form-urlencoded")

    def _grant(self, form: dict[str, str]) -> dict[str, str | int]:
        settings = self._world.settings
        known = form.get("client_id") == settings.github_client_id and hmac.compare_digest(
            form.get("client_secret", "").encode(), settings.github_client_secret.encode()
        )
        if not known:
            return _error(
                "incorrect_client_credentials",
                "The client_id and/or client_secret passed are incorrect.",
            )
        if form.get("grant_type") == "refresh_token":
            old = self._grants.refresh(form.get("refresh_token", ""))
            if old is None or old.who in settings.github_revoked:
                said = "The refresh token passed is incorrect or expired."
                return _error("bad_refresh_token", said)
            return self._issue(old.who, old.scope)
        now = self._world.now()
        grant = self._grants.redeem(form.get("code", ""), form.get("code_verifier"), now)
        if grant is None:
            return _error("bad_verification_code", "The code passed is incorrect or expired.")
        if form.get("redirect_uri", grant.redirect_uri) != grant.redirect_uri:
            return _error("redirect_uri_mismatch", "The redirect_uri MUST match the registered one")
        return self._issue(grant.who, grant.scope)

    def _issue(self, who: str, scope: str) -> dict[str, str | int]:
        settings = self._world.settings
        if not settings.github_tokens_expire:
            pair = Pair(who, scope, f"gho_{secrets.token_hex(18)}", None, None)
            self._grants.issue(pair)
            return {"access_token": pair.access, "token_type": "bearer", "scope": scope}
        lifetime_s = settings.github_token_lifetime_s
        access, refresh = f"ghu_{secrets.token_hex(18)}", f"ghr_{secrets.token_hex(38)}"
        self._grants.issue(Pair(who, "", access, refresh, self._world.now() + lifetime_s))
        return {
            "access_token": access,
            "expires_in": int(lifetime_s),
            "refresh_token": refresh,
            "refresh_token_expires_in": REFRESH_LIFETIME_S,
            "token_type": "bearer",
            "scope": "",
        }

    async def _user(self, request: Request) -> Response:
        login = self._who(request)
        number = account_id(login)
        body = {
            "login": login,
            "id": number,
            "node_id": node_id(number),
            "type": "User",
            "name": login.title(),
            "email": None,
        }
        etag = f'W/"{hashlib.sha256(orjson.dumps(body)).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "private, max-age=60, s-maxage=60"}
        if request.headers.get("if-none-match") == etag:
            # Not counted, as documented.
            return Response(status_code=304, headers=headers | self._headers(login, "core"))
        self._count(login, "core")
        return JSONResponse(body, headers=headers | self._headers(login, "core"))

    async def _graphql(self, request: Request) -> Response:
        # The engine takes a quarter of a second to load, which not every sandbox needs.
        from causeway.sandbox import github_graphql

        login = self._who(request)
        fault = self._world.work_fault(request, "github")
        used, _ = self._spent(login, "graphql")
        if used >= self._world.settings.github_per_hour:
            said = f"API rate limit exceeded for user ID {account_id(login)}."
            body = {"errors": [{"type": "RATE_LIMITED", "message": said}]}
            return JSONResponse(body, headers=self._headers(login, "graphql"))
        self._count(login, "graphql")
        if fault is not None and fault.kind == "graphql_error":
            said = "Something went wrong while executing your query."
            error = {"message": said} | ({"type": fault.error} if fault.error else {})
            return JSONResponse(
                {"data": None, "errors": [error]}, headers=self._headers(login, "graphql")
            )
        try:
            asked = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            body = {"message": "Problems parsing JSON", "documentation_url": _DOCS}
            return JSONResponse(body, 400)
        days = self._world.settings.github_contributions.get(login, {})
        number = account_id(login)
        person = github_graphql.Person(
            login, number, node_id(number), days, self._world.clock.now()
        )
        answer = github_graphql.answer(
            asked, person, every_other_day=fault is not None and fault.kind == "lost_days"
        )
        return JSONResponse(answer, headers=self._headers(login, "graphql"))

    async def _delete_token(self, request: Request, client_id: str) -> Response:
        settings = self._world.settings
        pair = f"{settings.github_client_id}:{settings.github_client_secret}".encode()
        wanted = b"Basic " + base64.b64encode(pair)
        given = request.headers.get("authorization", "").encode()
        if client_id != settings.github_client_id or not hmac.compare_digest(given, wanted):
            return refusal(401)
        try:
            token = str(orjson.loads(await request.body())["access_token"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return refusal(422)
        if not self._grants.revoke(token):
            return refusal(404)
        return Response(status_code=204)

    def _who(self, request: Request) -> str:
        """Return whose token is presented; refuse what is none, and who has asked too much."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        pair = self._grants.holder(token, self._world.now())
        settings = self._world.settings
        if scheme.lower() not in ("bearer", "token") or pair is None:
            raise Refused(refusal(401))
        if pair.who in settings.github_revoked:
            raise Refused(refusal(401))
        used, _ = self._spent(pair.who, "core")
        if request.url.path.endswith("/user") and used >= settings.github_per_hour:
            said = f"API rate limit exceeded for user ID {account_id(pair.who)}."
            body = {"message": said, "documentation_url": _DOCS, "status": "403"}
            raise Refused(JSONResponse(body, 403, self._headers(pair.who, "core")))
        return pair.who

    def _spent(self, login: str, resource: str) -> tuple[int, float]:
        used, ends_at = self._world.limits.github.get((login, resource), (0, 0.0))
        now = self._world.now()
        return (used, ends_at) if ends_at > now else (0, now + 3600)

    def _count(self, login: str, resource: str) -> None:
        used, ends_at = self._spent(login, resource)
        self._world.limits.github[login, resource] = (used + 1, ends_at)

    def _headers(self, login: str, resource: str) -> dict[str, str]:
        used, ends_at = self._spent(login, resource)
        limit = self._world.settings.github_per_hour
        return {
            "X-GitHub-Media-Type": "github.v3; format=json",
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - used)),
            "X-RateLimit-Used": str(used),
            "X-RateLimit-Reset": str(int(ends_at)),
            "X-RateLimit-Resource": resource,
        }


def _error(code: str, description: str) -> dict[str, str | int]:
    return {
        "error": code,
        "error_description": description,
        "error_uri": "https://docs.github.com/apps/troubleshooting",
    }
