"""Using a connection: its token is fresh, or refreshed by one process while the others wait.

Providers give a new refresh token with each refresh and take the old one back, so a token is never
refreshed twice: a lease lets one process do it, and what it gets is stored before anything else,
even when the caller has gone away meanwhile.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog
from prometheus_client import Counter
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, ProviderUnavailable
from causeway.base.faults import fault_point
from causeway.connections.credential import Account, Credential, Tokens
from causeway.connections.errors import CredentialRefused, NotConnected
from causeway.connections.oauth import OAuthClient
from causeway.connections.vault import Connection, Opened, Vault, lease_name
from causeway.store import lease

_log = structlog.get_logger(__name__)

REFRESHES = Counter(
    "causeway_connection_refreshes_total",
    "Refreshes of tokens: stored, refused, failed, overtaken",
    ["provider", "outcome"],
)

#: For how long one refresh keeps the others away: longer than the provider may take.
LEASE_S = 60.0
#: How long somebody with an expired token waits for another's refresh, and how often they look.
WAIT_S = 30.0
LOOK_S = 0.1

#: Pauses between tries to store a token that was just received; together less than the lease.
STORE_PAUSES_S = (0.2, 0.5, 1, 2, 4, 8, 16)

T = TypeVar("T")


class Provider(Protocol):
    """What a provider that people connect to can do; `github.GitHub` is one."""

    @property
    def name(self) -> str:
        """How it is called in addresses and tables."""
        ...

    @property
    def oauth(self) -> OAuthClient | None:
        """Its OAuth addresses; None when our application there is not set up."""
        ...

    async def account(self, credential: Credential) -> Account:
        """Return whose token that is."""
        ...

    async def revoke(self, token: SecretStr) -> None:
        """Make a token of ours worthless."""
        ...


class Connections:
    """The connections of one app, in use."""

    def __init__(
        self, vault: Vault, providers: Mapping[str, Provider], *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.vault = vault
        self.providers = providers
        self._clock = clock
        self._refreshing: set[asyncio.Task[Opened]] = set()

    async def call(
        self, provider: str, subject: str, work: Callable[[Credential], Awaitable[T]]
    ) -> T:
        """Return what `work` makes of this person's credential.

        A refused credential is tried once more when there is a newer one or it can be refreshed;
        refused for good, that is noted on the connection. Raises `NotConnected`,
        `CredentialRefused`, and what `work` raises.
        """
        opened = await self._fresh(provider, subject)
        try:
            result = await work(opened.credential)
        except CredentialRefused as refused:
            newer = await self._newer(opened)
            if newer is None:
                await self.vault.rejected(opened.connection, refused.message)
                raise
            opened = newer
            try:
                result = await work(newer.credential)
            except CredentialRefused as again:
                await self.vault.rejected(newer.connection, again.message)
                raise
        if opened.connection.rejected_at is not None:
            await self.vault.rejected(opened.connection, None)
        return result

    async def credential(self, provider: str, subject: str) -> Credential:
        """Return this person's credential, refreshed when it is near its end.

        Raises `NotConnected`, `CredentialRefused`, or what is transient at the provider.
        """
        return (await self._fresh(provider, subject)).credential

    async def aclose(self) -> None:
        """Wait until what is being refreshed is stored."""
        await asyncio.gather(*self._refreshing, return_exceptions=True)

    async def _opened(self, provider: str, subject: str) -> Opened:
        opened = await self.vault.open(provider, subject)
        if opened is None:
            raise NotConnected(f"no {provider} account is connected", provider=provider)
        return opened

    async def _fresh(self, provider: str, subject: str) -> Opened:
        opened = await self._opened(provider, subject)
        if not self._is_due(opened.connection):
            return opened
        return await self._refreshed(opened)

    async def _newer(self, refused: Opened) -> Opened | None:
        """Return another credential than the one that was refused, None when there is none."""
        seen = refused.connection
        current = await self.vault.open(seen.provider, seen.subject)
        if current is None:
            return None
        if current.connection.version != seen.version:
            return current
        if not self._can_refresh(current):
            return None
        refreshed = await self._refreshed(current, refused=True)
        return None if refreshed.connection.version == seen.version else refreshed

    async def _refreshed(self, opened: Opened, *, refused: bool = False) -> Opened:
        """Return a newer credential, made here or by another process.

        While the old one still works it is returned when somebody else is at it, or when the
        provider is away.
        """
        if not self._can_refresh(opened):
            if self._is_over(opened.connection):
                why = f"the {opened.connection.provider} token has expired"
                await self.vault.rejected(opened.connection, why)
                raise CredentialRefused(why, provider=opened.connection.provider)
            return opened
        seen = opened.connection
        waited_s = 0.0
        while True:
            held = await lease.acquire(
                self.vault.database, lease_name(seen.id), uuid.uuid4().hex, LEASE_S
            )
            if held is not None:
                # Not the caller's task: who gives up must not take the new token along.
                task = asyncio.create_task(self._refresh(seen, held, refused=refused))
                self._refreshing.add(task)
                task.add_done_callback(self._refreshing.discard)
                return await asyncio.shield(task)
            if not refused and not self._is_over(seen):
                return opened
            if waited_s >= WAIT_S:
                raise ProviderUnavailable(f"the {seen.provider} token is still being refreshed")
            await self._clock.sleep(LOOK_S)
            waited_s += LOOK_S
            opened = await self._opened(seen.provider, seen.subject)
            if opened.connection.version != seen.version:
                return opened

    async def _refresh(self, seen: Connection, held: lease.Lease, *, refused: bool) -> Opened:
        """Refresh under the lease, which is given back."""
        try:
            opened = await self._opened(seen.provider, seen.subject)
            if opened.connection.version != seen.version:
                return opened
            return await self._replaced(opened, refused=refused)
        finally:
            await lease.release(self.vault.database, held)

    async def _replaced(self, opened: Opened, *, refused: bool) -> Opened:
        seen = opened.connection
        oauth = self.providers[seen.provider].oauth
        if oauth is None or opened.refresh_token is None:
            return opened
        try:
            tokens = await oauth.refresh(opened.refresh_token)
        except CredentialRefused as error:
            current = await self._opened(seen.provider, seen.subject)
            if current.connection.version != seen.version:
                # We were away for longer than the lease, and somebody else was first.
                return current
            REFRESHES.labels(seen.provider, "refused").inc()
            await self.vault.rejected(seen, error.message)
            raise
        except CausewayError as error:
            REFRESHES.labels(seen.provider, "failed").inc()
            if refused or self._is_over(seen):
                raise
            _log.warning("refresh_failed", provider=seen.provider, why=error.message)
            return opened
        fault_point("connections.refreshed")
        stored = await self._stored(seen, tokens)
        fault_point("connections.stored")
        if not stored:
            # The person connected again, or let go, meanwhile.
            await self.vault.discard(seen.provider, tokens.access_token)
        REFRESHES.labels(seen.provider, "stored" if stored else "overtaken").inc()
        return await self._opened(seen.provider, seen.subject)

    async def _stored(self, seen: Connection, tokens: Tokens) -> bool:
        """Keep new tokens, also when the database is away for a moment: there are no others."""
        for pause_s in (*STORE_PAUSES_S, None):
            try:
                if await self.vault.replace(seen, tokens):
                    return True
                # An earlier try may have been done without our being told.
                current = await self.vault.open(seen.provider, seen.subject)
            except OperationalError:
                if pause_s is None:
                    raise
                _log.warning("token_not_stored_yet", provider=seen.provider)
                await self._clock.sleep(pause_s)
            else:
                return current is not None and current.access_token == tokens.access_token
        raise AssertionError("unreachable")

    def _can_refresh(self, opened: Opened) -> bool:
        c = opened.connection
        provider = self.providers.get(c.provider)
        over = c.refresh_expires_at is not None and c.refresh_expires_at <= self._clock.now()
        has_oauth = provider is not None and provider.oauth is not None
        return opened.refresh_token is not None and has_oauth and not over

    def _is_due(self, c: Connection) -> bool:
        provider = self.providers.get(c.provider)
        oauth = provider.oauth if provider else None
        early = timedelta(seconds=oauth.app.refresh_early_s if oauth else 0)
        return c.expires_at is not None and c.expires_at - early <= self._clock.now()

    def _is_over(self, c: Connection) -> bool:
        return c.expires_at is not None and c.expires_at <= self._clock.now()
