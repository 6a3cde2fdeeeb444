"""Linking people's accounts to their wallets: what the routes of connections do."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy import text

from causeway.apps.motify.context import MotifyContext, connections_of
from causeway.apps.motify.oauth_result import Result
from causeway.apps.motify.schemas import ProviderNotSupported, WakaTimeRefused
from causeway.apps.motify.signatures import Proof
from causeway.base.clock import iso
from causeway.base.errors import (
    CausewayError,
    Conflict,
    NotAuthenticated,
    ProviderUnavailable,
    TransientError,
)
from causeway.connections import flow
from causeway.connections.access import Provider
from causeway.connections.credential import Account, Credential, Tokens
from causeway.connections.errors import (
    AccountTaken,
    AuthorizationFailed,
    CredentialRefused,
    NotConnected,
)
from causeway.connections.vault import Connection
from causeway.connections.wakatime import is_api_key

log = structlog.get_logger(__name__)

#: Somebody who asks how things stand waits for a refresh no longer than this, seconds.
_PATIENCE_S = 5.0


def by_oauth(ctx: MotifyContext, provider: str) -> Provider:
    """Return a provider that accounts are linked to by OAuth, by its name in any case."""
    known: dict[str, Provider] = {"github": ctx.services.github}
    found = known.get(provider.lower())
    if found is None:
        raise ProviderNotSupported(provider)
    return found


async def usable(ctx: MotifyContext, provider: str, wallet: str) -> Connection | None:
    """Return a wallet's connection if it works as far as is known; an old token is refreshed."""
    connections = connections_of(ctx)
    found = await connections.vault.find(provider, wallet)
    if found is None or not found.is_usable(ctx.clock.now()):
        return None
    if found.expires_at is None or found.expires_at > ctx.clock.now():
        return found
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await connections.credential(provider, wallet)
    except (CredentialRefused, NotConnected):
        return None
    except (TransientError, TimeoutError):
        return found  # not known now; it can still be refreshed
    return await connections.vault.find(provider, wallet)


async def oauth_status(ctx: MotifyContext, provider: Provider, wallet: str) -> dict[str, Any]:
    """Return whether a wallet has an account there, and which."""
    found = await usable(ctx, provider.name, wallet)
    answer: dict[str, Any] = {
        "has_credentials": found is not None,
        "provider": provider.name,
        "wallet_address": wallet,
    }
    if found is not None:
        answer["connected_at"] = iso(found.connected_at)
        if found.account is not None and found.account.name is not None:
            answer["username"] = found.account.name
    return answer


async def finish(
    ctx: MotifyContext,
    provider: str,
    *,
    code: str | None,
    state: str | None,
    error: str | None,
) -> Result:
    """Complete the provider's callback, whatever it holds; every failure has its code."""
    name = provider.lower()
    try:
        connection = await flow.finish(
            connections_of(ctx).vault, by_oauth(ctx, name), code=code, state=state, error=error
        )
    except ProviderNotSupported:
        # No state was ever made for it.
        denied = "access_denied" if error == "access_denied" else "provider_error"
        return Result(name, denied if error else "invalid_state")
    except AuthorizationFailed as failed:
        return Result(name, failed.code)
    except Exception as failure:  # noqa: BLE001 (a browser is waiting: it is always told)
        log.error("connection_not_stored", provider=name, error=failure)
        return Result(name, "database_error")
    wallet, account = connection.subject, connection.account
    if account is not None and await _counted_for_another(ctx, name, account, wallet):
        await connections_of(ctx).vault.remove(name, wallet)
        return Result(name, "account_already_linked")
    log.info("account_linked", provider=name, wallet=wallet)
    return Result(name, None, wallet)


async def save_wakatime_key(ctx: MotifyContext, wallet: str, api_key: str) -> None:
    """Keep a key that WakaTime takes, for a wallet that has proved to be that.

    Raises `WakaTimeRefused`, `Conflict` when that account is another wallet's, and
    `ProviderUnavailable` when WakaTime cannot be asked.
    """
    key = SecretStr(api_key)
    try:
        account = await ctx.services.wakatime.account(Credential("wakatime", "api_key", key))
    except CredentialRefused:
        raise WakaTimeRefused("WakaTime rejected this API key") from None
    except CausewayError as error:
        log.warning("wakatime_key_not_checked", error=error)
        raise ProviderUnavailable(
            "WakaTime cannot be asked about this key now; try again",
            retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
        ) from None
    taken = Conflict("This WakaTime account is connected to another wallet")
    if await _counted_for_another(ctx, "wakatime", account, wallet):
        raise taken
    try:
        vault = connections_of(ctx).vault
        await vault.save("wakatime", wallet, Tokens(key, kind="api_key"), account)
    except AccountTaken:
        raise taken from None
    log.info("account_linked", provider="wakatime", wallet=wallet)


async def _counted_for_another(
    ctx: MotifyContext, provider: str, account: Account, wallet: str
) -> bool:
    """Say whether an account was read for somebody else in a challenge that this wallet is in.

    Let go by one and taken by the next, it would score for both.
    """
    async with ctx.database.sessions() as session:
        found = await session.scalar(
            _COUNTED, {"provider": provider, "account": account.id, "wallet": wallet}
        )
    return bool(found)


_COUNTED = text(
    """
    SELECT EXISTS (SELECT FROM motify.settlements c
        JOIN motify.scores mine ON mine.settlement_id = c.id AND mine.wallet = :wallet
        JOIN motify.scores other ON other.settlement_id = c.id AND other.wallet <> :wallet
        JOIN motify.readings r ON r.score_id = other.id
        WHERE c.status IN ('live', 'measuring') AND r.provider = :provider
            AND r.account ->> 'id' = :account)
    """
)


def check_wakatime_key(api_key: str) -> None:
    """Raise `WakaTimeRefused` for what has not the form of a key."""
    if not is_api_key(api_key):
        raise WakaTimeRefused("Invalid WakaTime API key format")


def proof_of(ctx: MotifyContext, signature: str | None, timestamp: int | None) -> Proof | None:
    """Return the signature of a WakaTime call with its time; None where it may do without.

    Raises `NotAuthenticated` when it may not. A signature that is given is always checked.
    """
    if signature is None and timestamp is None and ctx.settings.motify_allow_unsigned_wakatime:
        return None
    if signature is None or timestamp is None:
        raise NotAuthenticated("signature and timestamp are required: sign with your wallet")
    return Proof(signature, timestamp)
