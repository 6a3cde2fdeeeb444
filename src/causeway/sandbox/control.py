"""The controls of the sandbox: faults, counts, the log of requests, settings, reset.

Not part of anybody's wire format; under `/control`, for tests and the demo.

    POST   /control/faults    one fault (see `causeway.sandbox.faults`) -> 201 the fault
    GET    /control/faults    those in force        DELETE /control/faults   none any more
    GET    /control/counts    what was asked for, generated (paid) and pinned
    GET    /control/log       the last 1000 requests, credentials redacted
    GET    /control/settings  how the stand-ins behave   POST  changes some of it
    POST   /control/reset     forget faults, counts, log and, unless `{"keep_state": true}`, all
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from causeway.sandbox.faults import Fault, Service
from causeway.sandbox.limits import Limits
from causeway.sandbox.settings import SandboxSettings
from causeway.sandbox.world import World, instant, route

_SECRET_HEADERS = {"authorization", "pinata_api_key", "pinata_secret_api_key", "cookie"} | {
    "x-api-key"
}
_SECRET_QUERY = {"pinatagatewaytoken", "token", "key", "code", "state", "api_key"} | {
    "client_secret",
    "appid",
}
_REDACTED = "[redacted]"
_LOG_LENGTH = 1000


class Entry(BaseModel):
    """One request, as `/control/log` shows it."""

    at: str | None
    service: Service
    method: str
    path: str
    template: str
    query: dict[str, str]
    headers: dict[str, str]
    #: None while under way and when the connection was cut.
    status: int | None = None
    #: The fault of the wire that happened to it.
    fault: str | None = None
    #: What `lose_answer` kept from the client.
    lost_status: int | None = None


class Creations(BaseModel):
    """How often one generation was asked for; more than once is money lost."""

    service: str
    prompt: str
    seed: int | None
    key: str | None
    count: int


class Counts(BaseModel):
    """What happened so far. Requests are counted since the start of the process or the last
    reset; everything else is kept with the state and survives a crash of the sandbox.
    """

    #: service -> "METHOD template" -> how many, refused and cut ones included.
    requests: dict[str, dict[str, int]]
    #: service -> HTTP status -> how many.
    answers: dict[str, dict[int, int]]
    predictions_total: int
    predictions: list[Creations]
    #: `Idempotency-Key`, or id chosen by the client -> how many predictions.
    predictions_by_key: dict[str, int]
    #: CID -> how often it was uploaded.
    pins: dict[str, int]
    uploads: int
    #: Distinct CIDs pinned now.
    files_pinned: int

    def paid(self, prompt: str | None = None, seed: int | None = None) -> int:
        """Return how many predictions were created, of this prompt and seed where given."""
        return sum(
            made.count
            for made in self.predictions
            if prompt in (None, made.prompt) and seed in (None, made.seed)
        )


class Journal:
    """Who came, and how often."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.log: deque[Entry] = deque(maxlen=_LOG_LENGTH)
        self._requests: dict[str, Counter[str]] = {}
        self._answers: dict[str, Counter[int]] = {}

    def arrived(self, service: Service, template: str, request: Request) -> Entry:
        """Write down a request and return its entry, to be completed."""
        headers = request.headers.items()
        entry = Entry(
            at=instant(self._world.now()),
            service=service,
            method=request.method,
            path=request.url.path,
            template=template,
            query={
                name: _REDACTED if name.lower() in _SECRET_QUERY else value
                for name, value in request.query_params.items()
            },
            headers={n: _REDACTED if n.lower() in _SECRET_HEADERS else v for n, v in headers},
        )
        self.log.append(entry)
        self._requests.setdefault(service, Counter())[f"{request.method} {template}"] += 1
        return entry

    def answered(self, entry: Entry, status: int) -> None:
        """Complete an entry."""
        entry.status = status
        self._answers.setdefault(entry.service, Counter())[status] += 1

    def clear(self) -> None:
        """Forget all requests."""
        self.log.clear()
        self._requests.clear()
        self._answers.clear()

    def counts(self) -> Counts:
        """Return what happened so far."""
        rows = self._world.state.creations()
        made = [
            Creations(service=service, prompt=prompt, seed=seed, key=key, count=count)
            for service, prompt, seed, key, count in rows
        ]
        by_key: Counter[str] = Counter()
        for creation in made:
            if creation.key is not None:
                by_key[creation.key] += creation.count
        pins = [*self._world.state.pins("pinata"), *self._world.state.pins("kubo")]
        uploads: Counter[str] = Counter()
        for pin in pins:
            uploads[pin.cid] += pin.uploads
        return Counts(
            requests={service: dict(counter) for service, counter in self._requests.items()},
            answers={service: dict(counter) for service, counter in self._answers.items()},
            predictions_total=sum(creation.count for creation in made),
            predictions=made,
            predictions_by_key=dict(by_key),
            pins=dict(uploads),
            uploads=uploads.total(),
            files_pinned=len({pin.cid for pin in pins if pin.unpinned_at is None}),
        )


class _Reset(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keep_state: bool = Field(default=False)


class Control:
    """The `/control` paths."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world = world
        self._journal = journal

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/control/faults", self._add_fault, "POST")
        route(app, "/control/faults", self._list_faults, "GET")
        route(app, "/control/faults", self._clear_faults, "DELETE")
        route(app, "/control/counts", self._counts, "GET")
        route(app, "/control/log", self._log, "GET")
        route(app, "/control/settings", self._show_settings, "GET")
        route(app, "/control/settings", self._change_settings, "POST")
        route(app, "/control/reset", self._reset, "POST")

    def reset(self, *, keep_state: bool = False) -> None:
        """Forget faults, rates, counts and log, and what was generated and pinned."""
        self._world.faults.clear()
        self._world.limits = Limits()
        self._journal.clear()
        if not keep_state:
            self._world.state.clear()

    def change_settings(self, **changes: object) -> SandboxSettings:
        """Change some settings while running; ValidationError changes none."""
        settings = self._world.settings
        checked = SandboxSettings.model_validate({**settings.model_dump(), **changes})
        for name in changes:
            setattr(settings, name, getattr(checked, name))
        return settings

    async def _add_fault(self, fault: Fault) -> Response:
        return JSONResponse(self._world.faults.add(fault).model_dump(), 201)

    async def _list_faults(self) -> Response:
        return JSONResponse([fault.model_dump() for fault in self._world.faults.all()])

    async def _clear_faults(self) -> Response:
        self._world.faults.clear()
        return Response(status_code=204)

    async def _counts(self) -> Response:
        return JSONResponse(self._journal.counts().model_dump())

    async def _log(self) -> Response:
        return JSONResponse([entry.model_dump() for entry in self._journal.log])

    async def _show_settings(self) -> Response:
        return JSONResponse(self._world.settings.model_dump(mode="json"))

    async def _change_settings(self, changes: dict[str, Any]) -> Response:
        try:
            return JSONResponse(self.change_settings(**changes).model_dump(mode="json"))
        except ValidationError as error:
            return Response(error.json(include_url=False), 422, media_type="application/json")

    async def _reset(self, reset: _Reset | None = None) -> Response:
        self.reset(keep_state=reset is not None and reset.keep_state)
        return Response(status_code=204)
