"""Fixtures for tests against the stand-ins; a module asks for them by

pytest_plugins = ["tests.sandbox_fixtures"]
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio

from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    """Every stand-in on one port of its own; a generation takes 40 ms."""
    async with SandboxServer.start(settings=SandboxSettings(latency_s=0.04)) as server:
        yield server


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client that follows nothing and forgives nothing."""
    async with httpx2.AsyncClient(timeout=10, follow_redirects=False) as client:
        yield client
