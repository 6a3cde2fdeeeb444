"""All stand-ins on one loopback port, inside this process or as one of their own.

    async with SandboxServer.start() as sandbox:
        ...sandbox.replicate_url, sandbox.pinata_url, sandbox.gateway_url...

`causeway.sandbox.process.SandboxProcess` is the same as a process that can be killed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from uvicorn import Config
from uvicorn.server import ServerState

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.sandbox import (
    delivery,
    farcaster,
    github,
    ipfs,
    neynar,
    open_meteo,
    openweather,
    pinata,
    replicate,
    selfhosted,
    strava,
    wakatime,
    x,
)
from causeway.sandbox.control import Control, Counts, Entry, Journal
from causeway.sandbox.faults import Fault, Service, WireKind, WorkKind
from causeway.sandbox.gate import Connections, Gate, Refusal, TrackedProtocol
from causeway.sandbox.grants import Pair
from causeway.sandbox.picture import Painter
from causeway.sandbox.settings import SandboxSettings
from causeway.sandbox.state import State
from causeway.sandbox.webhooks import Webhooks
from causeway.sandbox.world import Refused, World, answer_refused, service_of

_REFUSALS: dict[str, Refusal] = {
    "replicate": replicate.refusal,
    "delivery": delivery.refusal,
    "pinata": pinata.refusal,
    "gateway": ipfs.gateway_refusal,
    "kubo": ipfs.kubo_refusal,
    "selfhosted": selfhosted.refusal,
    "x": x.refusal,
    "farcaster": farcaster.refusal,
    "github": github.refusal,
    "wakatime": wakatime.refusal,
    "neynar": neynar.refusal,
    "strava": strava.refusal,
    "open_meteo": open_meteo.refusal,
    "openweather": openweather.refusal,
}


class Addresses:
    """Where each stand-in answers, given the address of the sandbox."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def replicate_url(self) -> str:
        """Base of the Replicate API, with its `/v1`."""
        return f"{self.url}/replicate/v1"

    @property
    def delivery_url(self) -> str:
        """Where files of predictions are served."""
        return f"{self.url}/delivery"

    @property
    def pinata_url(self) -> str:
        """Base of the Pinata API."""
        return f"{self.url}/pinata"

    @property
    def gateway_url(self) -> str:
        """Base of the IPFS gateway: content is at `/ipfs/{cid}` below it."""
        return self.url

    @property
    def kubo_url(self) -> str:
        """Base of kubo's RPC: commands are at `/api/v0/...` below it."""
        return f"{self.url}/kubo"

    @property
    def selfhosted_url(self) -> str:
        """Base of a Cog server: `POST /predictions` below it."""
        return f"{self.url}/selfhosted"

    @property
    def automatic1111_url(self) -> str:
        """Base of an Automatic1111 server: `/sdapi/v1/txt2img` below it."""
        return f"{self.url}/automatic1111"

    @property
    def x_authorize_url(self) -> str:
        """X's authorization page."""
        return f"{self.url}/x/i/oauth2/authorize"

    @property
    def x_url(self) -> str:
        """Base of X's API: `/2/oauth2/token` and `/2/users/me` below it."""
        return f"{self.url}/x"

    @property
    def fnames_url(self) -> str:
        """Base of Farcaster's fname registry: `/transfers` below it."""
        return f"{self.url}/fnames"

    @property
    def hub_url(self) -> str:
        """Base of a Farcaster hub's HTTP API: `/v1/...` below it."""
        return f"{self.url}/hub"

    @property
    def github_oauth_url(self) -> str:
        """Base of GitHub's pages: `/login/oauth/authorize` below it."""
        return f"{self.url}/github"

    @property
    def github_api_url(self) -> str:
        """Base of GitHub's API: `/user` and `/graphql` below it."""
        return f"{self.url}/github-api"

    @property
    def wakatime_oauth_url(self) -> str:
        """Base of WakaTime's pages: `/oauth/authorize` below it."""
        return f"{self.url}/wakatime"

    @property
    def wakatime_api_url(self) -> str:
        """Base of WakaTime's API, with its `/api/v1`."""
        return f"{self.url}/wakatime/api/v1"

    @property
    def neynar_url(self) -> str:
        """Base of Neynar's API: `/v2/farcaster/...` below it."""
        return f"{self.url}/neynar"

    @property
    def strava_oauth_url(self) -> str:
        """Base of Strava's pages: `/oauth/authorize` below it."""
        return f"{self.url}/strava"

    @property
    def strava_api_url(self) -> str:
        """Base of Strava's API, with its `/api/v3`."""
        return f"{self.url}/strava/api/v3"

    @property
    def open_meteo_url(self) -> str:
        """Base of Open-Meteo's forecast: `/v1/forecast` below it."""
        return f"{self.url}/open-meteo"

    @property
    def open_meteo_archive_url(self) -> str:
        """Base of Open-Meteo's archive: `/v1/archive` below it."""
        return f"{self.url}/open-meteo-archive"

    @property
    def openweather_url(self) -> str:
        """Base of OpenWeather's API: `/data/3.0/onecall/timemachine` below it."""
        return f"{self.url}/openweather"

    @property
    def control_url(self) -> str:
        """Base of the controls: faults, counts, log, settings, reset."""
        return f"{self.url}/control"

    def addresses(self) -> dict[str, str]:
        """Return all addresses by name."""
        names = (
            *("url", "replicate_url", "delivery_url", "pinata_url", "gateway_url", "kubo_url"),
            *("selfhosted_url", "automatic1111_url", "control_url", "x_authorize_url", "x_url"),
            *("fnames_url", "hub_url", "github_oauth_url", "github_api_url"),
            *("wakatime_oauth_url", "wakatime_api_url", "neynar_url"),
            *("strava_oauth_url", "strava_api_url"),
            *("open_meteo_url", "open_meteo_archive_url", "openweather_url"),
        )
        return {name: getattr(self, name) for name in names}


