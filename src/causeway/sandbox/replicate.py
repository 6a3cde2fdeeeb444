"""A stand-in for Replicate's HTTP API, version 1.

Models are those of `causeway.sandbox.models`; a prompt with the forbidden word is refused as the
content policy refuses, by a failed prediction. A version is 64 hex digits, see `Model.version`.
"""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.models import MODELS, Model, Problem, by_reference
from causeway.sandbox.prediction import progress, show
from causeway.sandbox.state import Prediction
from causeway.sandbox.webhooks import EVENTS, Webhooks
from causeway.sandbox.world import Refused, World, instant, route

_BILLING = (
    "You have insufficient credit to run this model. Go to "
    "https://replicate.com/account/billing#billing to purchase credit. Once you purchase credit, "
    "please wait a few minutes before trying again."
)
_LOW_CREDIT = (
    "Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of "
    "1 requests while you have less than $5.0 in credit. "
)
_REFUSALS = {
    400: ("Bad Request", "The request could not be read."),
    401: ("Unauthenticated", "You did not pass a valid authentication token"),
    402: ("Insufficient credit", _BILLING),
    403: ("Forbidden", "You do not have permission to perform this action."),
    404: ("Not Found", "The requested resource could not be found."),
    422: (
        "Invalid version or not permitted",
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
    ),
    500: ("Internal Server Error", "An unexpected error occurred."),
    502: ("Bad Gateway", "The upstream server sent an invalid answer."),
    503: ("Service Unavailable", "The service is temporarily unavailable."),
    504: ("Gateway Timeout", "The upstream server did not answer in time."),
}
_WAIT = re.compile(r"wait(?:=(\d{1,3}))?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in Replicate's words."""
    if status == 429:
        text = f"Request was throttled. Your rate limit resets in ~{max(1, round(seconds))}s."
        if seconds <= 1:
            text = "Request was throttled. Expected available in 1 second."
        return JSONResponse({"detail": text}, 429)
    title, detail = _REFUSALS.get(status, ("Error", "Something went wrong."))
    return JSONResponse({"title": title, "detail": detail, "status": status}, status)


class Replicate:
    """The `/replicate/v1` paths."""

    def __init__(self, world: World, webhooks: Webhooks) -> None:
        self._world = world
        self._webhooks = webhooks

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        api = "/replicate/v1"
        route(app, f"{api}/account", self._account, "GET")
        route(app, f"{api}/models/{{owner}}/{{name}}", self._model, "GET")
        route(app, f"{api}/models/{{owner}}/{{name}}/predictions", self._create_by_model, "POST")
        route(app, f"{api}/predictions", self._create_by_version, "POST")
        route(app, f"{api}/predictions", self._list, "GET")
        route(app, f"{api}/predictions/{{prediction_id}}", self._get, "GET")
        route(app, f"{api}/predictions/{{prediction_id}}/cancel", self._cancel, "POST")
        route(app, f"{api}/webhooks/default/secret", self._secret, "GET")

    async def _account(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"type": "user", "username": "sandbox", "name": "Sandbox"})

    async def _model(self, request: Request, owner: str, name: str) -> Response:
        self._admit(request)
        model = MODELS.get(f"{owner}/{name}")
        if model is None:
            return refusal(404)
        shown = {"url": f"{self._world.url}/{model.name}", "owner": owner, "name": name}
        return JSONResponse({**shown, "latest_version": {"id": model.version}})

    async def _create_by_model(self, request: Request, owner: str, name: str) -> Response:
        self._admit(request, creation=True)
        model = MODELS.get(f"{owner}/{name}")
        if model is None:
            return refusal(404)
        return await self._create(request, await _json(request), model, "hidden")

    async def _create_by_version(self, request: Request) -> Response:
        self._admit(request, creation=True)
        body = await _json(request)
        version = body.get("version")
        if not isinstance(version, str):
            raise Refused(_invalid([Problem("required", "", "version is required")]))
        model = by_reference(version)
        if model is None:
            return refusal(422)
        shown = model.version if model.version in version else "hidden"
        return await self._create(request, body, model, shown)

    async def _create(
        self, request: Request, body: dict[str, Any], model: Model, version: str
    ) -> Response:
        settings = self._world.settings
        sent = body.get("input")
        if not isinstance(sent, dict):
            raise Refused(_invalid([Problem("required", "", "input is required")]))
        given = cast(dict[str, Any], sent)
        problems = model.problems(given, refuse_unknown=settings.refuse_unknown_input)
        problems += _webhook_problems(body)
        if problems:
            raise Refused(_invalid(problems))
        wait_s = _wait_s(request.headers.get("prefer"))
        deadline_s = _deadline_s(request.headers.get("cancel-after"))
        prompt: str = given["prompt"]
        fault = self._world.work_fault(request, "replicate")
        outcome = fault.kind if fault else "ok"
        if fault is None and re.search(
            rf"\b{re.escape(settings.forbidden_word)}\b", prompt, re.IGNORECASE
        ):
            outcome = "nsfw"
        seed = given.get("seed")
        prediction = self._world.state.add_prediction(
            Prediction(
                id="".join(secrets.choice(_ID_LETTERS) for _ in range(26)),
                service="replicate",
                model=model.name,
                version=version,
                input=given,
                prompt=prompt,
                seed=seed,
                used_seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311
                key=request.headers.get("idempotency-key"),
                created_at=self._world.now(),
                latency_s=settings.latency_s,
                deadline_s=deadline_s,
                outcome=outcome,
                error=fault.error if fault else None,
                webhook=body.get("webhook"),
                webhook_events=tuple(body.get("webhook_events_filter") or ()),
            )
        )
        self._webhooks.schedule(prediction)
        return await self._answer_creation(prediction, wait_s)

    async def _answer_creation(self, prediction: Prediction, wait_s: int) -> Response:
        """Hold the answer up to `wait_s`; 201 with everything in it, 202 when there is more."""
        until = prediction.created_at + wait_s
        while True:
            now = self._world.now()
            at = progress(prediction, now, self._world.settings.output_lifetime_s)
            if at.over or at.has_output or now >= until:
                break
            ready = at.ends_at if at.output_at is None else at.output_at
            # Never long: somebody may cancel it meanwhile.
            if await self._world.pause(max(0.0, min(ready - now, until - now, 0.1))):
                break
            prediction = self._world.state.prediction(prediction.id) or prediction
        status = 201 if at.over or at.has_output else 202
        return JSONResponse(self._show(prediction), status)

    async def _get(self, request: Request, prediction_id: str) -> Response:
        self._admit(request)
        return JSONResponse(self._show(self._found(prediction_id)))

    async def _cancel(self, request: Request, prediction_id: str) -> Response:
        self._admit(request)
        self._found(prediction_id)
        self._world.state.cancel_prediction(prediction_id, self._world.now())
        return JSONResponse(self._show(self._found(prediction_id)))

    async def _list(
        self,
        request: Request,
        cursor: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        source: str | None = None,
    ) -> Response:
        self._admit(request)
        size = self._world.settings.page_size
        below = None if cursor is None else _from_cursor(cursor)
        found = self._world.state.predictions("replicate", below=below)
        # RFC 3339 in UTC with the same number of digits sorts as text.
        rows = [
            p
            for p in found
            if (
                created_after is None
                or _sortable(instant(p.created_at)) >= _sortable(created_after)
            )
            and (
                created_before is None
                or _sortable(instant(p.created_at)) < _sortable(created_before)
            )
            and source != "web"
        ]
        page, more = rows[:size], len(rows) > size
        following = None
        if more:
            url = request.url.include_query_params(cursor=_to_cursor(page[-1].seq))
            following = f"{self._world.url}{url.path}?{url.query}"
        results = [self._show(prediction) for prediction in page]
        return JSONResponse({"previous": None, "next": following, "results": results})

    async def _secret(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"key": self._world.settings.webhook_secret})

    def _show(self, prediction: Prediction) -> dict[str, Any]:
        return show(prediction, self._world.now(), self._world.settings, url=self._world.url)

    def _found(self, prediction_id: str) -> Prediction:
        prediction = self._world.state.prediction(prediction_id)
        if prediction is None or prediction.service != "replicate":
            raise Refused(refusal(404))
        return prediction

    def _admit(self, request: Request, *, creation: bool = False) -> None:
        """Check token, rate and credit, in this order; raise the refusal."""
        settings, now = self._world.settings, self._world.now()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            detail = "You did not pass an authentication token"
            body = {"title": "Unauthenticated", "detail": detail, "status": 401}
            raise Refused(JSONResponse(body, 401))
        if scheme not in ("Bearer", "Token") or not secrets.compare_digest(
            token.encode(), settings.replicate_token.encode()
        ):
            raise Refused(refusal(401))
        if not creation:
            if (wait := self._world.limits.reads.take(now, settings.reads_per_minute)) is not None:
                raise Refused(refusal(429, wait))
            return
        low = settings.credit == "low"
        per_minute, burst = (6, 1) if low else (settings.creations_per_minute, None)
        if (wait := self._world.limits.creations.take(now, per_minute, burst)) is not None:
            if low:
                text = (
                    f"Request was throttled. {_LOW_CREDIT}Your rate limit resets in ~{wait:.0f}s."
                )
                body = {"detail": text, "status": 429, "retry_after": max(1, round(wait))}
                raise Refused(JSONResponse(body, 429))
            raise Refused(refusal(429, wait))
        if settings.credit == "none":
            raise Refused(refusal(402))


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refused(refusal(400)) from error
    if not isinstance(body, dict):
        raise Refused(refusal(400))
    return cast(dict[str, Any], body)


