"""The outgoing HTTP client: time limits, size limits, and errors that say whether to try again.

Timeouts, refused and reset connections, 408, 425, 429 and 5xx become transient errors; every
other answer is the caller's to judge. Only a connection that could not be made is tried again
here; anything else may have happened at the other side, and the caller knows whether it may again.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import httpx2
import orjson
from prometheus_client import Counter, Histogram

from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import ProviderUnavailable, RateLimited
from causeway.base.logging import redact_text

REQUESTS = Counter(
    "causeway_http_client_requests_total", "Requests to other services", ["service", "status"]
)
SECONDS = Histogram(
    "causeway_http_client_seconds", "Time to an answer of another service", ["service"]
)

#: How often a connection is tried to be made within one call, and the pauses between, seconds.
CONNECT_PAUSES_S = (0.1, 0.3)

#: Statuses that say: later.
_LATER = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Response:
    """An answer, read whole."""

    service: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the JSON body; `ProviderUnavailable` when a proxy answered with something else."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise ProviderUnavailable(
                f"{self.service} answered {self.status} with something that is not JSON: "
                f"{self.text(80)!r}",
                service=self.service,
            ) from None

    def text(self, most: int = 200) -> str:
        """Return the beginning of the body, for an error's text, without what looks secret."""
        return redact_text(self.body[:most].decode("utf-8", "replace").strip())


class HttpClient:
    """A client of one service."""

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        timeout_s: float = 30.0,
        max_response_bytes: int = 5 * 1024 * 1024,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._most = max_response_bytes
        self._client = httpx2.AsyncClient(
            headers=dict(headers or {}),
            timeout=httpx2.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            follow_redirects=False,
            trust_env=False,
        )

    def __repr__(self) -> str:
        return f"HttpClient({self.name})"

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        files: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        judged: bool = True,
    ) -> Response:
        """Ask and return the answer. `path` is below the base address, or an address of its own.

        Raises `RateLimited` for 429, `ProviderUnavailable` for what else is transient; with
        `judged` false every answer is the caller's to judge, and only none at all is an error.
        """
        url = path if "://" in path else f"{self.base_url}{path}"
        given: dict[str, str] = dict(headers or {})
        content: bytes | None = None
        if json is not None:
            content = orjson.dumps(json)
            given.setdefault("Content-Type", "application/json")
        limit_s = timeout_s or self._timeout_s
        for pause_s in (*CONNECT_PAUSES_S, None):
            request = self._client.build_request(
                method, url, content=content, data=data, files=files, params=params, headers=given
            )
            try:
                with SECONDS.labels(self.name).time():
                    async with asyncio.timeout(limit_s):
                        response = await self._read(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if pause_s is not None:
                    await SYSTEM_CLOCK.sleep(pause_s)
                    continue
                raise self._away("does not accept connections", error) from None
            except (TimeoutError, httpx2.TimeoutException) as error:
                raise self._away(f"did not answer within {limit_s:g} s", error) from None
            except httpx2.HTTPError as error:
                raise self._away("broke the connection", error) from None
            REQUESTS.labels(self.name, str(response.status)).inc()
            if judged:
                self._judge(response)
            return response
        raise AssertionError("unreachable")

    async def _read(self, request: httpx2.Request) -> Response:
        answer = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > self._most:
                    raise ProviderUnavailable(
                        f"{self.name} answered with more than {self._most} bytes", service=self.name
                    )
        finally:
            await answer.aclose()
        return Response(self.name, answer.status_code, dict(answer.headers), bytes(body))

    def _away(self, what: str, error: BaseException) -> ProviderUnavailable:
        REQUESTS.labels(self.name, type(error).__name__).inc()
        return ProviderUnavailable(f"{self.name} {what}", service=self.name)

    def _judge(self, response: Response) -> None:
        if response.status == 429:
            raise RateLimited(
                f"{self.name} asks to slow down: {response.text()}",
                retry_after_s=retry_after_s(response.headers),
                service=self.name,
                text=response.text(500),
            )
        if response.status in _LATER or response.status >= 500:
            raise ProviderUnavailable(
                f"{self.name} answered {response.status}",
                retry_after_s=retry_after_s(response.headers),
                service=self.name,
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3: a number or a date)."""
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - SYSTEM_CLOCK.now()).total_seconds())
