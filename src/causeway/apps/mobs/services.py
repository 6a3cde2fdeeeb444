"""The clients that live as long as the process, made from the settings."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import structlog
from pydantic import SecretStr

from causeway import __version__
from causeway.app import ChainConfig
from causeway.apps.mobs.context import CHAIN, Services
from causeway.apps.mobs.settings import MobsSettings
from causeway.base.errors import ConfigurationError

log = structlog.get_logger(__name__)


def _report_errors(dsn: SecretStr) -> None:
    """Have unhandled errors reported, without what people sent us.

    Raises `ConfigurationError` where the package for that is missing: better than silence.
    """
    try:
        sentry: Any = importlib.import_module("sentry_sdk")
    except ImportError:
        raise ConfigurationError(
            ["SENTRY_DSN: the package sentry-sdk is not installed"],
            hint="pip install sentry-sdk, or take SENTRY_DSN away",
        ) from None
    sentry.init(dsn=dsn.get_secret_value(), release=__version__, send_default_pii=False)


@asynccontextmanager
async def services(settings: MobsSettings) -> AsyncGenerator[Services]:
    """Open the clients until the block is left."""
    if settings.admin_token is None:
        log.info("changes_from_this_machine_only", hint="set MOBS_ADMIN_TOKEN to allow others")
    if settings.sentry_dsn is not None:
        _report_errors(settings.sentry_dsn)
    async with aiohttp.ClientSession(
        headers={"user-agent": "causeway"}, cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        made = Services(http)
        try:
            yield made
        finally:
            if made.health is not None:
                made.health.cancel()


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