def _invalid(problems: list[Problem]) -> Response:
    lines = [
        f"- {p.field}: {p.description}\n" if p.field else f"- {p.description}\n" for p in problems
    ]
    fields = [{"type": p.type, "field": p.field, "description": p.description} for p in problems]
    body = {
        "detail": "".join(lines),
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": fields,
    }
    return JSONResponse(body, 422)


def _webhook_problems(body: dict[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    url = body.get("webhook")
    if url is not None and not (isinstance(url, str) and re.match(r"https?://", url)):
        found.append(Problem("format", "webhook", "Does not match format 'uri'"))
    events = body.get("webhook_events_filter")
    if events is not None and not (
        isinstance(events, list) and set(cast(list[str], events)) <= set(EVENTS)
    ):
        allowed = ", ".join(f'"{event}"' for event in EVENTS)
        text = f"webhook_events_filter must be one of the following: {allowed}"
        found.append(Problem("enum", "webhook_events_filter", text))
    return found


def _wait_s(prefer: str | None) -> int:
    """Return the seconds of `Prefer: wait` (plain: 60), 0 without."""
    for part in (prefer or "").split(","):
        if match := _WAIT.fullmatch(part.strip()):
            seconds = 60 if match[1] is None else int(match[1])
            if 1 <= seconds <= 60:
                return seconds
            text = "wait must be between 1 and 60 seconds"
            raise Refused(_invalid([Problem("number", "Prefer", text)]))
    return 0


def _deadline_s(cancel_after: str | None) -> float | None:
    """Return the seconds of `Cancel-After`: `90`, `30s`, `5m`, `1h30m45s`."""
    if cancel_after is None:
        return None
    match = _DURATION.fullmatch(cancel_after.strip())
    if match is None or not any(match.groups()):
        raise Refused(_invalid([Problem("format", "Cancel-After", "Invalid duration")]))
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _sortable(text: str | None) -> str:
    """Return an instant so that text order is time order."""
    whole, _, fraction = (text or "").removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<6}"


def _to_cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(f"r={seq}".encode()).decode()


def _from_cursor(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor).decode().removeprefix("r="))
    except ValueError as error:
        raise Refused(refusal(404)) from error
