"""A stand-in for Strava: OAuth pages (`/strava/oauth`) and the API (`/strava/api/v3`).

Every request of the application counts in a quarter of an hour and a day of UTC, refused ones too;
those that are no uploads count once more. The headers of every answer say so. Errors are a message
and a list of resource, field and code.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from causeway.sandbox.grants import Pair
from causeway.sandbox.strava_activities import Activities, athlete_id, athlete_json
from causeway.sandbox.strava_events import Events
from causeway.sandbox.world import World, route

#: Seconds left from which a refresh gives another access token.
_RENEWED_S = 3600.0
_PER_PAGE_MOST = 200
_UPDATABLE = {
    "name",
    "description",
    "sport_type",
    "commute",
    "trainer",
    "hide_from_home",
    "gear_id",
}

Handler = Callable[[Request, Pair], Awaitable[Response]]


def fault(status: int, message: str, resource: str, field: str, code: str) -> Response:
    """Return an error in Strava's form."""
    errors = [{"resource": resource, "field": field, "code": code}]
    return JSONResponse({"message": message, "errors": errors}, status)


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in Strava's words; it names no time to wait."""
    match status:
        case 429:
            return fault(429, "Rate Limit Exceeded", "Application", "rate limit", "exceeded")
        case 401:
            return fault(401, "Authorization Error", "Athlete", "access_token", "invalid")
        case 404:
            return fault(404, "Record Not Found", "resource", "path", "invalid")
        case _:
            return JSONResponse({"message": "error"}, status)


