"""GitHub: whose token it is, what they contributed, and taking a token back.

An OAuth app and a GitHub App are used alike; the tokens of the latter expire and are refreshed.
Limits as documented: 5,000 points an hour for each person, told in `x-ratelimit-*`; secondary ones
for all, told by 403 or 429 with `retry-after`, or by the text alone. GraphQL answers 200 when the
first kind is used up.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import orjson
from pydantic import BaseModel, Field, SecretStr, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    CausewayError,
    InvalidInput,
    ProviderUnavailable,
    RateLimited,
)
from causeway.base.http import Response, retry_after_s
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.credential import Account, Credential
from causeway.connections.errors import CredentialRefused
from causeway.connections.limits import Reading
from causeway.connections.oauth import OAuthApp, OAuthClient

API_URL = "https://api.github.com"
OAUTH_URL = "https://github.com"
SCOPES = ("user:email",)

#: Days of one query: `from` and `to` may be one year apart, and a year has 365 days or more.
MOST_DAYS = 365

#: Of a refusal for too many requests that names no time, seconds; "a few minutes" in their words.
_PAUSE_S = 60.0
_ACCEPT = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}

_CONTRIBUTIONS = """
query($from: DateTime!, $to: DateTime!) {
  viewer {
    id databaseId login
    contributionsCollection(from: $from, to: $to) {
      totalCommitContributions
      totalPullRequestContributions
      contributionCalendar {
        totalContributions
        weeks { contributionDays { date contributionCount } }
      }
    }
  }
}
"""


def oauth_app(
    client_id: str, client_secret: SecretStr, redirect_uri: str, *, oauth_url: str = OAUTH_URL
) -> OAuthApp:
    """Return our application there, as it is registered."""
    return OAuthApp(
        client_id=client_id,
        client_secret=client_secret,
        redirect_uri=redirect_uri,
        authorize_url=f"{oauth_url}/login/oauth/authorize",
        token_url=f"{oauth_url}/login/oauth/access_token",
        scopes=SCOPES,
    )


@dataclass(frozen=True)
class Contributions:
    """What one person did, by UTC date, every date of the question in it."""

    account: Account
    #: What the contribution calendar counts.
    days: dict[date, int]
    commits: int
    pull_requests: int
    #: The answers this was read from, for evidence.
    readings: tuple[dict[str, Any], ...] = field(repr=False, default=())


class _Day(BaseModel):
    date: date
    contributionCount: int = Field(ge=0)


class _Week(BaseModel):
    contributionDays: list[_Day]


class _Calendar(BaseModel):
    totalContributions: int
    weeks: list[_Week]


class _Collection(BaseModel):
    totalCommitContributions: int = Field(ge=0)
    totalPullRequestContributions: int = Field(ge=0)
    contributionCalendar: _Calendar


class _Viewer(BaseModel):
    id: str
    databaseId: int
    login: str
    contributionsCollection: _Collection


class _User(BaseModel):
    id: int
    login: str


class GitHub:
    """GitHub's APIs; `oauth` is None where people cannot connect."""

    name = "github"

    def __init__(
        self,
        *,
        api_url: str = API_URL,
        app: OAuthApp | None = None,
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # No more than 100 at once for one application.
        manner = manner or Manner(concurrent=20, pause_s=_PAUSE_S)
        self._client = ProviderClient(self.name, api_url, manner=manner, judge=_judge, clock=clock)
        self._app = app
        self.oauth = OAuthClient(app, self._client, clock=clock) if app else None

    async def account(self, credential: Credential) -> Account:
        """Return whose token that is: the number of the account, which no renaming changes."""
        answer = await self._client.request(
            "user",
            "GET",
            "/user",
            credential=credential,
            headers=_bearer(credential) | _ACCEPT,
            # GitHub lets it be kept for a minute; a token that was taken back is seen at once.
            confirm=True,
        )
        try:
            user = _User.model_validate_json(answer.body)
        except ValidationError:
            raise _strange("the account") from None
        return Account(str(user.id), user.login)

    async def contributions(self, credential: Credential, first: date, last: date) -> Contributions:
        """Return what was contributed on the UTC dates from `first` to `last`, both included.

        Days that are not over may still grow, and those of the last 24 hours may be late there.
        With `user:email` that is what is public, and what is private if the person shows it.
        Raises `CredentialRefused`, also when the token is of another account than was linked,
        `RateLimited` and `ProviderUnavailable`, also for an answer that lacks a day.
        """
        if first > last:
            raise InvalidInput(f"the first day, {first}, is after the last, {last}")
        days: dict[date, int] = {}
        commits = pull_requests = 0
        readings: list[dict[str, Any]] = []
        account: Account | None = None
        for begin, end in _years(first, last):
            viewer, reading = await self._read(credential, begin, end)
            account = _same(credential.account or account, viewer)
            collection = viewer.contributionsCollection
            commits += collection.totalCommitContributions
            pull_requests += collection.totalPullRequestContributions
            days |= _days(collection, begin, end)
            readings.append(reading)
        assert account is not None  # noqa: S101 - there is at least one year
        return Contributions(account, days, commits, pull_requests, tuple(readings))

    async def revoke(self, token: SecretStr) -> None:
        """Make a token of ours worthless; `NoData` when it is that already."""
        if self._app is None:
            return
        pair = f"{self._app.client_id}:{self._app.client_secret.get_secret_value()}"
        basic = base64.b64encode(pair.encode()).decode()
        await self._client.request(
            "revoke",
            "DELETE",
            f"/applications/{self._app.client_id}/token",
            headers={"Authorization": f"Basic {basic}"} | _ACCEPT,
            json={"access_token": token.get_secret_value()},
            repeatable=True,
            # What is no token of ours is unprocessable.
            accept=frozenset({422}),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(
        self, credential: Credential, first: date, last: date
    ) -> tuple[_Viewer, dict[str, Any]]:
        variables = {"from": f"{first}T00:00:00Z", "to": f"{last}T23:59:59Z"}
        answer = await self._client.request(
            "contributions",
            "POST",
            "/graphql",
            credential=credential,
            headers=_bearer(credential) | _ACCEPT,
            json={"query": _CONTRIBUTIONS, "variables": variables},
            repeatable=True,
            resource="graphql",
        )
        try:
            data = answer.json()["data"]["viewer"]
            return _Viewer.model_validate(data), {"query": variables, "answer": data}
        except (ValidationError, KeyError, TypeError):
            raise _strange("the contributions") from None


def _bearer(credential: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential.token.get_secret_value()}"}


def _years(first: date, last: date) -> Iterator[tuple[date, date]]:
    """Yield the dates in parts that one query may ask for."""
    while first <= last:
        end = min(last, first + timedelta(days=MOST_DAYS - 1))
        yield first, end
        first = end + timedelta(days=1)


def _days(collection: _Collection, first: date, last: date) -> dict[date, int]:
    found = {
        day.date: day.contributionCount
        for week in collection.contributionCalendar.weeks
        for day in week.contributionDays
        if first <= day.date <= last
    }
    missing = (last - first).days + 1 - len(found)
    if missing:
        # A day that is not there is not a day without contributions.
        raise ProviderUnavailable(f"github left out {missing} days of {first} to {last}")
    return dict(sorted(found.items()))


def _same(linked: Account | None, viewer: _Viewer) -> Account:
    found = Account(str(viewer.databaseId), viewer.login)
    if linked is not None and linked.id != found.id:
        raise CredentialRefused("the github token is of another account than was linked")
    return found


def _strange(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"github gave {what} in another shape")


def _judge(response: Response, reading: Reading | None, now: float) -> CausewayError | None:
    """Return what GitHub says in ways of its own."""
    spent = reading is not None and reading.remaining <= 0
    wait_s = retry_after_s(response.headers)
    if response.status in (403, 429):
        text = response.body[:2000].lower()
        if wait_s is not None or spent or b"rate limit" in text or b"abuse" in text:
            if wait_s is None and spent and reading is not None:
                wait_s = max(1.0, reading.resets_at - now)
            return RateLimited("github asks to slow down", retry_after_s=wait_s, service="github")
    if response.ok and (kinds := _graphql_errors(response)):
        if kinds & {"RATE_LIMITED", "RATE_LIMIT"}:  # both words are in use
            if wait_s is None and reading is not None:
                wait_s = max(1.0, reading.resets_at - now)
            return RateLimited("github asks to slow down", retry_after_s=wait_s, service="github")
        if kinds & {"FORBIDDEN", "INSUFFICIENT_SCOPES"}:
            return CredentialRefused("github does not allow this token that", service="github")
        return ProviderUnavailable("github could not answer the question", service="github")
    return None


def _graphql_errors(response: Response) -> set[str]:
    """Return the kinds of the errors of a GraphQL answer; empty when it has none."""
    if not response.body.lstrip().startswith(b"{") or b'"errors"' not in response.body:
        return set()
    try:
        errors: Any = orjson.loads(response.body).get("errors")
    except orjson.JSONDecodeError:
        return set()
    if not isinstance(errors, list) or not errors:
        return set()
    kinds: set[str] = set()
    for error in errors:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(error, dict):
            extensions: Any = error.get("extensions")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            code: Any = extensions.get("code") if isinstance(extensions, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            kinds.add(str(error.get("type") or code or "UNKNOWN"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return kinds or {"UNKNOWN"}
