"""Before somebody stakes: can the goal be measured, and would their account be read?

The account is tried at its provider, so that a token that was taken back is found out now. Anybody
may ask about any wallet, so accounts are tried only so often: what people's providers allow is
needed for scores.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from causeway.apps.motify.context import MotifyContext, connections_of, contract_of
from causeway.apps.motify.goals import Goal, Measure, Provider, Quantity
from causeway.apps.motify.models import ChainChallenge, ChainParticipant, FarcasterAccount
from causeway.apps.motify.rules import Terms, goal_for
from causeway.base.clock import iso
from causeway.base.errors import CausewayError, NotFound, TransientError
from causeway.connections.credential import Account
from causeway.connections.errors import CredentialRefused, NoData, NotConnected

#: An account is tried this often in so many seconds; wallets whose Farcaster account is not known
#: yet are looked up with our own key, all of them together this often.
_MOST_TRIES = 20
_MOST_LOOKUPS = 100
_WINDOW_S = 300.0
_MOST_REMEMBERED = 10_000
#: How long somebody waits for a provider, seconds.
_PATIENCE_S = 12.0

_UNITS = {
    Quantity.CONTRIBUTIONS: "contributions",
    Quantity.COMMITS: "commits",
    Quantity.PULL_REQUESTS: "pull requests",
    Quantity.CASTS: "casts",
    Quantity.CODING_SECONDS: "hours of coding",
}
_NOTES = {
    Provider.GITHUB: "Public contributions count; private ones only while your GitHub profile "
    "shows them.",
    Provider.WAKATIME: "Free WakaTime accounts forget old days: each day is read when it is over.",
    Provider.FARCASTER: "The Farcaster account that verified this wallet counts.",
}


@dataclass(frozen=True)
class Standing:
    """How somebody's account stands."""

    #: None: it could not be found out now.
    connected: bool | None
    working: bool | None = None
    name: str | None = None
    problem: str | None = None


async def readiness_of(ctx: MotifyContext, challenge_id: int, wallet: str) -> dict[str, Any]:
    """Return whether a wallet is ready for a challenge, and why not; `NotFound` without it."""
    terms = await _terms(ctx, challenge_id)
    goal = goal_for(terms)
    problems: list[str] = []
    standing: Standing | None = None
    if goal is None:
        problems.append(
            "Nobody defined how this goal is measured: an operator has to, before anything is paid"
        )
    else:
        standing = await _standing(ctx, goal.provider, wallet)
        if standing.problem is not None:
            problems.append(standing.problem)
    default_ppm, without_ppm = ctx.settings.fallbacks
    return {
        "challenge_id": str(challenge_id),
        "wallet": wallet,
        "ready": standing is not None and standing.working is True,
        "scorable": goal is not None,
        "joined": await _has_joined(ctx, challenge_id, wallet),
        "goal": None if goal is None else _goal(goal),
        "days": [] if goal is None else [str(day) for day in goal.days],
        "needs": None if goal is None else _needs(goal),
        "account": None
        if goal is None or standing is None
        else {
            "provider": goal.provider.value,
            "connected": standing.connected,
            "working": standing.working,
            "username": standing.name,
        },
        "if_not_connected": {"percent_ppm": without_ppm, "meaning": _back(without_ppm)},
        "if_not_readable": {"percent_ppm": default_ppm, "meaning": _back(default_ppm)},
        "notes": [] if goal is None else [_NOTES[goal.provider]],
        "problems": problems,
    }


def _goal(goal: Goal) -> dict[str, Any]:
    return {
        "provider": goal.provider.value,
        "measure": goal.measure.value,
        "quantity": goal.quantity.value,
        "amount": str(goal.amount),
        "begins_at": iso(goal.window.begin_at),
        "ends_at": iso(goal.window.end_at),
    }


def _needs(goal: Goal) -> str:
    amount = goal.amount // 3600 if goal.quantity is Quantity.CODING_SECONDS else goal.amount
    what = f"{amount} {_UNITS[goal.quantity]}"
    if goal.measure is Measure.DAYS:
        return f"At least {what} on each of {len(goal.days)} days (UTC); days without cost a part"
    return f"{what} in all, on {len(goal.days)} days (UTC); less gives back a part"


def _back(ppm: int) -> str:
    percent = f"{ppm / 10_000:.4f}".rstrip("0").rstrip(".")
    return f"{percent} % of the stake comes back"


