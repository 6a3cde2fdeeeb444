"""The clients that live as long as the process, made from the settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from causeway.app import ChainConfig
from causeway.apps.mobs.context import CHAIN, Services
from causeway.apps.mobs.settings import MobsSettings


@asynccontextmanager
async def services(settings: MobsSettings) -> AsyncGenerator[Services]:
    """Open the clients until the block is left."""
    async with aiohttp.ClientSession(
        headers={"user-agent": "causeway"}, cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        yield Services(http)


def chains(settings: MobsSettings) -> Sequence[ChainConfig]:
    """Return the chain that is observed."""
    if not settings.mantle_rpc_endpoints:
        return ()
    return (
        ChainConfig(
            CHAIN,
            settings.chain_id,
            settings.mantle_rpc_endpoints,
            poll_s=settings.poll_interval_scanner,
            timeout_s=settings.rpc_timeout_block,
        ),
    )
