"""The provider pool: endpoints in an order of preference, with failover.

A read goes to the first endpoint that is well; when that fails for a reason of its own (no answer,
429, behind the head) the next one is asked, once each. The caller backs off and comes again; only
a read that died on a kept-alive connection is repeated here. A raw transaction goes to all
endpoints at once, once each, and is never repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar, overload

import aiohttp
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import (
    AlreadyKnown,
    NonceTooLow,
    RangeTooLarge,
    RpcError,
    SendRejected,
)
from causeway.chains.rpc import BatchRefused, Call, post

__all__ = ["Endpoint", "ProviderPool", "SecretUrl"]

T = TypeVar("T")

_log = structlog.get_logger(__name__)
_SECONDS = Histogram(
    "causeway_chains_rpc_seconds", "Time to an answer of an RPC endpoint", ["endpoint", "method"]
)
_FAILURES = Counter(
    "causeway_chains_rpc_failures_total", "RPC calls that failed", ["endpoint", "method", "kind"]
)

#: Looks at the answers of one endpoint; raises a `TransientError` to have the next one asked.
Acceptance = Callable[[list[object]], None]


class ProviderPool:
    """Endpoints of one chain, asked in order."""

    def __init__(
        self, endpoints: Sequence[Endpoint], *, timeout_s: float = 10.0, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        if not endpoints:
            raise ConfigurationError("a provider pool needs at least one endpoint")
        self.endpoints = tuple(endpoints)
        self.timeout_s = timeout_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._required: tuple[str, int] | None = None
        self._sending: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        return f"ProviderPool({', '.join(f'{e.name}={e.url}' for e in self.endpoints)})"

    def require_chain_id(self, chain_id: int, method: str = "eth_chainId") -> None:
        """Have every endpoint checked before its first use to serve the chain `chain_id`."""
        self._required = (method, chain_id)
        for endpoint in self.endpoints:
            endpoint.right_chain = None

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Read from these endpoints from now on, the first ones preferred.

        What is known of those that stay (by their address) is kept.
        """
        if not endpoints:
            raise ConfigurationError("a provider pool needs at least one endpoint")
        before = {endpoint.url: endpoint for endpoint in self.endpoints}
        self.endpoints = tuple(before.get(one.url, one) for one in endpoints)

    async def verify(self) -> None:
        """Ask every endpoint for its chain id and set those aside that serve another chain.

        Raises `ConfigurationError` when none serves ours and at least one another, and
        `ProviderUnavailable` when none answered.
        """
        for endpoint in self.endpoints:
            endpoint.right_chain = None
        results = await asyncio.gather(
            *(self._check_chain(e) for e in self.endpoints), return_exceptions=True
        )
        if any(e.right_chain for e in self.endpoints):
            return
        wrong = [e for e in self.endpoints if e.right_chain is False]
        if wrong and self._required:
            raise ConfigurationError(
                [
                    f"{e.name} ({e.url}) serves chain {e.served_chain_id}, not {self._required[1]}"
                    for e in wrong
                ]
            )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    @overload
    async def call(self, method: str, params: Sequence[object] = ()) -> object: ...
    @overload
    async def call(
        self,
        method: str,
        params: Sequence[object] = (),
        *,
        reply: type[T],
        log_span: int | None = None,
    ) -> T: ...
    async def call(
        self,
        method: str,
        params: Sequence[object] = (),
        *,
        reply: object = object,
        log_span: int | None = None,
    ) -> object:
        """Call `method` and return its result, decoded as `reply` (a msgspec type).

        `log_span`: the number of blocks asked for, so that endpoints known to refuse it come last.
        Raises what `causeway.chains.errors` lists, and `TransientError` when no endpoint could
        answer.
        """
        outcome = (await self.batch([(method, params)], replies=[reply], log_span=log_span))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def batch(
        self,
        calls: Sequence[Call],
        *,
        replies: Sequence[object] | None = None,
        accept: Acceptance | None = None,
        log_span: int | None = None,
    ) -> list[object]:
        """Call several methods at one endpoint, as JSON-RPC batches as large as it takes.

        Returns one result or exception for each call, in order. When an endpoint fails, when one
        of its answers is transient, or when `accept` raises a `TransientError` on them, all
        calls go to the next endpoint, so that the results always stem from one endpoint. Raises
        the first `TransientError` when none gave an acceptable answer.
        """
        if not calls:
            return []
        types = list(replies) if replies is not None else [object] * len(calls)
        first: CausewayError | None = None
        for endpoint in self._ordered(log_span):
            try:
                await self._check_chain(endpoint)
                outcomes = await self._ask(endpoint, calls, types)
                self._raise_transient(endpoint, outcomes, log_span)
                if accept is not None:
                    accept(outcomes)
            except (TransientError, RangeTooLarge) as error:
                # A refused range is for the caller to shrink; others only if nobody refuses.
                if first is None or (
                    isinstance(error, RangeTooLarge) and not isinstance(first, RangeTooLarge)
                ):
                    first = error
                continue
            endpoint.succeeded()
            return outcomes
        raise first or ProviderUnavailable("every endpoint serves another chain")

    async def send_raw(self, raw_hex: str) -> str:
        """Send a signed transaction to every endpoint at once; return the first accepted hash.

        Raises when nobody accepted: `AlreadyKnown` before `NonceTooLow` before any other refusal
        before what may heal; the bytes may have been taken in that last case, so only the same
        bytes may be sent again.
        """
        tasks = {
            asyncio.create_task(self._send_one(endpoint, raw_hex))
            for endpoint in self.endpoints
            if endpoint.right_chain is not False
        }
        if not tasks:
            raise ProviderUnavailable("every endpoint serves another chain")
        refused: list[CausewayError] = []
        pending = tasks
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                if isinstance(outcome, str):
                    # The slower ones get their copy too; nobody waits for them.
                    for rest in pending:
                        self._sending.add(rest)
                        rest.add_done_callback(self._sending.discard)
                    return outcome
                refused.append(outcome)
        for kind in (AlreadyKnown, NonceTooLow, SendRejected, RpcError):
            for error in refused:
                if isinstance(error, kind):
                    raise error
        raise refused[0]

    async def close(self) -> None:
        """Close the connections; sends still under way are given up (they have been posted)."""
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _ordered(self, log_span: int | None) -> list[Endpoint]:
        """Return the usable endpoints: those that are well first, each group in given order."""
        now = self._clock.monotonic()
        return sorted(
            (e for e in self.endpoints if e.right_chain is not False),
            key=lambda e: (
                log_span is not None and log_span > e.max_log_range,
                e.cooling_until if e.cooling_until > now else 0.0,
            ),
        )

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=32),
                headers={"user-agent": "causeway"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _check_chain(self, endpoint: Endpoint) -> None:
        if endpoint.right_chain or self._required is None:
            return
        method, wanted = self._required
        if endpoint.right_chain is None:
            (result,) = await self._ask(endpoint, [(method, [])], [str])
            if isinstance(result, CausewayError):
                self._failed(endpoint, method, result)
                raise ProviderUnavailable(f"{endpoint.name} does not say its chain: {result}")
            try:
                served = int(str(result), 16)
            except ValueError:
                raise ProviderUnavailable(f"{endpoint.name}: {method} is no number") from None
            endpoint.served_chain_id = served
            endpoint.right_chain = served == wanted
            if not endpoint.right_chain:
                _log.error(
                    "endpoint serves another chain",
                    endpoint=endpoint.name,
                    served=served,
                    wanted=wanted,
                )
        if endpoint.right_chain is False:
            raise ProviderUnavailable(
                f"{endpoint.name} ({endpoint.url}) serves chain {endpoint.served_chain_id}, "
                f"not {wanted}"
            )

    async def _ask(
        self, endpoint: Endpoint, calls: Sequence[Call], types: Sequence[object]
    ) -> list[object]:
        """Return decoded results or errors, sending batches no larger than the endpoint takes."""
        raws: list[msgspec.Raw | CausewayError] = []
        while len(raws) < len(calls):
            size = min(endpoint.max_batch, len(calls) - len(raws))
            part = calls[len(raws) : len(raws) + size]
            try:
                raws += await self._post(endpoint, part)
            except BatchRefused:
                endpoint.max_batch = max(1, size // 2)
        return [
            raw if isinstance(raw, CausewayError) else _decoded(raw, kind, endpoint, method)
            for raw, kind, (method, _) in zip(raws, types, calls, strict=True)
        ]

    async def _post(
        self, endpoint: Endpoint, calls: Sequence[Call], *, repeat: bool = True
    ) -> list[msgspec.Raw | CausewayError]:
        method = calls[0][0] if len(calls) == 1 else "batch"
        started = self._clock.monotonic()
        try:
            outcomes = await post(
                self._http(), endpoint, calls, timeout_s=self.timeout_s, repeat=repeat
            )
        except TransientError as error:
            self._failed(endpoint, method, error)
            raise
        seconds = self._clock.monotonic() - started
        endpoint.record(method).answered(seconds)
        _SECONDS.labels(endpoint.name, method).observe(seconds)
        return outcomes

    def _failed(self, endpoint: Endpoint, method: str, error: CausewayError) -> None:
        _FAILURES.labels(endpoint.name, method, type(error).__name__).inc()
        endpoint.record(method).failed()
        if isinstance(error, (ProviderUnavailable, RateLimited)):
            endpoint.failed(self._clock.monotonic(), error.retry_after_s)

    def _raise_transient(
        self, endpoint: Endpoint, outcomes: Sequence[object], log_span: int | None
    ) -> None:
        for outcome in outcomes:
            if isinstance(outcome, RangeTooLarge):
                if log_span is not None:
                    endpoint.max_log_range = max(1, log_span // 2)
                raise outcome
            if isinstance(outcome, TransientError):
                self._failed(endpoint, "batch" if len(outcomes) > 1 else "call", outcome)
                raise outcome

    async def _send_one(self, endpoint: Endpoint, raw_hex: str) -> str | CausewayError:
        method = "eth_sendRawTransaction"
        try:
            await self._check_chain(endpoint)
            (raw,) = await self._post(endpoint, [(method, [raw_hex])], repeat=False)
        except CausewayError as error:
            return error
        if isinstance(raw, CausewayError):
            _FAILURES.labels(endpoint.name, method, type(raw).__name__).inc()
            return raw
        decoded = _decoded(raw, str, endpoint, method)
        return decoded if isinstance(decoded, (str, CausewayError)) else ProviderUnavailable()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[object]:
    """Return the decoder of a kind of result; making one costs more than using it."""
    return msgspec.json.Decoder(kind)


def _decoded(raw: msgspec.Raw, kind: object, endpoint: Endpoint, method: str) -> object:
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        return ProviderUnavailable(f"{endpoint.name}: {method} answered in another shape: {error}")
    except (msgspec.DecodeError, ValueError):
        return ProviderUnavailable(f"{endpoint.name}: {method} answered no JSON")
