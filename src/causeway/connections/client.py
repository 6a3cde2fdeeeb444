"""The one client through which every provider is asked.

Around `causeway.base.http` (time and size limits; redirects are never followed, so that no answer
can lead us into a private network) it adds what talking to people's providers needs: their limits
for each person and for us, repetition of what may be repeated, conditional requests, and one way
to say what went wrong. A provider's module adds its addresses and its words.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from prometheus_client import Counter

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.base.http import HttpClient, Response, retry_after_s
from causeway.connections.answers import Answers
from causeway.connections.credential import Credential
from causeway.connections.errors import CredentialRefused, NoData
from causeway.connections.limits import Budget, Budgets, Rate, Reading, read_limits

_log = structlog.get_logger(__name__)

CALLS = Counter(
    "causeway_connection_calls_total",
    "Calls of providers: ok, not_modified, cached, no_data, limited, unavailable, refused, failed",
    ["provider", "operation", "outcome"],
)
WAITED = Counter(
    "causeway_connection_limit_wait_seconds_total",
    "Time calls were held back for a provider's limits",
    ["provider"],
)

_OURS = "check the key or the secret that is set for it"

#: Longest time one answer of a provider in trouble keeps everybody from asking it, seconds.
MOST_PAUSE_S = 600.0

#: Returns what is wrong with an answer in this provider's words, None to have it judged as usual.
Judge = Callable[[Response, Reading | None, float], CausewayError | None]

#: Sends one request, and with it counts it for all processes; called for every try.
Metered = Callable[[Callable[[], Awaitable[Response]]], Awaitable[Response]]


@dataclass(frozen=True)
class Manner:
    """How one provider is to be treated."""

    #: What it documents without telling in headers, for each person (or for us, without one).
    rate: Rate | None = None
    #: Requests under way at once, of all people together.
    concurrent: int = 10
    #: How often a request that may be repeated is made.
    tries: int = 3
    #: Longest wait, for a limit or before a repetition, that is done here and not by the caller.
    wait_s: float = 5.0
    #: For one try.
    timeout_s: float = 20.0
    most_bytes: int = 4 * 1024 * 1024
    cache_bytes: int = 8 * 1024 * 1024
    #: Pause after a refusal for too many requests that does not say how long, seconds.
    pause_s: float = 60.0


class ProviderClient:
    """A client of one provider."""

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        manner: Manner | None = None,
        judge: Judge | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.provider = provider
        self.manner = manner or Manner()
        self._http = HttpClient(
            name=provider,
            base_url=base_url,
            timeout_s=self.manner.timeout_s,
            max_response_bytes=self.manner.most_bytes,
            headers={"User-Agent": "causeway", **(headers or {})},
        )
        self._judge = judge
        self._clock = clock
        self._budgets = Budgets(self.manner.rate)
        self._answers = Answers(self.manner.cache_bytes)
        self._under_way = asyncio.Semaphore(self.manner.concurrent)

    def __repr__(self) -> str:
        return f"ProviderClient({self.provider})"

    async def request(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        credential: Credential | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        files: Any = None,
        metered: Metered | None = None,
        repeatable: bool | None = None,
        resource: str = "",
        accept: frozenset[int] = frozenset(),
        confirm: bool = False,
    ) -> Response:
        """Ask, and return an answer of 2xx, or of one of the statuses in `accept`.

        `operation` names the call in the metrics. `repeatable` says that asking twice does no
        harm; GET is. `resource` names what the provider counts apart. With `confirm` nothing is
        answered from memory without the provider saying that it still holds. `metered` sends each
        try, once nothing else is in its way.

        Raises `RateLimited`, `ProviderUnavailable`, `CredentialRefused`, `NoData` (404),
        `ConfigurationError` (what is refused is ours) or `PermanentError`. Nothing of the answer's
        text is in their texts.
        """
        may_repeat = method == "GET" if repeatable is None else repeatable
        who = f"{credential.id}" if credential else ""
        key = ""
        if method == "GET":
            version = credential.version if credential else 0
            key = f"{who} {version} {path}?{urlencode(params or {})}"
        kept = self._answers.get(key) if key else None
        if kept is not None and not confirm and kept.fresh_until > self._now():
            self._count(operation, "cached")
            return kept.response
        sent = {**(headers or {}), **(kept.conditions if kept else {})}

        async def send() -> Response:
            return await self._http.request(
                method,
                path,
                headers=sent,
                params=params,
                json=json,
                data=data,
                files=files,
                judged=False,
            )

        async def ask() -> Response:
            async with self._under_way:
                return await (metered(send) if metered else send())

        try:
            response = await self._asked(ask, credential, f"{who} {resource}", may_repeat, accept)
        except CausewayError as error:
            self._count(operation, _outcome(error))
            raise
        if response.status == 304 and kept is not None:
            self._count(operation, "not_modified")
            return self._answers.confirmed(key, kept, response, self._now())
        self._count(operation, "ok")
        if key:
            self._answers.keep(key, response, self._now())
        return response

    async def _asked(
        self,
        ask: Callable[[], Awaitable[Response]],
        credential: Credential | None,
        bucket: str,
        may_repeat: bool,
        accept: frozenset[int],
    ) -> Response:
        for tries_left in range(self.manner.tries - 1, -1, -1):
            await self._allowed(bucket)
            try:
                response = await ask()
            except TransientError as error:
                failure: CausewayError = error
            else:
                found = self._examined(response, credential, bucket, accept)
                if found is None:
                    return response
                failure = found
            if not (isinstance(failure, TransientError) and may_repeat and tries_left):
                raise failure
            pause_s = self._pause_s(failure, self.manner.tries - tries_left)
            if pause_s > self.manner.wait_s:
                raise failure
            await self._clock.sleep(pause_s)
        raise AssertionError("unreachable")

    async def _allowed(self, bucket: str) -> None:
        """Wait for the limits of this person and of all; `RateLimited` when that takes too long."""
        budgets = [self._budgets.of(bucket), self._everybody]
        waited_s = 0.0
        while (wait_s := max(budget.wait_s(self._now()) for budget in budgets)) > 0:
            if waited_s + wait_s > self.manner.wait_s:
                raise RateLimited(
                    f"{self.provider} is not asked again before its limit allows it",
                    retry_after_s=wait_s,
                    service=self.provider,
                )
            WAITED.labels(self.provider).inc(wait_s)
            waited_s += wait_s
            await self._clock.sleep(wait_s)
        budgets[0].take(self._now())

    def _examined(
        self,
        response: Response,
        credential: Credential | None,
        bucket: str,
        accept: frozenset[int],
    ) -> CausewayError | None:
        """Learn from an answer's headers; return what is wrong with it."""
        now = self._now()
        reading = read_limits(response.headers, now)
        budget = self._budgets.of(bucket)
        if reading is not None:
            if response.status == 304:
                budget.not_counted()
            budget.learn(reading, now)
        failure = self._judge(response, reading, now) if self._judge else None
        if failure is None and not response.ok and response.status not in accept:
            failure = self._failure(response, reading, now, credential)
        if isinstance(failure, RateLimited):
            failure.retry_after_s = failure.retry_after_s or self.manner.pause_s
            budget.pause(failure.retry_after_s, now)
        elif isinstance(failure, TransientError) and failure.retry_after_s:
            self._everybody.pause(min(failure.retry_after_s, MOST_PAUSE_S), now)
        if failure is not None:
            _log.info(
                "provider_refused",
                provider=self.provider,
                status=response.status,
                error=type(failure).__name__,
                connection=str(credential.id) if credential else None,
            )
        return failure

    @property
    def _everybody(self) -> Budget:
        return self._budgets.of("everybody")

    def _failure(
        self,
        response: Response,
        reading: Reading | None,
        now: float,
        credential: Credential | None,
    ) -> CausewayError | None:
        status, name = response.status, self.provider
        wait_s = retry_after_s(response.headers)
        if status == 304:
            return None
        if status == 429:
            if wait_s is None and reading is not None and reading.remaining <= 0:
                wait_s = max(1.0, reading.resets_at - now)
            return RateLimited(f"{name} asks to slow down", retry_after_s=wait_s, service=name)
        if 300 <= status < 400:
            host = urlsplit(response.headers.get("location", "")).hostname or "nowhere"
            return ProviderUnavailable(
                f"{name} answered {status} leading to {host}, which is not followed", service=name
            )
        if status in (408, 425) or status >= 500:
            return ProviderUnavailable(
                f"{name} answered {status}", retry_after_s=wait_s, service=name
            )
        if status in (401, 403) and "html" in response.headers.get("content-type", ""):
            # A page is for people: something in front of the provider is in our way, and what it
            # says is nothing about the token.
            return ProviderUnavailable(f"{name}: a page was answered, {status}", service=name)
        if status in (401, 403) and credential is not None:
            return CredentialRefused(f"{name} refuses the credentials", service=name)
        if status in (401, 403):
            return ConfigurationError(f"{name} refuses our own credentials", hint=_OURS)
        if status == 402 and credential is None:
            return ProviderUnavailable(f"{name}: our plan there is used up", service=name)
        if status == 404:
            return NoData(f"{name} has no such thing", service=name)
        return PermanentError(f"{name} answered {status}", service=name, status=status)

    def _pause_s(self, failure: TransientError, nth: int) -> float:
        if failure.retry_after_s is not None:
            return failure.retry_after_s
        return random.uniform(0.5, 1.0) * 0.2 * 2**nth  # noqa: S311 - spreads load, hides nothing

    def _count(self, operation: str, outcome: str) -> None:
        CALLS.labels(self.provider, operation, outcome).inc()

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _outcome(error: CausewayError) -> str:
    if isinstance(error, RateLimited):
        return "limited"
    if isinstance(error, TransientError):
        return "unavailable"
    if isinstance(error, CredentialRefused):
        return "refused"
    return "no_data" if isinstance(error, NoData) else "failed"