class SandboxServer(Addresses):
    """The running stand-ins, with their controls at hand without HTTP."""

    def __init__(self, world: World) -> None:
        super().__init__(world.url)
        self._world = world
        self._journal = Journal(world)
        self._control = Control(world, self._journal)
        self._webhooks = Webhooks(world)
        #: What athletes do on Strava itself.
        self.strava = strava.Strava(world)
        self._connections = Connections()

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        state: Path | None = None,
        settings: SandboxSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
        painter: Painter | None = None,
    ) -> AsyncGenerator[SandboxServer, None]:
        """Serve on `port` (0: one from the OS) until the block is left.

        `state` is a file that keeps predictions, pins and blocks; without it they are gone at
        the end. OSError when the port is taken.
        """
        listening = _listen(host, port)
        url = f"http://{host}:{listening.getsockname()[1]}"
        memory = State(state)
        world = World(url, settings or SandboxSettings(), memory, clock=clock, painter=painter)
        server = cls(world)
        try:
            async with server._serving(listening):
                yield server
        finally:
            memory.close()

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def settings(self) -> SandboxSettings:
        """Return the settings in force; assigning to their fields changes them at once."""
        return self._world.settings

    def fault(
        self, service: Service, kind: WireKind | WorkKind, count: int | None = None, **more: object
    ) -> Fault:
        """Put a fault in force; `more` are further fields of `Fault`."""
        document = {"service": service, "kind": kind, "count": count, **more}
        return self._world.faults.add(Fault.model_validate(document))

    def faults(self) -> list[Fault]:
        """Return the faults in force."""
        return self._world.faults.all()

    def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        self._world.faults.clear()

    def counts(self) -> Counts:
        """Return what was asked for, generated and pinned so far."""
        return self._journal.counts()

    def log(self) -> list[Entry]:
        """Return the last 1000 requests, oldest first."""
        return list(self._journal.log)

    def tokens(self, service: Service) -> dict[str, str]:
        """Return the access tokens an OAuth service handed out and did not take back: whose."""
        return {pair.access: pair.who for pair in self._world.grants[service].live()}

    def issue(self, service: Service, pair: Pair) -> None:
        """Make a token valid, as the end of an authorization would."""
        self._world.grants[service].issue(pair)

    def wasted_refreshes(self, service: Service) -> int:
        """Return how often a refresh token was presented to it that was worth nothing."""
        return self._world.grants[service].wasted_refreshes

    def strava_requests(self) -> dict[tuple[str, int, int], int]:
        """Return the requests by meter (overall, read), seconds of the window, its beginning."""
        return dict(self._world.limits.strava)

    def reset(self, *, keep_state: bool = False) -> None:
        """Forget faults, counts and log, and unless `keep_state` what was made and pinned."""
        self._control.reset(keep_state=keep_state)

    def _app(self) -> FastAPI:
        app = FastAPI(title="Causeway sandbox", openapi_url=None)
        app.add_exception_handler(Refused, answer_refused)
        app.add_exception_handler(HTTPException, _unknown_path)
        for stand_in in (
            replicate.Replicate(self._world, self._webhooks),
            delivery.Delivery(self._world),
            pinata.Pinata(self._world),
            ipfs.Gateway(self._world),
            ipfs.Kubo(self._world),
            selfhosted.SelfHosted(self._world),
            x.X(self._world),
            farcaster.Farcaster(self._world),
            github.GitHub(self._world),
            wakatime.WakaTime(self._world),
            neynar.Neynar(self._world),
            self.strava,
            open_meteo.OpenMeteo(self._world),
            openweather.OpenWeather(self._world),
            self._control,
        ):
            stand_in.mount(app)
        return app

    @asynccontextmanager
    async def _serving(self, listening: socket.socket) -> AsyncGenerator[None, None]:
        # uvicorn's protocol on a server of our own: its Server handles signals and takes tenths
        # of a second to stop, and here connections must be at hand to be cut.
        gate = Gate(self._app(), self._world, self._journal, self._connections, _REFUSALS)
        config = Config(gate, ws="none", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        connected = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: TrackedProtocol(
                self._connections, config=config, server_state=connected, app_state={}
            ),
            sock=listening,
        )
        self._webhooks.resume()
        try:
            yield
        finally:
            self._world.stopping.set()
            server.close()
            self._connections.abort_all()
            await self._webhooks.close()
            await self.strava.close()
            await asyncio.gather(*connected.tasks, return_exceptions=True)
            await server.wait_closed()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only where the protocol is named does asyncio send small answers at once (TCP_NODELAY).
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # So that the same port can be taken again at once after a kill.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


async def _unknown_path(request: Request, error: Exception) -> Response:
    """Answer a path or method nobody has, in the words of the service it was meant for."""
    if not isinstance(error, HTTPException):
        raise error
    service = service_of(request.url.path)
    if service is None:
        return JSONResponse({"detail": error.detail}, error.status_code)
    if service == "pinata":
        return pinata.invalid_route()
    return _REFUSALS[service](error.status_code, 1)
