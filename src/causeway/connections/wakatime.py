"""WakaTime: whose key or token it is, and how long they coded each day.

Fewer than 10 requests a second on average over 5 minutes for each person; beyond, 429 or, as
documented, sometimes 302. A free account's history is short: older days are left out, which is
`NoData` and not zero.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, InvalidInput, ProviderUnavailable, RateLimited
from causeway.base.http import Response
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.credential import Account, Credential
from causeway.connections.errors import NoData
from causeway.connections.limits import Rate, Reading
from causeway.connections.oauth import OAuthApp, OAuthClient

API_URL = "https://api.wakatime.com/api/v1"
OAUTH_URL = "https://wakatime.com"
SCOPES = ("read_summaries",)

#: Below the documented 3,000 in 5 minutes, which the person's editors use up, too.
RATE = Rate(1500, 300)

_KEY = re.compile(
    r"waka_(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[A-Za-z0-9_-]{20,200})"
)


def is_api_key(text: str) -> bool:
    """Say whether a text has the form of an API key."""
    return _KEY.fullmatch(text) is not None


def oauth_app(
    client_id: str, client_secret: SecretStr, redirect_uri: str, *, oauth_url: str = OAUTH_URL
) -> OAuthApp:
    """Return our application there, as it is registered. PKCE is not documented there."""
    return OAuthApp(
        client_id=client_id,
        client_secret=client_secret,
        redirect_uri=redirect_uri,
        authorize_url=f"{oauth_url}/oauth/authorize",
        token_url=f"{oauth_url}/oauth/token",
        scopes=SCOPES,
        pkce=False,
        redirect_in_refresh=True,
    )


@dataclass(frozen=True)
class Summaries:
    """How long somebody coded, by date of the time zone asked for, every date in it."""

    #: Seconds, as WakaTime counts them: with fractions.
    days: dict[date, float]
    #: The answer this was read from, for evidence.
    reading: dict[str, Any] = field(repr=False)

    @property
    def total_s(self) -> float:
        """Seconds of all days."""
        return sum(self.days.values())


class _GrandTotal(BaseModel):
    total_seconds: float = Field(ge=0, le=86_400 * 1.1, allow_inf_nan=False)


class _Range(BaseModel):
    date: date


class _Day(BaseModel):
    grand_total: _GrandTotal
    range: _Range


class _Summaries(BaseModel):
    data: list[_Day]


class _User(BaseModel):
    id: str = Field(min_length=1)
    username: str | None = None


class _UserAnswer(BaseModel):
    data: _User


class WakaTime:
    """WakaTime's API; `oauth` is None where people connect by API key alone."""

    name = "wakatime"

    def __init__(
        self,
        *,
        api_url: str = API_URL,
        app: OAuthApp | None = None,
        revoke_url: str = f"{OAUTH_URL}/oauth/revoke",
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        manner = manner or Manner(rate=RATE)
        self._client = ProviderClient(self.name, api_url, manner=manner, judge=_judge, clock=clock)
        self._app = app
        self._revoke_url = revoke_url
        self.oauth = OAuthClient(app, self._client, clock=clock) if app else None

    async def account(self, credential: Credential) -> Account:
        """Return whose key or token that is; `CredentialRefused` when it is none."""
        answer = await self._client.request(
            "user",
            "GET",
            "/users/current",
            credential=credential,
            headers=_header(credential),
            confirm=True,
        )
        try:
            user = _UserAnswer.model_validate_json(answer.body).data
        except ValidationError:
            raise _strange("the account") from None
        return Account(user.id, user.username)

    async def summaries(
        self, credential: Credential, first: date, last: date, *, timezone: str = "UTC"
    ) -> Summaries:
        """Return the coding time of the dates from `first` to `last`, both included.

        Raises `NoData` when days are left out (a free account forgets), `CredentialRefused`,
        `RateLimited` and `ProviderUnavailable`.
        """
        if first > last:
            raise InvalidInput(f"the first day, {first}, is after the last, {last}")
        answer = await self._client.request(
            "summaries",
            "GET",
            "/users/current/summaries",
            credential=credential,
            headers=_header(credential),
            params={"start": str(first), "end": str(last), "timezone": timezone},
            # The plan does not cover these days.
            accept=frozenset({402}),
        )
        if answer.status == 402:
            raise NoData("this wakatime account's plan does not reach back that far")
        try:
            found = _Summaries.model_validate_json(answer.body)
        except ValidationError:
            raise _strange("the summaries") from None
        days = {
            day.range.date: day.grand_total.total_seconds
            for day in found.data
            if first <= day.range.date <= last
        }
        missing = [d for d in _dates(first, last) if d not in days]
        if missing:
            raise NoData(
                f"wakatime does not tell of {len(missing)} days, the first {missing[0]}",
                missing=[str(day) for day in missing],
            )
        return Summaries(dict(sorted(days.items())), answer.json())

    async def revoke(self, token: SecretStr) -> None:
        """Make a token of ours worthless."""
        if self._app is None:
            return
        await self._client.request(
            "revoke",
            "POST",
            self._revoke_url,
            data={
                "client_id": self._app.client_id,
                "client_secret": self._app.client_secret.get_secret_value(),
                "token": token.get_secret_value(),
            },
            repeatable=True,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _header(credential: Credential) -> dict[str, str]:
    token = credential.token.get_secret_value()
    if credential.kind == "api_key":
        # Never in the address, where it would be written down by everybody on the way.
        return {"Authorization": f"Basic {base64.b64encode(f'{token}:'.encode()).decode()}"}
    return {"Authorization": f"Bearer {token}"}


def _dates(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _judge(response: Response, reading: Reading | None, now: float) -> CausewayError | None:
    """Return what WakaTime says in a way of its own: 302 is sometimes its 429."""
    if response.status == 302:
        return RateLimited("wakatime asks to slow down, by a redirect", service="wakatime")
    return None


def _strange(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"wakatime gave {what} in another shape")
