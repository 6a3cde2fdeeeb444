"""Motify served in this process, over a real socket, on a real database, chain and stand-ins."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import text

from causeway.runtime.process import listen, serving
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.motify_chain import MotifyContract
from causeway.sandbox.settings import SandboxSettings
from tests.glisk_app import personal_sign
from tests.motify_world import World, running_motify

FRONTEND = "https://motify.example"
CRON_SECRET = "the-cron-secret-of-the-tests"
WAKA_KEY = "waka_11111111-2222-4333-8444-555555555555"


@dataclass
class Served:
    """A served Motify and who calls it: redirects are never followed."""

    http: httpx2.AsyncClient
    world: World

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        """Ask for something."""
        return await self.http.get(path, params=query)

    async def connect(self, who: DevAccount, provider: str = "github") -> httpx2.Response:
        """Ask where to go to connect an account, signed."""
        return await self.get(f"/oauth/connect/{provider}", **connecting(who, provider))

    async def authorized(self, who: DevAccount, login: str) -> str:
        """Go to GitHub's page, as that account there; return the address it leads back to."""
        self.world.sandbox.settings.github_login = login
        begun = await self.connect(who)
        assert begun.status_code == 200, begun.text
        return await self.visited(begun.json()["auth_url"])

    async def visited(self, auth_url: str) -> str:
        """Go to GitHub's page; return the address it leads back to, without the origin."""
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await browser.get(auth_url)
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["location"])
        return f"{back.path}?{back.query}"

    async def link(self, who: DevAccount, login: str) -> httpx2.Response:
        """Connect an account, from the first request to the browser's result."""
        return await self.http.get(await self.authorized(who, login))

    async def disconnect(self, who: DevAccount, provider: str = "github") -> httpx2.Response:
        """Let an account go, signed."""
        query = disconnecting(who, provider)
        path = f"/oauth/disconnect/{provider}/{who.address}"
        return await self.http.delete(path, params=query)

    async def save_key(self, who: DevAccount, key: str, **changes: Any) -> httpx2.Response:
        """Save a WakaTime key, signed."""
        body = {**connecting(who, "wakatime"), "api_key": key, **changes}
        return await self.http.post("/oauth/wakatime/api-key", json=body)

    async def job(self, method: str, path: str, secret: str = CRON_SECRET) -> httpx2.Response:
        """Call something that only the cron may call."""
        return await self.http.request(method, path, headers={"x-cron-secret": secret})

    async def tables(self) -> str:
        """Return everything the connections' tables hold, as somebody with a copy reads it."""
        parts: list[str] = []
        for table in ("connections", "connection_revocations", "auth_oauth_states"):
            rows = await self.world.rows(f"SELECT t::text AS row FROM causeway.{table} t")
            parts += [row["row"] for row in rows]
        return "\n".join(parts)

    async def execute(self, statement: str, **values: Any) -> None:
        """Change rows by hand."""
        async with self.world.installation.database.transaction() as session:
            await session.execute(text(statement), values)


def outcome(answer: httpx2.Response) -> dict[str, str]:
    """Return what a browser's result says, and hold it to its form."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    target = urlsplit(answer.headers["location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == f"{FRONTEND}/oauth/result"
    return {name: values[0] for name, values in parse_qs(target.query).items()}


_moments = itertools.count()


def moment() -> int:
    """Return a time that is near enough, Unix seconds; hardly ever the same one twice.

    What is signed twice in one second is the same message.
    """
    return int(time.time()) - 250 + next(_moments) % 500


def connecting(who: DevAccount, provider: str, at: int | None = None) -> dict[str, Any]:
    """Return what proves that a wallet wants to connect an account."""
    at = moment() if at is None else at
    wallet = who.address.lower()
    said = f"Connect OAuth provider {provider} to wallet {wallet} at {at}"
    return {
        "wallet_address": who.address,
        "signature": personal_sign(who, said),
        "timestamp": at,
    }


def disconnecting(who: DevAccount, provider: str, at: int | None = None) -> dict[str, Any]:
    """Return what proves that a wallet wants to let an account go."""
    at = moment() if at is None else at
    said = f"Disconnect OAuth provider {provider} from wallet {who.address.lower()} at {at}"
    return {"signature": personal_sign(who, said), "timestamp": at}


@asynccontextmanager
async def served_motify(
    database_url: str,
    node: AnvilNode,
    contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
    *,
    worker: bool = False,
    settings: SandboxSettings | None = None,
    **changes: str,
) -> AsyncGenerator[Served]:
    """Serve Motify (and work, when told to) until the block is left."""
    values = {"FRONTEND_URL": FRONTEND, "BACKEND_URL": "https://backend.example/"} | changes
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            running_motify(
                database_url,
                node,
                contract,
                monkeypatch,
                worker=worker,
                settings=settings,
                **values,
            )
        )
        listening = listen("127.0.0.1", 0)
        await stack.enter_async_context(serving(world.installation, listening, 2))
        port = listening.getsockname()[1]
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
        )
        yield Served(http, world)
