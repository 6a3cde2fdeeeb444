"""Farcaster through Neynar: whose account a wallet has verified, and what they cast.

There is no token of the person: we ask with our own key, whose limits hold for all. Neynar counts
requests a minute for each key and plan; beyond, 429.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import InvalidInput, ProviderUnavailable
from causeway.base.http import Response
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.errors import NoData
from causeway.connections.limits import Rate

API_URL = "https://api.neynar.com"
CASTS_PATH = "/v2/farcaster/feed/user/casts/"

#: Of the smallest paid plan, for one endpoint.
RATE = Rate(300, 60)
MOST_ADDRESSES = 350
PAGE = 150
#: No one wrote more; a provider that always has another page must not keep us for ever.
MOST_PAGES = 10_000

_EMPTY = frozenset({404})
#: Numbers above are milliseconds: in seconds, this is the year 5138.
_MILLISECONDS_FROM = 100_000_000_000


@dataclass(frozen=True)
class Cast:
    """One message."""

    hash: str
    at: datetime


class _User(BaseModel):
    fid: int = Field(gt=0)


class _Cast(BaseModel):
    hash: str = Field(min_length=1)
    timestamp: str | int | float


class _Next(BaseModel):
    cursor: str | None = None


class _Page(BaseModel):
    casts: list[_Cast]
    next: _Next | None = None


class Neynar:
    """Neynar's API, with our key."""

    name = "farcaster"

    def __init__(
        self,
        api_key: SecretStr,
        *,
        api_url: str = API_URL,
        casts_url: str | None = None,
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not api_key.get_secret_value():
            raise InvalidInput("NEYNAR_API_KEY is empty")
        self._client = ProviderClient(
            self.name,
            api_url,
            headers={"x-api-key": api_key.get_secret_value(), "Accept": "application/json"},
            manner=manner or Manner(rate=RATE),
            clock=clock,
        )
        self._casts = casts_url or CASTS_PATH

    async def accounts(self, addresses: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return the Farcaster ids each wallet has verified, the lowest first.

        Wallets in any case, in lower case in the answer; those that nobody verified have none.
        """
        wanted = sorted({address.lower() for address in addresses})
        found: dict[str, tuple[int, ...]] = {address: () for address in wanted}
        for start in range(0, len(wanted), MOST_ADDRESSES):
            part = wanted[start : start + MOST_ADDRESSES]
            answer = await self._client.request(
                "accounts",
                "GET",
                "/v2/farcaster/user/bulk-by-address/",
                params={"addresses": ",".join(part)},
                accept=_EMPTY,
                resource="accounts",
            )
            if answer.status != 404:
                found |= _users(answer, part)
        return found

    async def account(self, address: str) -> int:
        """Return the lowest Farcaster id a wallet has verified; `NoData` when there is none."""
        ids = (await self.accounts([address]))[address.lower()]
        if ids:
            return ids[0]
        answer = await self._client.request(
            "verification",
            "GET",
            "/v2/farcaster/verification/by-address",
            params={"address": address.lower()},
            accept=_EMPTY,
            resource="verification",
        )
        ids = () if answer.status == 404 else _verified(answer)
        if not ids:
            raise NoData("no Farcaster account has verified this wallet")
        return ids[0]

    async def exists(self, fid: int) -> bool:
        """Say whether there is an account of that id."""
        answer = await self._client.request(
            "user",
            "GET",
            "/v2/farcaster/user/bulk/",
            params={"fids": str(fid)},
            accept=_EMPTY,
            resource="user",
        )
        return answer.status != 404 and fid in _fids(_members(answer).get("users"))

    async def casts(self, fid: int, begin: datetime, end: datetime) -> list[Cast]:
        """Return the casts and replies with `begin` ≤ time < `end`, oldest first, each once.

        Raises `NoData` when there is no such account, `RateLimited`, and `ProviderUnavailable`,
        also when the pages lead back to where they were.
        """
        found: dict[str, Cast] = {}
        cursors: set[str] = set()
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._page(fid, cursor)
            if page is None:
                break
            casts = [Cast(cast.hash, _instant(cast.timestamp)) for cast in page.casts]
            found |= {cast.hash: cast for cast in casts if begin <= cast.at < end}
            cursor = page.next.cursor if page.next else None
            # Newest first: a page that is wholly older than the window is the last of interest.
            if not cursor or (casts and max(cast.at for cast in casts) < begin):
                break
            if cursor in cursors:
                raise ProviderUnavailable("neynar gave the same page again")
            cursors.add(cursor)
        else:
            raise ProviderUnavailable(f"neynar has more than {MOST_PAGES} pages of casts")
        return sorted(found.values(), key=lambda cast: (cast.at, cast.hash))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _page(self, fid: int, cursor: str | None) -> _Page | None:
        params = {"fid": str(fid), "limit": str(PAGE), "include_replies": "true"}
        if cursor:
            params["cursor"] = cursor
        answer = await self._client.request(
            "casts", "GET", self._casts, params=params, accept=_EMPTY, resource="casts"
        )
        if answer.status == 404:
            # Nothing was cast, or there is nobody.
            if not await self.exists(fid):
                raise NoData(f"there is no Farcaster account {fid}")
            return None
        body = _members(answer)
        inner = body.get("result")
        try:
            return _Page.model_validate(inner if isinstance(inner, dict) else body)
        except ValidationError:
            raise _strange("the casts") from None


def _users(answer: Response, wanted: Iterable[str]) -> dict[str, tuple[int, ...]]:
    body = _members(answer)
    inner: Any = body.get("result")
    members: dict[str, Any] = inner if isinstance(inner, dict) else body  # pyright: ignore[reportUnknownVariableType]
    by_address = {key.lower(): value for key, value in members.items()}
    return {address: _fids(by_address.get(address)) for address in wanted}


def _verified(answer: Response) -> tuple[int, ...]:
    """Return the ids of a verification, in each of the shapes this endpoint has had."""
    found: Any = _members(answer)
    for name in ("result", "users", "user"):
        members: dict[str, Any] = found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        found = members.get(name, found)  # pyright: ignore[reportUnknownVariableType]
    return _fids(found if isinstance(found, list) else [found])  # pyright: ignore[reportUnknownArgumentType]


def _fids(users: Any) -> tuple[int, ...]:
    if users is None:
        return ()
    if not isinstance(users, list):
        raise _strange("the accounts")
    try:
        return tuple(sorted({_User.model_validate(user).fid for user in users}))  # pyright: ignore[reportUnknownVariableType]
    except ValidationError:
        raise _strange("the accounts") from None


def _members(answer: Response) -> dict[str, Any]:
    body = answer.json()
    if not isinstance(body, dict):
        raise _strange("its answer")
    return body  # pyright: ignore[reportUnknownVariableType]


def _instant(written: str | int | float) -> datetime:
    """Return a cast's time: ISO 8601, or a Unix time in seconds or milliseconds."""
    try:
        if isinstance(written, str) and not written.isdigit():
            at = datetime.fromisoformat(written)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        number = float(written)
        return datetime.fromtimestamp(
            number / 1000 if number >= _MILLISECONDS_FROM else number, UTC
        )
    except (ValueError, OverflowError, OSError):
        raise _strange("a time") from None


def _strange(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"neynar gave {what} in another shape")
