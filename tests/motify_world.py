"""Motify at work in this process: a real database, chain and providers, time moved on the chain.

What happens on the chain is sent by hand through `sandbox.motify_chain`; days pass when a test
says so.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from eth_utils.address import to_checksum_address
from pydantic import SecretStr
from sqlalchemy import text

from causeway.apps.motify.context import MotifyContext, connections_of
from causeway.base.settings import KernelSettings, load
from causeway.connections import flow
from causeway.connections.credential import Account, Tokens
from causeway.runtime.discover import find_apps
from causeway.runtime.installation import Installation, open_installation
from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import MotifyContract
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.encryption import new_key
from tests.glisk_app import until

DAY = 86_400


@dataclass
class World:
    """A running Motify and what it depends on."""

    installation: Installation
    node: AnvilNode
    contract: MotifyContract
    sandbox: SandboxServer

    @property
    def ctx(self) -> MotifyContext:
        """The app's context."""
        return self.installation.contexts["motify"]

    async def connect_github(self, wallet: str, login: str) -> None:
        """Connect somebody's GitHub account, from the first page to the stored token."""
        connections = connections_of(self.ctx)
        hub = self.ctx.services.github
        self.sandbox.settings.github_login = login
        begun = await flow.begin(connections.vault, hub, wallet.lower())
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await browser.get(begun.url)
        back = parse_qs(urlsplit(answer.headers["location"]).query)
        await flow.finish(connections.vault, hub, code=back["code"][0], state=back["state"][0])

    async def connect_wakatime(self, wallet: str, key: str, username: str) -> None:
        """Connect somebody's WakaTime account by its key."""
        self.sandbox.settings.wakatime_keys[key] = username
        await connections_of(self.ctx).vault.save(
            "wakatime",
            wallet.lower(),
            Tokens(SecretStr(key), kind="api_key"),
            Account(username, username),
        )

    async def challenge(
        self,
        stakes: Mapping[str, int],
        *,
        days: int = 7,
        api_type: str = "github",
        goal_type: str = "contribution_per_day",
        goal_amount: int = 1,
        recipient: str = "0x" + "ee" * 20,
    ) -> tuple[int, int, int]:
        """Create a challenge from the next midnight on, staked on; return id, start and end."""
        start = (await self.contract.now() // DAY + 1) * DAY
        end = start + days * DAY
        challenge_id = await self.contract.create(
            recipient=to_checksum_address(recipient),
            start_time=start,
            end_time=end,
            api_type=api_type,
            goal_type=goal_type,
            goal_amount=goal_amount,
        )
        await self.contract.fund(list(stakes), max(stakes.values(), default=0))
        await self.contract.join(challenge_id, stakes)
        return challenge_id, start, end

    async def travel_to(self, timestamp: int) -> None:
        """Let chain time pass, and have it final."""
        await self.contract.travel_to(timestamp)
        await self.mine(2)

    async def mine(self, blocks: int = 1) -> None:
        """Make blocks."""
        await self.node.mine(blocks)

    async def status(self, challenge_id: int) -> str | None:
        """Return where a challenge stands."""
        found = await self.rows(
            "SELECT status FROM motify.settlements WHERE challenge_id = :id", id=challenge_id
        )
        return found[0]["status"] if found else None

    async def until_status(
        self, challenge_id: int, status: str, seconds: float = 60, *, mining: bool = False
    ) -> None:
        """Wait until a challenge has got somewhere; `mining`: blocks go on being made."""

        async def reached() -> bool:
            if mining:
                await self.mine()
            return await self.status(challenge_id) == status

        try:
            await until(reached, seconds)
        except AssertionError:
            rows = await self.rows(
                "SELECT status, last_error FROM motify.settlements WHERE challenge_id = :id",
                id=challenge_id,
            )
            scores = await self.rows(
                "SELECT status, outcome, detail, last_error, count(*) FROM motify.scores "
                "GROUP BY 1, 2, 3, 4"
            )
            raise AssertionError(f"not {status}: {rows} {scores}") from None

    async def rows(self, statement: str, **values: Any) -> Sequence[dict[str, Any]]:
        """Return what a query finds."""
        async with self.installation.database.sessions() as session:
            return [dict(r) for r in (await session.execute(text(statement), values)).mappings()]


def contributions(start: int, good: int) -> dict[date, tuple[int, int, int]]:
    """Return a calendar with that many good days from a start on."""
    first = datetime.fromtimestamp(start, UTC).date()
    return {first + timedelta(days=n): (1, 1, 0) for n in range(good)}


def environment(
    database_url: str, node: AnvilNode, contract: MotifyContract, sandbox: SandboxServer
) -> dict[str, str]:
    """Return the settings of a Motify on these."""
    known = SandboxSettings()
    return {
        "DATABASE_URL": database_url,
        "WEB3_RPC_URL": node.url,
        "CHAIN_ID": str(node.chain_id),
        "MOTIFY_CONTRACT_ADDRESS": contract.address,
        "MOTIFY_START_BLOCK": "0",
        "MOTIFY_FINALITY": "2",
        "MOTIFY_POLL_SECONDS": "0.1",
        "PRIVATE_KEY": contract.owner.private_key,
        "SEND_TX": "true",
        "GITHUB_CLIENT_ID": known.github_client_id,
        "GITHUB_CLIENT_SECRET": known.github_client_secret,
        "GITHUB_API_BASE_URL": sandbox.github_api_url,
        "GITHUB_OAUTH_BASE_URL": sandbox.github_oauth_url,
        "WAKATIME_API_BASE_URL": sandbox.wakatime_api_url,
        "NEYNAR_API_BASE_URL": sandbox.neynar_url,
        "NEYNAR_API_KEY": known.neynar_api_key,
        "NEYNAR_REQUESTS_PER_MINUTE": "100000",
        "CAUSEWAY_ENCRYPTION_KEYS": new_key(),
        "CAUSEWAY_GRACE_SECONDS": "2",
        "CRON_SECRET": "the-cron-secret-of-the-tests",
    }


@asynccontextmanager
async def running_motify(
    database_url: str,
    node: AnvilNode,
    contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
    *,
    worker: bool = True,
    settings: SandboxSettings | None = None,
    **changes: str,
) -> AsyncGenerator[World]:
    """Run Motify's worker (unless told not to) until the block is left."""
    async with AsyncExitStack() as stack:
        made = settings or SandboxSettings(neynar_per_minute=100_000)
        sandbox = await stack.enter_async_context(SandboxServer.start(settings=made))
        values = environment(database_url, node, contract, sandbox) | changes
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        installation = await stack.enter_async_context(
            open_installation(find_apps(["motify"]), load(KernelSettings))
        )
        if worker:
            await stack.enter_async_context(working(installation))
        yield World(installation, node, contract, sandbox)


@asynccontextmanager
async def worker(fault: str = "") -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run `causeway work motify` as a process of its own, with the environment of the test."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "causeway.cli", "work", "motify"),
        env={**os.environ, "CAUSEWAY_FAULT": fault, "MOTIFY_LEASE_SECONDS": "2"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
