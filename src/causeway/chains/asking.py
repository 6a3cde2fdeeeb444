"""Asking one endpoint: its identity first, batches as large as it takes, everything noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from causeway.base.clock import Clock
from causeway.base.errors import CausewayError, ProviderUnavailable, RateLimited, TransientError
from causeway.chains import methods
from causeway.chains.endpoint import Endpoint
from causeway.chains.errors import MethodUnsupported, RangeTooLarge, StatePruned, WrongAnswer
from causeway.chains.rpc import BatchRefused, Call, post

_log = structlog.get_logger(__name__)
_SECONDS = Histogram(
    "causeway_chains_rpc_seconds", "Time to an answer of an RPC endpoint", ["endpoint", "method"]
)
_FAILURES = Counter(
    "causeway_chains_rpc_failures_total", "RPC calls that failed", ["endpoint", "method", "kind"]
)

#: How long an endpoint is believed to lack a method.
_LACKS_S = 24 * 3600.0


def kind_of(error: CausewayError) -> str:
    """Return the kind of a failure, as it is counted and shown."""
    if isinstance(error, WrongAnswer):
        return f"wrong_{error.kind}"
    if isinstance(error, RateLimited):
        return "rate_limit"
    return str(error.context.get("kind") or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What an endpoint said: decoded results or errors, and the same as they came."""

    outcomes: list[object]
    raws: list[msgspec.Raw | CausewayError]


class _FirstBlock(msgspec.Struct):
    hash: str = ""
    block_hash: str = ""


