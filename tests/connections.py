"""Two people, their providers in the sandbox, and a clock that a test moves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx2
from pydantic import SecretStr

from causeway.connections import flow, github, wakatime
from causeway.connections.access import Connections
from causeway.connections.client import Manner
from causeway.connections.credential import Credential, Tokens
from causeway.connections.github import GitHub
from causeway.connections.neynar import Neynar
from causeway.connections.oauth_state import Started
from causeway.connections.vault import Connection, Vault
from causeway.connections.wakatime import WakaTime
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database

ALICE = "0x" + "a1" * 20
MALLORY = "0x" + "bb" * 20
CALLBACK = "https://backend.example/oauth/callback/github"
WAKA_KEY = "waka_11111111-2222-4333-8444-555555555555"
NEYNAR_KEY = "neynar-key-that-is-nobody-s"


@dataclass
class HandClock:
    """A clock that stands until somebody sleeps or a test moves it."""

    at: datetime = datetime(2026, 11, 1, 12, tzinfo=UTC)
    slept: list[float] = field(default_factory=list[float])

    def now(self) -> datetime:
        """Return where it stands."""
        return self.at

    def monotonic(self) -> float:
        """Return where it stands."""
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.slept.append(seconds)
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Move on."""
        self.at += timedelta(seconds=seconds)


@dataclass
class Providers:
    """The providers and their clients, without a database."""

    sandbox: SandboxServer
    clock: HandClock
    github: GitHub
    wakatime: WakaTime
    neynar: Neynar

    async def visit(self, url: str) -> dict[str, str]:
        """Go where the person is sent, as a browser would; return what comes back."""
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await browser.get(url)
        assert answer.status_code == 302, answer.text
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in query.items()}

    def asked(self, path: str) -> int:
        """Return how many requests came to a path of the sandbox."""
        return sum(entry.path == path for entry in self.sandbox.log())

    async def token(self, login: str = "alice", provider: str = "github") -> Credential:
        """Return a fresh token of somebody, as the end of an authorization gives it."""
        self.sandbox.settings.github_login = login
        self.sandbox.settings.wakatime_username = login
        client = self.github if provider == "github" else self.wakatime
        assert client.oauth is not None
        verifier = "v" * 43
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        back = await self.visit(client.oauth.authorization_url(Started("state", challenge)))
        tokens = await client.oauth.exchange(back["code"], verifier)
        return Credential(provider, "oauth", tokens.access_token, scopes=tokens.scopes)


@dataclass
class World(Providers):
    """Everything a test of connections needs."""

    vault: Vault
    keyring: Keyring
    connections: Connections

    async def connect(self, subject: str = ALICE, login: str = "alice") -> Connection:
        """Connect a GitHub account from the first request to the last."""
        self.sandbox.settings.github_login = login
        begun = await flow.begin(self.vault, self.github, subject)
        back = await self.visit(begun.url)
        return await flow.finish(self.vault, self.github, code=back["code"], state=back["state"])

    async def connect_key(self, subject: str = ALICE, key: str = WAKA_KEY) -> Connection:
        """Connect a WakaTime account by its API key."""
        tokens = Tokens(SecretStr(key), kind="api_key")
        credential = Credential("wakatime", "api_key", tokens.access_token)
        account = await self.wakatime.account(credential)
        return await self.vault.save("wakatime", subject, tokens, account)


@asynccontextmanager
async def providers(manner: Manner | None = None) -> AsyncGenerator[Providers]:
    """Serve the providers."""
    clock = HandClock()
    settings = SandboxSettings(
        wakatime_keys={WAKA_KEY: "alice"}, neynar_api_key=NEYNAR_KEY, neynar_per_minute=1000
    )
    async with SandboxServer.start(settings=settings, clock=clock) as sandbox:
        hub = GitHub(
            api_url=sandbox.github_api_url,
            app=github.oauth_app(
                settings.github_client_id,
                SecretStr(settings.github_client_secret),
                CALLBACK,
                oauth_url=sandbox.github_oauth_url,
            ),
            manner=manner,
            clock=clock,
        )
        waka = WakaTime(
            api_url=sandbox.wakatime_api_url,
            app=wakatime.oauth_app(
                settings.wakatime_client_id,
                SecretStr(settings.wakatime_client_secret),
                CALLBACK.replace("github", "wakatime"),
                oauth_url=sandbox.wakatime_oauth_url,
            ),
            revoke_url=f"{sandbox.wakatime_oauth_url}/oauth/revoke",
            manner=manner,
            clock=clock,
        )
        neynar = Neynar(
            SecretStr(NEYNAR_KEY), api_url=sandbox.neynar_url, manner=manner, clock=clock
        )
        try:
            yield Providers(sandbox, clock, hub, waka, neynar)
        finally:
            for client in (hub, waka, neynar):
                await client.aclose()


@asynccontextmanager
async def world(database: Database, manner: Manner | None = None) -> AsyncGenerator[World]:
    """Serve the providers and open the vault."""
    async with providers(manner) as p:
        keyring = Keyring([new_key()])
        vault = Vault(database, keyring, "motify")
        connections = Connections(
            vault, {"github": p.github, "wakatime": p.wakatime}, clock=p.clock
        )
        try:
            yield World(
                p.sandbox, p.clock, p.github, p.wakatime, p.neynar, vault, keyring, connections
            )
        finally:
            await connections.aclose()