async def _terms(ctx: MotifyContext, challenge_id: int) -> Terms:
    async with ctx.database.sessions() as session:
        row = await session.scalar(
            select(ChainChallenge).where(
                ChainChallenge.chain_id == ctx.settings.chain_id,
                ChainChallenge.contract_address == ctx.settings.contract,
                ChainChallenge.challenge_id == challenge_id,
            )
        )
    if row is not None and row.start_time is not None and row.end_time is not None:
        goal_amount = int(row.goal_amount or 0)
        return Terms(
            row.start_time, row.end_time, row.api_type or "", row.goal_type or "", goal_amount
        )
    # Just made, and not read yet.
    found = await contract_of(ctx).challenge(challenge_id, "latest")
    if found is None:
        raise NotFound(f"challenge {challenge_id} does not exist")
    window = found.window
    return Terms(window.start, window.end, found.api_type, found.goal_type, found.goal_amount)


async def _has_joined(ctx: MotifyContext, challenge_id: int, wallet: str) -> bool:
    async with ctx.database.sessions() as session:
        found = await session.scalar(
            select(ChainParticipant.participant_address).where(
                ChainParticipant.chain_id == ctx.settings.chain_id,
                ChainParticipant.contract_address == ctx.settings.contract,
                ChainParticipant.challenge_id == challenge_id,
                ChainParticipant.participant_address == wallet,
            )
        )
    return found is not None


async def _standing(ctx: MotifyContext, provider: Provider, wallet: str) -> Standing:
    name = {"github": "GitHub", "wakatime": "WakaTime", "farcaster": "Farcaster"}[provider]
    # Who has a Farcaster account is for Farcaster to say; the others are connected here.
    unsure = None if provider is Provider.FARCASTER else True
    try:
        async with asyncio.timeout(_PATIENCE_S):
            if provider is Provider.FARCASTER:
                account = await _farcaster(ctx, wallet)
            else:
                account = await _tried(ctx, provider, wallet)
    except (NotConnected, NoData):
        told = "has verified this wallet" if provider is Provider.FARCASTER else "is connected"
        return Standing(False, False, problem=f"No {name} account {told}")
    except CredentialRefused:
        told = f"{name} refuses the credentials of this wallet: connect the account again"
        return Standing(True, False, problem=told)
    except _TriedTooOften:
        told = f"This account was tried often just now, and {name} is not asked again yet"
        return Standing(unsure, None, problem=told)
    except (TransientError, TimeoutError):
        return Standing(unsure, None, problem=f"{name} does not answer now; try again")
    except CausewayError:
        return Standing(
            unsure, None, problem=f"{name} cannot be asked from here: tell the operator"
        )
    return Standing(True, True, account.name)


class _TriedTooOften(CausewayError):
    """It was tried too often."""


async def _tried(ctx: MotifyContext, provider: Provider, wallet: str) -> Account:
    connections = connections_of(ctx)
    known = await connections.vault.find(provider.value, wallet)
    if known is None:
        raise NotConnected
    if not _may_try(ctx, (provider.value, wallet), _MOST_TRIES):
        raise _TriedTooOften
    client = ctx.services.github if provider is Provider.GITHUB else ctx.services.wakatime
    found = await connections.call(provider.value, wallet, client.account)
    if known.account is not None and found.id != known.account.id:
        raise CredentialRefused
    return found


async def _farcaster(ctx: MotifyContext, wallet: str) -> Account:
    async with ctx.database.sessions() as session:
        fid = await session.scalar(
            select(FarcasterAccount.fid).where(FarcasterAccount.wallet == wallet)
        )
    neynar = ctx.services.neynar
    if neynar is None:
        raise CausewayError("NEYNAR_API_KEY is not set")
    if fid is None:
        if not _may_try(ctx, ("farcaster", ""), _MOST_LOOKUPS):
            raise _TriedTooOften
        # Not kept: which account counts is settled when the challenge begins.
        fid = await neynar.account(wallet)
    return Account(str(fid), str(fid))


def _may_try(ctx: MotifyContext, key: tuple[str, str], most: int) -> bool:
    now, tried = ctx.clock.monotonic(), ctx.services.tried
    times = tried.pop(key, None) or deque[float]()
    while times and times[0] <= now - _WINDOW_S:
        times.popleft()
    while len(tried) >= _MOST_REMEMBERED:
        tried.pop(next(iter(tried)))
    tried[key] = times  # the last one used is the last one forgotten
    if len(times) >= most:
        return False
    times.append(now)
    return True
