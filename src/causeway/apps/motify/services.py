"""The clients that live as long as the process, made from the settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from causeway.app import ChainConfig, SignerConfig
from causeway.apps.motify.context import CHAIN, MotifyContext, Services
from causeway.apps.motify.contract import load_abi
from causeway.apps.motify.declaring import declare_kind, finalize_kind
from causeway.apps.motify.settings import MotifySettings
from causeway.base.http import HttpClient
from causeway.chains.evm.signer import LocalSigner, Signer
from causeway.connections import github
from causeway.connections.client import Manner
from causeway.connections.github import GitHub
from causeway.connections.limits import Rate
from causeway.connections.neynar import Neynar
from causeway.connections.wakatime import WakaTime
from causeway.relayer.lane import RelayerSettings

log = structlog.get_logger(__name__)


@asynccontextmanager
async def services(settings: MotifySettings) -> AsyncGenerator[Services]:
    """Open the clients until the block is left."""
    ignored = settings.ignored()
    if ignored:
        log.info("settings_ignored", names=ignored, why="storage is this installation's PostgreSQL")
    if settings.motify_allow_unsigned_wakatime:
        log.warning("unsigned_wakatime_calls_allowed", hint="anybody may overwrite anybody's key")
    async with AsyncExitStack() as stack:
        hub = GitHub(api_url=settings.github_api_base_url, app=_github_app(settings))
        stack.push_async_callback(hub.aclose)
        waka = WakaTime(api_url=settings.wakatime_api_base_url)
        stack.push_async_callback(waka.aclose)
        neynar = _neynar(settings)
        if neynar is not None:
            stack.push_async_callback(neynar.aclose)
        reminders = None
        if settings.reminder_webhook_url is not None:
            reminders = HttpClient(
                name="reminders", base_url=settings.reminder_webhook_url, timeout_s=10
            )
            stack.push_async_callback(reminders.aclose)
        made = Services(hub, waka, neynar, reminders, load_abi(settings))
        yield made
        if made.connections is not None:
            await made.connections.aclose()


def _github_app(settings: MotifySettings) -> github.OAuthApp | None:
    client_id, secret = settings.github_client_id, settings.github_client_secret
    if client_id is None or secret is None:
        return None
    return github.oauth_app(
        client_id,
        secret,
        f"{settings.backend_url}/oauth/callback/github",
        oauth_url=settings.github_oauth_base_url,
    )


def _neynar(settings: MotifySettings) -> Neynar | None:
    if settings.neynar_api_key is None:
        return None
    return Neynar(
        settings.neynar_api_key,
        api_url=settings.neynar_api_base_url,
        casts_url=settings.farcaster_user_casts_url,
        manner=Manner(rate=Rate(settings.neynar_requests_per_minute, 60)),
    )


def chains(settings: MotifySettings) -> Sequence[ChainConfig]:
    """Return the one chain Motify reads; none when it is not configured."""
    if settings.missing():
        return ()
    return (
        ChainConfig(
            CHAIN,
            settings.chain_id,
            settings.web3_rpc_url,
            poll_s=settings.motify_poll_seconds,
            log_range=settings.motify_log_range,
        ),
    )


def signers(ctx: MotifyContext) -> Sequence[SignerConfig]:
    """Return the contract's owner, when declarations are made here."""
    owners = owners_of(ctx)
    if not ctx.settings.send_tx or not owners or CHAIN not in ctx.chains:
        return ()
    limits = RelayerSettings(gas_limit_max=ctx.settings.gas_limit or MOST_GAS)
    return (SignerConfig(CHAIN, owners, (declare_kind(ctx), finalize_kind(ctx)), settings=limits),)


#: What one transaction may have (EIP-7825).
MOST_GAS = 2**24


def owners_of(ctx: MotifyContext) -> tuple[Signer, ...]:
    """Return who signs: by the installation's settings, else the app's own key."""
    if CHAIN in ctx.signers:
        return ctx.signers[CHAIN]
    key = ctx.settings.private_key
    return () if key is None else (LocalSigner.from_private_key(key),)
