"""The clients that live as long as the process, made from the settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from causeway.app import ChainConfig, SignerConfig
from causeway.apps.glisk.context import GliskContext, Services
from causeway.apps.glisk.generators import build_generators
from causeway.apps.glisk.linking_farcaster import OPTIMISM, FarcasterLinker
from causeway.apps.glisk.linking_x import XClient
from causeway.apps.glisk.pinning import build_pinner
from causeway.apps.glisk.reveals import reveal_kind
from causeway.apps.glisk.settings import GliskSettings
from causeway.apps.glisk.units import CHAIN
from causeway.base.http import HttpClient
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import LocalSigner, Signer
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl


@asynccontextmanager
async def services(settings: GliskSettings) -> AsyncGenerator[Services]:
    """Open the clients until the block is left."""
    async with AsyncExitStack() as stack:
        generators = build_generators(settings)
        stack.push_async_callback(generators.aclose)
        pinner = build_pinner(settings)
        if pinner is not None:
            stack.push_async_callback(pinner.aclose)
        yield Services(
            generators=generators,
            pinner=pinner,
            x=_x_client(settings, stack),
            farcaster=_farcaster(settings, stack),
        )


def _x_client(settings: GliskSettings, stack: AsyncExitStack) -> XClient | None:
    client_id, secret = settings.x_client_id, settings.x_client_secret
    if client_id is None or secret is None or settings.x_redirect_uri is None:
        return None
    http = HttpClient(name="x", base_url=settings.x_api_base_url, timeout_s=15)
    stack.push_async_callback(http.aclose)
    return XClient(
        http,
        client_id=client_id,
        client_secret=secret,
        redirect_uri=settings.x_redirect_uri,
        authorize_url=settings.x_authorize_url,
    )


def _farcaster(settings: GliskSettings, stack: AsyncExitStack) -> FarcasterLinker:
    http = HttpClient(name="farcaster", base_url=settings.farcaster_hub_url, timeout_s=15)
    stack.push_async_callback(http.aclose)
    chain = None
    if settings.farcaster_rpc_urls:
        pool = ProviderPool(
            [
                Endpoint(SecretUrl(url.get_secret_value()), f"optimism-{number}")
                for number, url in enumerate(settings.farcaster_rpc_urls, 1)
            ]
        )
        stack.push_async_callback(pool.close)
        chain = EvmChain("optimism", OPTIMISM, pool)
    return FarcasterLinker(http, chain, site=settings.frontend_url)


def chains(settings: GliskSettings) -> Sequence[ChainConfig]:
    """Return the one chain GLISK reads; none when it is not configured."""
    if settings.missing() or settings.chain_id is None:
        return ()
    return (
        ChainConfig(
            CHAIN,
            settings.chain_id,
            settings.providers,
            poll_s=settings.glisk_poll_seconds,
            log_range=settings.glisk_log_range,
        ),
    )


def signers(ctx: GliskContext) -> Sequence[SignerConfig]:
    """Return the keepers, when any is configured and reveals are made here."""
    keepers = keepers_of(ctx)
    if not keepers or CHAIN not in ctx.chains:
        return ()
    return (SignerConfig(CHAIN, keepers, (reveal_kind(ctx.settings),)),)


def keepers_of(ctx: GliskContext) -> tuple[Signer, ...]:
    """Return who signs reveals: by the installation's settings, else the app's own key."""
    own = None if CHAIN in ctx.signers else keeper(ctx.settings)
    return ctx.signers.get(CHAIN, () if own is None else (own,))


def keeper(settings: GliskSettings) -> Signer | None:
    """Return who signs reveals, None when no key is set."""
    if settings.keeper_private_key is not None:
        return LocalSigner.from_private_key(settings.keeper_private_key)
    if settings.keeper_keystore is not None:
        return LocalSigner.from_keystore(
            settings.keeper_keystore, settings.keeper_keystore_password or ""
        )
    return None