class Strava:
    """The `/strava` paths."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._grants = world.grants["strava"]
        self.events = Events(world)
        self.activities = Activities(world, self.events)

    async def close(self) -> None:
        """Stop delivering events."""
        await self.events.close()

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        for page in ("/strava/oauth/authorize", "/strava/oauth/mobile/authorize"):
            route(app, page, self._authorize, "GET")
        route(app, "/strava/oauth/token", self._token, "POST")
        route(app, "/strava/oauth/revoke", self._revoke, "POST")
        api = "/strava/api/v3"
        route(app, f"{api}/athlete", self._counted(self._athlete), "GET")
        reads = ("activity:read", "activity:read_all")
        for path, handler in (
            ("/athlete/activities", self._list),
            ("/activities/{id}", self._activity),
            ("/activities/{id}/streams", self._streams),
        ):
            route(app, f"{api}{path}", self._counted(handler, *reads), "GET")
        update = self._counted(self._update, "activity:write")
        route(app, f"{api}/activities/{{id}}", update, "PUT")
        upload = self._counted(self._upload, "activity:write", is_read=False)
        route(app, f"{api}/uploads", upload, "POST")
        state = self._counted(self._upload_state, "activity:write")
        route(app, f"{api}/uploads/{{id}}", state, "GET")
        # What athletes do on Strava's own pages.
        route(app, "/control/strava/activities/{id}", self._deleted, "DELETE")
        route(app, "/control/strava/athletes/{who}", self._left, "DELETE")
        route(app, "/control/strava/events", self._told, "POST")
        route(app, f"{api}/push_subscriptions", self._subscribe, "POST")
        route(app, f"{api}/push_subscriptions", self._subscriptions, "GET")
        route(app, f"{api}/push_subscriptions/{{id}}", self._unsubscribe, "DELETE")

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        settings = self._world.settings
        redirect = query.get("redirect_uri", "")
        if query.get("client_id") != settings.strava_client_id:
            return fault(400, "Bad Request", "Application", "client_id", "invalid")
        if urlsplit(redirect).scheme not in ("http", "https"):
            return fault(400, "Bad Request", "Application", "redirect_uri", "invalid")
        if query.get("response_type") != "code":
            return fault(400, "Bad Request", "Authorize", "response_type", "invalid")
        back = {"state": query.get("state", "")}
        if settings.strava_decision == "deny":
            back["error"] = "access_denied"
        else:
            # `read` cannot be unticked.
            asked = ["read", *query.get("scope", "").split(",")]
            granted = [s for s in dict.fromkeys(asked) if s and s not in settings.strava_unticked]
            scope = ",".join(granted)
            back["code"] = self._grants.code(
                settings.strava_athlete, scope, redirect, None, self._world.now()
            )
            back["scope"] = scope
        joint = "&" if urlsplit(redirect).query else "?"
        return RedirectResponse(redirect + joint + urlencode(back), 302)

    async def _token(self, request: Request) -> Response:
        form = await _form(request)
        if not self._is_client(form.get("client_id", ""), form.get("client_secret", "")):
            return fault(401, "Authorization Error", "Application", "", "invalid")
        now = self._world.now()
        kind = form.get("grant_type")
        athlete: dict[str, Any] = {}
        if kind == "authorization_code":
            grant = self._grants.redeem(form.get("code", ""), None, now)
            if grant is None:
                return fault(400, "Bad Request", "AuthorizationCode", "code", "invalid")
            pair = self._issue(grant.who, grant.scope, now)
            athlete = {"athlete": athlete_json(grant.who)}
        elif kind == "refresh_token":
            token = form.get("refresh_token", "")
            held = next((p for p in self._grants.live() if p.refresh == token), None)
            if held is not None and held.who in self._world.settings.strava_revoked:
                held = None
            if held is None:
                self._grants.refresh("")  # counts as wasted
                return fault(400, "Bad Request", "RefreshToken", "refresh_token", "invalid")
            if held.expires_at is not None and held.expires_at - now > _RENEWED_S:
                pair = held
            else:
                self._grants.refresh(token)
                pair = self._issue(held.who, held.scope, now)
        else:
            return fault(400, "Bad Request", "Application", "grant_type", "invalid")
        expires_at = pair.expires_at or now
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_at": int(expires_at),
                "expires_in": int(expires_at - now),
                "refresh_token": pair.refresh,
                "access_token": pair.access,
                **athlete,
            }
        )

    def _issue(self, who: str, scope: str, now: float) -> Pair:
        lifetime_s = self._world.settings.strava_token_lifetime_s
        access, refresh = secrets.token_hex(20), secrets.token_hex(20)
        return self._grants.issue(Pair(who, scope, access, refresh, now + lifetime_s))

    async def _revoke(self, request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            pair = base64.b64decode(given, validate=True).decode() if scheme == "Basic" else ""
        except (binascii.Error, ValueError):
            pair = ""
        client, _, secret = pair.partition(":")
        if not self._is_client(client, secret):
            answer = fault(401, "Authorization Error", "Application", "", "invalid")
            answer.headers["WWW-Authenticate"] = "Basic"
            return answer
        token = (await _form(request)).get("token", "")
        held = next((p for p in self._grants.live() if token in (p.access, p.refresh)), None)
        if held is not None:
            self.deauthorize(held.who)
        # RFC 7009: a token that is worth nothing is no error.
        return JSONResponse({})

    def deauthorize(self, who: str) -> None:
        """End everything an athlete allowed, and tell of it."""
        for pair in self._grants.live():
            if pair.who == who:
                self._grants.revoke(pair.access)
        number = athlete_id(who)
        self.events.send(
            object_type="athlete",
            object_id=number,
            aspect_type="update",
            owner_id=number,
            updates={"authorized": "false"},
        )

    async def _athlete(self, _: Request, pair: Pair) -> Response:
        return JSONResponse(athlete_json(pair.who))

    async def _list(self, request: Request, pair: Pair) -> Response:
        query = request.query_params
        try:
            page, per_page = int(query.get("page", "1")), int(query.get("per_page", "30"))
            before = int(query["before"]) if "before" in query else None
            after = int(query["after"]) if "after" in query else None
        except ValueError:
            return fault(400, "Bad Request", "Application", "page", "invalid")
        if not 1 <= per_page <= _PER_PAGE_MOST or page < 1:
            return fault(400, "Bad Request", "Application", "per_page", "limit exceeded")
        found = self.activities.listed(
            pair.who, before, after, with_private=_sees_private(pair.scope)
        )
        return JSONResponse(found[(page - 1) * per_page : page * per_page])

    async def _activity(self, request: Request, pair: Pair) -> Response:
        found = self.activities.find(pair.who, request.path_params["id"])
        if found is None or (found["private"] and not _sees_private(pair.scope)):
            return _no_activity()
        return JSONResponse(self.activities.detailed(found))

    async def _streams(self, request: Request, pair: Pair) -> Response:
        found = self.activities.find(pair.who, request.path_params["id"])
        if found is None or (found["private"] and not _sees_private(pair.scope)):
            return _no_activity()
        series = found.get("streams")
        if not series:
            return _no_activity()
        asked = [key for key in request.query_params.get("keys", "").split(",") if key]
        if not asked:
            return fault(400, "Bad Request", "Stream", "keys", "missing")
        # The distance is always among them.
        wanted = [key for key in series if key in asked or key == "distance"]
        streams = {
            key: {
                "data": series[key],
                "series_type": "distance",
                "original_size": len(series[key]),
                "resolution": "high",
            }
            for key in wanted
        }
        if request.query_params.get("key_by_type") == "true":
            return JSONResponse(streams)
        return JSONResponse([{"type": key, **stream} for key, stream in streams.items()])

    async def _update(self, request: Request, pair: Pair) -> Response:
        found = self.activities.find(pair.who, request.path_params["id"])
        if found is None:
            return _no_activity()
        changes = {k: v for k, v in (await _form(request)).items() if k in _UPDATABLE}
        return JSONResponse(self.activities.detailed(self.activities.change(found, changes)))

    async def _upload(self, request: Request, pair: Pair) -> Response:
        async with request.form() as form:
            file = form.get("file")
            if file is None or isinstance(file, str):
                return fault(400, "Bad Request", "Upload", "file", "missing")
            words = {k: v for k, v in form.items() if isinstance(v, str)}
            content, name = await file.read(), file.filename or ""
        answer = self.activities.upload(pair.who, content, name, words)
        if answer is None:
            return fault(400, "Bad Request", "Upload", "data_type", "invalid")
        return JSONResponse(answer, 201)

    async def _upload_state(self, request: Request, pair: Pair) -> Response:
        state = self.activities.upload_state(pair.who, request.path_params["id"])
        if state is None:
            return fault(404, "Record Not Found", "Upload", "id", "not found")
        return JSONResponse(state)

    async def _deleted(self, request: Request) -> Response:
        number = request.path_params["id"]
        there = number.isdigit() and self.activities.delete(int(number))
        return Response(status_code=204 if there else 404)

    async def _left(self, request: Request) -> Response:
        self.deauthorize(request.path_params["who"])
        return Response(status_code=204)

    async def _told(self, request: Request) -> Response:
        """Deliver any event, `times` times over, also one that never happened."""
        event = await _form(request)
        times = event.pop("times", 1)
        if not isinstance(times, int) or not 1 <= times <= 100:
            return JSONResponse({"detail": "times is 1..100"}, 422)
        self.events.send(times, **event)
        return Response(status_code=202)

    async def _subscribe(self, request: Request) -> Response:
        form = await _form(request)
        return self._of_the_application(form) or await self.events.create(form)

    async def _subscriptions(self, request: Request) -> Response:
        return self._of_the_application(dict(request.query_params)) or self.events.show()

    async def _unsubscribe(self, request: Request) -> Response:
        form = {**request.query_params, **await _form(request)}
        refused = self._of_the_application(form)
        return refused or self.events.delete(request) or refusal(404)

    def _of_the_application(self, form: dict[str, str]) -> Response | None:
        """Refuse who is not the application, and it when it has asked too much."""
        if not self._is_client(form.get("client_id", ""), form.get("client_secret", "")):
            return fault(401, "Authorization Error", "Application", "", "invalid")
        headers, full = self._count(is_read=True)
        if not full:
            return None
        answer = refusal(429)
        answer.headers.update(headers)
        return answer

    def _counted(
        self, handler: Handler, *scopes: str, is_read: bool = True
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint for who has one of `scopes` (any, without), counted."""

        async def endpoint(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            pair = self._grants.holder(given, self._world.now()) if scheme == "Bearer" else None
            if pair is None or pair.who in self._world.settings.strava_revoked:
                return refusal(401)
            headers, full = self._count(is_read=is_read)
            if full:
                answer = refusal(429)
            elif scopes and not set(scopes) & set(pair.scope.split(",")):
                field = f"{scopes[0]}_permission"
                answer = fault(401, "Authorization Error", "AccessToken", field, "missing")
            else:
                self.activities.work()
                answer = await handler(request, pair)
            answer.headers.update(headers)
            return answer

        return endpoint

    def _count(self, *, is_read: bool) -> tuple[dict[str, str], bool]:
        """Count a request; return the headers, and whether it is one too many."""
        settings, now = self._world.settings, int(self._world.now())
        full = False
        headers: dict[str, str] = {}
        meters = (
            ("overall", "X-RateLimit", settings.strava_limit),
            ("read", "X-ReadRateLimit", settings.strava_read_limit),
        )
        for meter, header, limit in meters:
            usage: list[int] = []
            for seconds, most in zip((900, 86_400), limit, strict=True):
                key = (meter, seconds, now - now % seconds)
                counts = self._world.limits.strava
                if meter == "overall" or is_read:
                    counts[key] = counts.get(key, 0) + 1
                    full = full or counts[key] > most
                usage.append(counts.get(key, 0))
            headers[f"{header}-Limit"] = ",".join(map(str, limit))
            headers[f"{header}-Usage"] = ",".join(map(str, usage))
        return headers, full

    def _is_client(self, client_id: str, secret: str) -> bool:
        settings = self._world.settings
        return client_id == settings.strava_client_id and hmac.compare_digest(
            secret.encode(), settings.strava_client_secret.encode()
        )


def _sees_private(scope: str) -> bool:
    return "activity:read_all" in scope.split(",")


def _no_activity() -> Response:
    return fault(404, "Record Not Found", "Activity", "id", "not found")


async def _form(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "")
    if "multipart" in kind:
        async with request.form() as form:
            return {k: v for k, v in form.items() if isinstance(v, str)}
    body = await request.body()
    if "json" in kind:
        try:
            return dict(orjson.loads(body))
        except (orjson.JSONDecodeError, TypeError, ValueError):
            return {}
    return dict(parse_qsl(body.decode(errors="replace")))
