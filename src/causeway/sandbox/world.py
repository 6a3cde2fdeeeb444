"""What the stand-ins share: settings, memory, faults, time and their own address."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response

from causeway.base.clock import SYSTEM_CLOCK, Clock, iso
from causeway.sandbox.faults import Fault, FaultBook, Service
from causeway.sandbox.grants import Grants
from causeway.sandbox.limits import Limits
from causeway.sandbox.picture import Painter
from causeway.sandbox.settings import SandboxSettings
from causeway.sandbox.state import State

#: First part of a path -> the service it belongs to. Automatic1111 is a self-hosted generator;
#: Farcaster's names are served by its registry and by hubs.
SERVICE_PREFIXES: dict[str, Service] = {
    "replicate": "replicate",
    "delivery": "delivery",
    "pinata": "pinata",
    "ipfs": "gateway",
    "kubo": "kubo",
    "selfhosted": "selfhosted",
    "automatic1111": "selfhosted",
    "x": "x",
    "fnames": "farcaster",
    "hub": "farcaster",
    "github": "github",
    "github-api": "github",
    "wakatime": "wakatime",
    "neynar": "neynar",
    "strava": "strava",
    "open-meteo": "open_meteo",
    "open-meteo-archive": "open_meteo",
    "openweather": "openweather",
}


def service_of(path: str) -> Service | None:
    """Return the service a path belongs to; None for the controls and everything else."""
    return SERVICE_PREFIXES.get(path.split("/", 2)[1] if path.startswith("/") else "")


class Refused(Exception):
    """The request is answered with this response and goes no further."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


async def answer_refused(_: Request, refused: Exception) -> Response:
    """Turn `Refused` into its response (a FastAPI exception handler)."""
    if not isinstance(refused, Refused):
        raise refused
    return refused.response


@dataclass
class World:
    """Given to every stand-in; `url` is where the server listens, without a final slash."""

    url: str
    settings: SandboxSettings
    state: State
    faults: FaultBook = field(default_factory=FaultBook)
    limits: Limits = field(default_factory=Limits)
    #: Service -> what its authorization server has handed out.
    grants: defaultdict[str, Grants] = field(default_factory=lambda: defaultdict(Grants))
    clock: Clock = SYSTEM_CLOCK
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    #: Draws predictions' pictures instead of the stand-in's own painter.
    painter: Painter | None = None

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.clock.now().timestamp()

    async def pause(self, seconds: float | None) -> bool:
        """Wait `seconds` (None: for ever); return True at once when the server stops."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def work_fault(self, request: Request, service: Service) -> Fault | None:
        """Return what goes wrong with the work of this request."""
        return self.faults.take(service, request.method, request.url.path, wire=False)


def instant(seconds: float | None) -> str | None:
    """Return seconds since 1970 as RFC 3339 in UTC, None as None."""
    return None if seconds is None else iso(datetime.fromtimestamp(seconds, UTC))


def instant_ms(seconds: float) -> str:
    """Return seconds since 1970 as JavaScript writes it: always three decimals."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def route(app: FastAPI, path: str, endpoint: object, *methods: str) -> None:
    """Add one path; answers are Responses, so nothing is modelled."""
    if not callable(endpoint):
        raise TypeError("an endpoint is a function")
    app.add_api_route(path, endpoint, methods=list(methods), response_model=None)
