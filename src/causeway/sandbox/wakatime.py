"""A stand-in for WakaTime: OAuth pages (`/wakatime/oauth`) and the API (`/wakatime/api/v1`).

A person is known by an API key (HTTP Basic) or a bearer token. Tokens come as a form unless JSON is
asked for. Each person has so many requests in five minutes; beyond, 429 or 302, as documented.
Days before an account's history are left out of the summaries.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import uuid
from collections import deque
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from causeway.sandbox.grants import Pair
from causeway.sandbox.world import Refused, World, route

_WINDOW_S = 300.0
_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in WakaTime's words; it names no time to wait."""
    if status == 429:
        return JSONResponse({"error": "Too many requests."}, 429)
    return JSONResponse(
        {"error": _TITLES.get(status, "Service unavailable, try again later.")}, status
    )


class WakaTime:
    """The `/wakatime` paths."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._grants = world.grants["wakatime"]

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/wakatime/oauth/authorize", self._authorize, "GET")
        route(app, "/wakatime/oauth/token", self._token, "POST")
        route(app, "/wakatime/oauth/revoke", self._revoke, "POST")
        route(app, "/wakatime/api/v1/users/current", self._user, "GET")
        route(app, "/wakatime/api/v1/users/current/summaries", self._summaries, "GET")

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        settings = self._world.settings
        redirect = query.get("redirect_uri", "")
        good = (
            query.get("client_id") == settings.wakatime_client_id
            and query.get("response_type") == "code"
            and urlsplit(redirect).scheme in ("http", "https")
        )
        if not good:
            return Response("<h1>400 Error</h1>", 400, media_type="text/html")
        back = {"state": query["state"]} if "state" in query else {}
        if settings.wakatime_decision == "deny":
            back["error"] = "access_denied"
        else:
            scope = query.get("scope", "").replace(" ", ",")
            back["code"] = self._grants.code(
                settings.wakatime_username, scope, redirect, None, self._world.now()
            )
        joint = "&" if urlsplit(redirect).query else "?"
        return RedirectResponse(redirect + joint + urlencode(back), 302)

    async def _token(self, request: Request) -> Response:
        form = await _form(request)
        if not self._is_client(form):
            return JSONResponse({"error": "invalid_client"}, 400)
        if form.get("grant_type") == "refresh_token":
            old = self._grants.refresh(form.get("refresh_token", ""))
            if old is None or old.who in self._world.settings.wakatime_revoked:
                return JSONResponse({"error": "invalid_grant"}, 400)
            if not form.get("redirect_uri"):
                return JSONResponse({"error": "invalid_request"}, 400)
            who, scope = old.who, old.scope
        else:
            grant = self._grants.redeem(form.get("code", ""), None, self._world.now())
            if grant is None or form.get("redirect_uri") != grant.redirect_uri:
                return JSONResponse({"error": "invalid_grant"}, 400)
            who, scope = grant.who, grant.scope
        lifetime_s = self._world.settings.wakatime_token_lifetime_s
        access, refresh = (f"waka_{kind}_{secrets.token_urlsafe(48)}" for kind in ("tok", "ref"))
        self._grants.issue(Pair(who, scope, access, refresh, self._world.now() + lifetime_s))
        answer = {
            "access_token": access,
            "refresh_token": refresh,
            "uid": _uid(who),
            "token_type": "bearer",
            "expires_in": int(lifetime_s),
            "scope": scope,
        }
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(answer)
        return Response(urlencode(answer), media_type="application/x-www-form-urlencoded")

    async def _revoke(self, request: Request) -> Response:
        form = await _form(request)
        if not self._is_client(form):
            return JSONResponse({"error": "invalid_client"}, 400)
        self._grants.revoke(form.get("token", ""))
        return JSONResponse({})

    async def _user(self, request: Request) -> Response:
        who = self._who(request)
        return JSONResponse({"data": {"id": _uid(who), "username": who, "display_name": who}})

    async def _summaries(self, request: Request) -> Response:
        who = self._who(request)
        query = request.query_params
        try:
            first, last = (date.fromisoformat(query[name]) for name in ("start", "end"))
        except (KeyError, ValueError):
            return JSONResponse({"error": "start and end dates are required."}, 400)
        if last < first:
            return JSONResponse({"error": "Start date must be before end date."}, 400)
        fault = self._world.work_fault(request, "wakatime")
        settings = self._world.settings
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        if settings.wakatime_history_days is not None:
            oldest = self._world.clock.now().date() - timedelta(days=settings.wakatime_history_days)
            days = [day for day in days if day >= oldest]
        if fault is not None:
            days = days[::2]
        seconds = settings.wakatime_seconds.get(who, {})
        zone = query.get("timezone", "UTC")
        data = [_day(day, seconds.get(day, 0.0), zone) for day in days]
        total = sum(seconds.get(day, 0.0) for day in days)
        body: dict[str, Any] = {
            "data": data,
            "start": f"{first}T00:00:00Z",
            "end": f"{last}T23:59:59Z",
            "cumulative_total": {"seconds": total} | _text(total),
            "daily_average": {"seconds": total / len(days) if days else 0},
        }
        return JSONResponse(body)

    def _is_client(self, form: dict[str, str]) -> bool:
        settings = self._world.settings
        secret = form.get("client_secret", "").encode()
        return form.get("client_id") == settings.wakatime_client_id and hmac.compare_digest(
            secret, settings.wakatime_client_secret.encode()
        )

    def _who(self, request: Request) -> str:
        """Return who asks; refuse who is nobody, and who has asked too much."""
        settings = self._world.settings
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        who: str | None = None
        if scheme == "Basic":
            try:
                key = base64.b64decode(given, validate=True).decode()
            except (binascii.Error, ValueError):
                key = ""
            who = settings.wakatime_keys.get(key.removesuffix(":"))
        elif scheme == "Bearer":
            pair = self._grants.holder(given, self._world.now())
            who = pair.who if pair else None
        if who is None or who in settings.wakatime_revoked:
            raise Refused(refusal(401))
        now = self._world.now()
        asked = self._world.limits.wakatime.setdefault(who, deque())
        while asked and asked[0] <= now - _WINDOW_S:
            asked.popleft()
        if len(asked) >= settings.wakatime_per_5_minutes:
            if settings.wakatime_limit_status == 302:
                location = {"Location": "https://wakatime.com/timeout"}
                raise Refused(Response(status_code=302, headers=location))
            raise Refused(refusal(429))
        asked.append(now)
        return who


def _uid(who: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{who}.wakatime.sandbox"))


def _day(day: date, seconds: float, zone: str) -> dict[str, Any]:
    return {
        "grand_total": {"total_seconds": seconds, **_text(seconds)},
        "categories": [],
        "projects": [],
        "languages": [],
        "editors": [],
        "operating_systems": [],
        "range": {
            "date": day.isoformat(),
            "start": f"{day}T00:00:00Z",
            "end": f"{day}T23:59:59Z",
            "text": day.strftime("%a %b %d %Y"),
            "timezone": zone,
        },
    }


def _text(seconds: float) -> dict[str, Any]:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return {
        "text": f"{hours} hrs {minutes} mins",
        "digital": f"{hours}:{minutes:02}",
        "decimal": f"{seconds / 3600:.2f}",
    }


async def _form(request: Request) -> dict[str, str]:
    body = await request.body()
    if "json" in request.headers.get("content-type", ""):
        try:
            return {str(k): str(v) for k, v in orjson.loads(body).items()}
        except (orjson.JSONDecodeError, AttributeError):
            return {}
    return dict(parse_qsl(body.decode(errors="replace")))
