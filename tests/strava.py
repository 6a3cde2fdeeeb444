"""Runners, Strava's stand-in and a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx2
from pydantic import SecretStr

from causeway.connections import flow, strava
from causeway.connections.access import Connections
from causeway.connections.credential import Account, Credential
from causeway.connections.oauth_state import Started
from causeway.connections.strava import Strava
from causeway.connections.vault import Connection, Vault
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database
from tests.connections import HandClock

ANNA, BEN = "0197a000-0000-7000-8000-000000000001", "0197a000-0000-7000-8000-000000000002"
CALLBACK = "https://wisp.example/strava/callback"
ALL_SCOPES = ("read", "activity:read", "activity:read_all", "activity:write")
GPX = b"""<?xml version="1.0"?><gpx version="1.1"><trk><trkseg><trkpt lat="45" lon="7">
<time>2026-10-01T06:00:00Z</time></trkpt></trkseg></trk></gpx>"""


@dataclass
class Runners:
    """Everything a test of Strava needs."""

    sandbox: SandboxServer
    clock: HandClock
    strava: Strava
    vault: Vault
    keyring: Keyring
    connections: Connections

    async def visit(self, url: str) -> dict[str, str]:
        """Go where the person is sent, as a browser would; return what comes back."""
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await browser.get(url)
        assert answer.status_code == 302, answer.text
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in query.items()}

    async def connect(self, subject: str = ANNA, athlete: str = "anna") -> Connection:
        """Connect an athlete's account, from the first request to the last."""
        self.sandbox.settings.strava_athlete = athlete
        begun = await flow.begin(self.vault, self.strava, subject)
        back = await self.visit(begun.url)
        return await flow.finish(
            self.vault, self.strava, code=back["code"], state=back["state"], granted=back["scope"]
        )

    async def credential(self, athlete: str = "anna", *, knows_scopes: bool = True) -> Credential:
        """Return a fresh token of an athlete, without a connection."""
        self.sandbox.settings.strava_athlete = athlete
        assert self.strava.oauth is not None
        back = await self.visit(self.strava.oauth.authorization_url(Started("state", "")))
        tokens = await self.strava.oauth.exchange(back["code"], "")
        scopes = tuple(back["scope"].split(",")) if knows_scopes else ()
        return Credential(
            "strava", "oauth", tokens.access_token, scopes=scopes, account=Account(athlete)
        )

    def asked(self, path: str) -> int:
        """Return how many requests came to a path of the sandbox."""
        return sum(entry.path == path for entry in self.sandbox.log())


@asynccontextmanager
async def runners(database: Database) -> AsyncGenerator[Runners]:
    """Serve Strava and open the vault."""
    clock = HandClock()
    settings = SandboxSettings()
    async with SandboxServer.start(settings=settings, clock=clock) as sandbox:
        client = Strava(
            strava.application_budget(database, settings.strava_client_id, clock=clock),
            api_url=sandbox.strava_api_url,
            oauth_url=sandbox.strava_oauth_url,
            app=strava.oauth_app(
                settings.strava_client_id,
                SecretStr(settings.strava_client_secret),
                CALLBACK,
                scopes=ALL_SCOPES,
                oauth_url=sandbox.strava_oauth_url,
            ),
            clock=clock,
        )
        keyring = Keyring([new_key()])
        vault = Vault(database, keyring, "wisp")
        connections = Connections(vault, {"strava": client}, clock=clock)
        try:
            yield Runners(sandbox, clock, client, vault, keyring, connections)
        finally:
            await connections.aclose()
            await client.aclose()