class Asker:
    """Asks the endpoints of one pool, each by itself, and notes how that went."""

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self.timeout_s = timeout_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._identity: tuple[str, int, Call | None] | None = None
        self._genesis: dict[str, str] = {}

    def require(self, method: str, chain_id: int, first_block: Call | None) -> None:
        """Have endpoints checked before their first use to serve this chain."""
        self._identity = (method, chain_id, first_block)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, endpoint: Endpoint, calls: Sequence[Call], types: Sequence[object]) -> Told:
        """Return what the endpoint says, sending batches no larger than it takes.

        Raises a `TransientError` when there was no usable answer at all, and what the endpoint
        lacks is remembered.
        """
        await self.check_chain(endpoint)
        told = await self._all(endpoint, calls, types)
        for outcome, (method, _) in zip(told.outcomes, calls, strict=True):
            if isinstance(outcome, MethodUnsupported):
                endpoint.lacks[method] = self._clock.monotonic() + _LACKS_S
        return told

    async def send(self, endpoint: Endpoint, call: Call, reply: object) -> object:
        """Make one call that must not be repeated; return its result or what went wrong."""
        method = call[0]
        try:
            await self.check_chain(endpoint)
            (raw,) = await self._post(endpoint, [call], method, repeat=False)
        except CausewayError as error:
            return error
        if isinstance(raw, CausewayError):
            _FAILURES.labels(endpoint.name, method, kind_of(raw)).inc()
            return raw
        return _decoded(raw, reply, endpoint.name, method)

    async def check_chain(self, endpoint: Endpoint) -> None:
        """Raise `ProviderUnavailable` unless the endpoint serves the chain that is required."""
        if endpoint.right_chain or self._identity is None:
            return
        method, wanted, first_block = self._identity
        if endpoint.right_chain is None:
            calls: list[Call] = [(method, []), *([first_block] if first_block else [])]
            types: list[object] = [str, *([_FirstBlock | None] if first_block else [])]
            said, *rest = (await self._all(endpoint, calls, types)).outcomes
            if isinstance(said, CausewayError):
                raise ProviderUnavailable(f"{endpoint.name} does not say its chain: {said}")
            try:
                endpoint.served_chain_id = int(str(said), 16)
            except ValueError:
                raise ProviderUnavailable(f"{endpoint.name}: {method} is no number") from None
            first = rest[0] if rest else None
            told = isinstance(first, _FirstBlock)
            endpoint.genesis = (first.hash or first.block_hash).lower() if told else None
            endpoint.right_chain = endpoint.served_chain_id == wanted
            if endpoint.right_chain and endpoint.genesis is not None:
                others = [h for name, h in self._genesis.items() if name != endpoint.name]
                endpoint.right_chain = not others or endpoint.genesis in others
                if endpoint.right_chain:
                    self._genesis[endpoint.name] = endpoint.genesis
            if not endpoint.right_chain:
                _log.error(
                    "endpoint serves another chain",
                    endpoint=endpoint.name,
                    served=endpoint.served_chain_id,
                    wanted=wanted,
                    first_block=endpoint.genesis,
                )
        if endpoint.right_chain is False:
            raise ProviderUnavailable(self.served(endpoint), kind="wrong_chain")

    def served(self, endpoint: Endpoint) -> str:
        """Return in words which other chain an endpoint serves."""
        wanted = self._identity[1] if self._identity else None
        what = f"chain {endpoint.served_chain_id}, not {wanted}"
        if endpoint.served_chain_id == wanted:
            what = f"another chain of the id {wanted}: its first block is another"
        return f"{endpoint.name} ({endpoint.url}) serves {what}"

    def answered(self, endpoint: Endpoint, method: str, seconds: float) -> None:
        """Note a good answer to a request for `method`, and how long it took."""
        endpoint.record(method).answered(self._clock.monotonic(), seconds)
        endpoint.succeeded()

    def failed(self, endpoint: Endpoint, method: str, error: CausewayError) -> None:
        """Note that a request for `method` failed, and for whose reasons."""
        kind, now = kind_of(error), self._clock.monotonic()
        _FAILURES.labels(endpoint.name, method, kind).inc()
        own_fault = isinstance(error, (ProviderUnavailable, RateLimited, WrongAnswer))
        if own_fault:
            endpoint.record(method).failed(now, kind)
            endpoint.failed(now, error.retry_after_s)
        if isinstance(error, RateLimited):
            endpoint.budget.refused(now, error.retry_after_s)

    def slow(self, endpoint: Endpoint, method: str, seconds: float) -> None:
        """Note that a request was given up because another endpoint answered it sooner."""
        now = self._clock.monotonic()
        _FAILURES.labels(endpoint.name, method, "slow").inc()
        endpoint.record(method).slow(now, seconds)
        endpoint.failed(now)

    def learn(self, endpoint: Endpoint, calls: Sequence[Call], error: CausewayError) -> None:
        """Remember what an error says of the endpoint for good."""
        if isinstance(error, StatePruned):
            block = methods.state_block(calls)
            if block is not None:
                endpoint.state_from = max(endpoint.state_from, block + 1)

    async def _all(
        self, endpoint: Endpoint, calls: Sequence[Call], types: Sequence[object]
    ) -> Told:
        raws: list[msgspec.Raw | CausewayError] = []
        method = methods.lead(calls)
        while len(raws) < len(calls):
            size = min(endpoint.max_batch, len(calls) - len(raws))
            try:
                raws += await self._post(endpoint, calls[len(raws) : len(raws) + size], method)
            except BatchRefused:
                endpoint.max_batch = max(1, size // 2)
        outcomes = [
            raw if isinstance(raw, CausewayError) else _decoded(raw, kind, endpoint.name, name)
            for raw, kind, (name, _) in zip(raws, types, calls, strict=True)
        ]
        return Told(outcomes, raws)

    async def _post(
        self, endpoint: Endpoint, calls: Sequence[Call], method: str, *, repeat: bool = True
    ) -> list[msgspec.Raw | CausewayError]:
        started = self._clock.monotonic()
        endpoint.budget.spend(cost(endpoint, calls), started)
        try:
            outcomes = await post(
                self._http(), endpoint, calls, timeout_s=self.timeout_s, repeat=repeat
            )
        except TransientError as error:
            self.failed(endpoint, method, error)
            raise
        _SECONDS.labels(endpoint.name, method).observe(self._clock.monotonic() - started)
        return outcomes

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=32),
                headers={"user-agent": "causeway"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def cost(endpoint: Endpoint, calls: Sequence[Call]) -> float:
    """Return what a request of these calls takes of the endpoint's budget."""
    return float(
        sum(methods.units(method) for method, _ in calls) if endpoint.budget.weighed else len(calls)
    )


def first_failure(
    outcomes: Sequence[object], endpoint: Endpoint, log_span: int | None
) -> CausewayError | None:
    """Return the first outcome that says another endpoint should be asked; None without any."""
    for outcome in outcomes:
        if isinstance(outcome, RangeTooLarge):
            if log_span is not None:
                endpoint.max_log_range = max(1, log_span // 2)
            return outcome
        if isinstance(outcome, (TransientError, MethodUnsupported)):
            return outcome
    return None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[object]:
    """Return the decoder of a kind of result; making one costs more than using it."""
    return msgspec.json.Decoder(kind)


def decoded(
    answers: Sequence[bytes], types: Sequence[object], calls: Sequence[Call]
) -> list[object]:
    """Return kept answers decoded as an endpoint's are."""
    return [
        _decoded(msgspec.Raw(answer), kind, "what was kept", method)
        for answer, kind, (method, _) in zip(answers, types, calls, strict=True)
    ]


def _decoded(raw: msgspec.Raw, kind: object, said_by: str, method: str) -> object:
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        return ProviderUnavailable(
            f"{said_by}: {method} answered in another shape: {error}", kind="another_shape"
        )
    except (msgspec.DecodeError, ValueError):
        return ProviderUnavailable(f"{said_by}: {method} answered no JSON", kind="no_json")
