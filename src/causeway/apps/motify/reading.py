"""Asking a provider about one participant, and telling the ways it can fail apart.

A failure of the provider says nothing about the person: only `no_connection` and `rejected` are
the person's own, and everything else is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from causeway.apps.motify import counting
from causeway.apps.motify.context import MotifyContext, connections_of
from causeway.apps.motify.counting import Count
from causeway.apps.motify.goals import Goal, Provider
from causeway.apps.motify.models import FarcasterAccount
from causeway.apps.motify.troubles import Trouble
from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.connections.credential import Credential
from causeway.connections.errors import CredentialRefused, NoData, NotConnected
from causeway.store.encryption import Undecryptable


@dataclass(frozen=True)
class Read:
    """What a provider said."""

    account: dict[str, Any]
    asked: dict[str, Any]
    answered: Any = field(repr=False)
    count: Count = field(repr=False)
    #: Whether the provider had been away: the others who wait for it need not wait longer.
    is_back: bool = False


@dataclass(frozen=True)
class NotRead:
    """Why a provider said nothing that counts."""

    trouble: Trouble
    why: str
    #: When the provider said to come back, seconds.
    retry_after_s: float | None = None


async def read(
    ctx: MotifyContext, goal: Goal, wallet: str, until: date, known: Mapping[date, int]
) -> Read | NotRead:
    """Ask about the goal's days up to `until`; `known` are days that need not be asked for again.

    Never raises for what a provider does; errors of ours (a bug, the database) are raised.
    """
    days = [day for day in goal.days if day <= until]
    if not days:
        return NotRead(Trouble.NO_DATA, "the challenge has not begun")
    outages, provider = ctx.services.outages, goal.provider
    wait_s = outages.wait_s(provider, ctx.clock.monotonic())
    if wait_s is not None:
        return NotRead(Trouble.UNAVAILABLE, f"{provider.value} is away", wait_s)
    try:
        if provider is Provider.GITHUB:
            found = await _github(ctx, goal, wallet, days)
        elif provider is Provider.WAKATIME:
            found = await _wakatime(ctx, goal, wallet, days, known)
        else:
            found = await _farcaster(ctx, goal, wallet)
    except ProviderUnavailable as error:
        outages.failed(provider, ctx.clock.monotonic())
        return NotRead(Trouble.UNAVAILABLE, error.message, error.retry_after_s)
    except CausewayError as error:
        if isinstance(error, CredentialRefused | NoData | RateLimited):
            outages.answered(provider)
        return _not_read(error)
    return replace(found, is_back=outages.answered(provider))


def _not_read(error: CausewayError) -> NotRead:
    if isinstance(error, NotConnected):
        return NotRead(Trouble.NO_CONNECTION, error.message)
    if isinstance(error, CredentialRefused):
        return NotRead(Trouble.REJECTED, error.message)
    if isinstance(error, NoData):
        return NotRead(Trouble.NO_DATA, error.message)
    if isinstance(error, ConfigurationError | Undecryptable):
        return NotRead(Trouble.MISCONFIGURED, error.message)
    # An answer that nobody foresaw is theirs to mend, and no verdict on the person, either.
    retry_after_s = error.retry_after_s if isinstance(error, TransientError) else None
    return NotRead(Trouble.UNAVAILABLE, error.message, retry_after_s)


async def _github(ctx: MotifyContext, goal: Goal, wallet: str, days: list[date]) -> Read:
    first, last = days[0], days[-1]

    async def ask(credential: Credential) -> Read:
        found = await ctx.services.github.contributions(credential, first, last)
        answered = list(found.readings)
        return Read(
            {"id": found.account.id, "name": found.account.name},
            {"operation": "contributionsCollection", "from": str(first), "to": str(last)},
            answered,
            counting.count(goal, answered),
        )

    return await connections_of(ctx).call("github", wallet, ask)


async def _wakatime(
    ctx: MotifyContext, goal: Goal, wallet: str, days: list[date], known: Mapping[date, int]
) -> Read:
    # Days that were read when they were over need no second reading: a free account forgets them.
    unknown = [day for day in days if day not in known] or days[-1:]
    first, last = unknown[0], unknown[-1]

    async def ask(credential: Credential) -> Read:
        found = await ctx.services.wakatime.summaries(credential, first, last)
        answered = counting.reduced(found.reading)
        who = credential.account
        return Read(
            {"id": who.id if who else None, "name": who.name if who else None},
            {"operation": "summaries", "start": str(first), "end": str(last), "timezone": "UTC"},
            answered,
            counting.count(goal, answered),
        )

    return await connections_of(ctx).call("wakatime", wallet, ask)


async def _farcaster(ctx: MotifyContext, goal: Goal, wallet: str) -> Read:
    neynar = ctx.services.neynar
    if neynar is None:
        raise ConfigurationError(["NEYNAR_API_KEY is not set, and a Farcaster challenge is live"])
    fid = await farcaster_account(ctx, wallet)
    window = goal.window
    casts = await neynar.casts(fid, window.begin_at, window.end_at)
    answered = [{"hash": c.hash, "at": c.at.isoformat().replace("+00:00", "Z")} for c in casts]
    asked = {"operation": "casts", "fid": fid, "from": window.start, "before": window.end}
    return Read({"id": str(fid), "name": None}, asked, answered, counting.count(goal, answered))


async def farcaster_account(ctx: MotifyContext, wallet: str) -> int:
    """Return a wallet's Farcaster id, kept from its first use on.

    Raises `NotConnected` when nobody verified that wallet there.
    """
    async with ctx.database.transaction() as session:
        kept = await session.scalar(
            select(FarcasterAccount.fid).where(FarcasterAccount.wallet == wallet)
        )
    if kept is not None:
        return kept
    neynar = ctx.services.neynar
    if neynar is None:
        raise ConfigurationError(["NEYNAR_API_KEY is not set"])
    try:
        fid = await neynar.account(wallet)
    except NoData as error:
        raise NotConnected(error.message, provider="farcaster") from None
    async with ctx.database.transaction() as session:
        await session.execute(
            insert(FarcasterAccount).values(wallet=wallet, fid=fid).on_conflict_do_nothing()
        )
        kept = await session.scalar(
            select(FarcasterAccount.fid).where(FarcasterAccount.wallet == wallet)
        )
    return fid if kept is None else kept


def utc_date(chain_time: int) -> date:
    """Return the UTC date of a chain time."""
    return datetime.fromtimestamp(chain_time, UTC).date()
