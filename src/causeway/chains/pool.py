"""The provider pool: one chain's endpoints, asked by how well they do.

A read goes to the endpoint that does best for its method. When that one fails for a reason of its
own (no answer, 429, behind the head, on another fork) the next is asked, once each; when it is
slower than it usually is, the next is asked besides, and the first good answer wins. The caller
backs off and comes again; only a read that died on a kept-alive connection is repeated here. The
same read asked for twice at a time is made once. A raw transaction goes to all endpoints at once,
once each, and is never repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast, overload

import msgspec
import structlog
from prometheus_client import Counter

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.chains import methods
from causeway.chains.asking import Asker, cost, decoded, first_failure
from causeway.chains.cache import FinalAnswers
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import (
    AlreadyKnown,
    MethodUnsupported,
    NonceTooLow,
    RangeTooLarge,
    RpcError,
    SendRejected,
)
from causeway.chains.head import Agreement
from causeway.chains.routing import Question, Router
from causeway.chains.rpc import Call

__all__ = ["Endpoint", "ProviderPool", "SecretUrl"]

T = TypeVar("T")

_log = structlog.get_logger(__name__)
_HEDGES = Counter(
    "causeway_chains_hedges_total", "Reads that were asked of a second endpoint too", ["method"]
)
_SHARED = Counter(
    "causeway_chains_shared_reads_total", "Reads that waited for the same one under way", ["method"]
)

#: Nobody is asked besides before so long, seconds; nor without knowing how long answers take.
_HEDGE_LEAST_S = 0.15
_HEDGE_UNKNOWN_S = 1.0
_HEDGE_SHARE = 0.05
_HEDGE_BURST = 10.0

#: Looks at the answers of one endpoint; raises a `TransientError` to have the next one asked.
Acceptance = Callable[[list[object]], None]


class _Lacking(CausewayError):
    """The endpoint does not offer one of the methods; what it said of the others."""

    def __init__(self, outcomes: list[object]) -> None:
        super().__init__()
        self.outcomes = outcomes


@dataclass(frozen=True)
class _Request:
    asked: Question
    types: Sequence[object]
    accept: Acceptance | None
    #: Whether answers that are final are kept.
    keep: bool = False


class ProviderPool:
    """Endpoints of one chain. `timeout_s`: for one answer of one endpoint."""

    def __init__(
        self, endpoints: Sequence[Endpoint], *, timeout_s: float = 10.0, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        if not endpoints:
            raise ConfigurationError("a provider pool needs at least one endpoint")
        self.endpoints = tuple(endpoints)
        self.router = Router()
        self.final_answers = FinalAnswers()
        #: What the endpoints' heads amounted to when they were last compared.
        self.agreement: Agreement | None = None
        self.clock = clock
        self._asker = Asker(timeout_s, clock)
        self._disagreeing_since: float | None = None
        self._hedges = _HEDGE_BURST
        self._under_way: dict[bytes, asyncio.Task[list[object]]] = {}
        self._leaving: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        return f"ProviderPool({', '.join(f'{e.name}={e.url}' for e in self.endpoints)})"

    @property
    def timeout_s(self) -> float:
        """How long one answer of one endpoint may take, seconds."""
        return self._asker.timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._asker.timeout_s = seconds

    def require_chain_id(
        self, chain_id: int, method: str = "eth_chainId", *, first_block: Call | None = None
    ) -> None:
        """Have every endpoint checked before its first use to serve the chain `chain_id`.

        `first_block`: how the first block is asked for, so that endpoints of another chain with
        the same id are found out.
        """
        self._asker.require(method, chain_id, first_block)
        for endpoint in self.endpoints:
            endpoint.right_chain = None

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Read from these endpoints from now on, the first ones preferred.

        What is known of those that stay (by their address) is kept.
        """
        if not endpoints:
            raise ConfigurationError("a provider pool needs at least one endpoint")
        before = {endpoint.url: endpoint for endpoint in self.endpoints}
        arranged = tuple(before.get(one.url, one) for one in endpoints)
        if arranged != self.endpoints:
            self.endpoints = arranged
            self.router.forget()

    async def verify(self) -> None:
        """Ask every endpoint for its chain id and set those aside that serve another chain.

        Raises `ConfigurationError` when none serves ours and at least one another, and
        `ProviderUnavailable` when none answered.
        """
        for endpoint in self.endpoints:
            endpoint.right_chain = None
        results = await asyncio.gather(
            *(self._asker.check_chain(e) for e in self.endpoints), return_exceptions=True
        )
        if any(e.right_chain for e in self.endpoints):
            return
        wrong = [e for e in self.endpoints if e.right_chain is False]
        if wrong:
            raise ConfigurationError([self._asker.served(one) for one in wrong])
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
        request = _Request(Question.of(calls, log_span), types, accept)
        if not methods.repeatable(calls):
            return await self._once(request)
        if log_span is not None:
            return await self._first_good(request)
        request = replace(request, keep=True)
        kept = await self._kept(request)
        if kept is not None:
            return kept
        if accept is not None:
            return await self._first_good(request)
        return await self._shared(request)

    async def everybody(
        self, calls: Sequence[Call], replies: Sequence[object], *, at_most: int, grace_s: float
    ) -> list[tuple[Endpoint, list[object]]]:
        """Ask several endpoints at once, the best first; return those that answered, in order.

        After the first answer the others are waited for `grace_s` seconds more. Who failed is left
        out; raises the first `TransientError` when all did.
        """
        asked = Question.of(calls)
        request = _Request(asked, replies, None)
        # Who is out of favour is asked as well: how else would it be found to be well again.
        now = self.clock.monotonic()
        usable = [
            one
            for one in self.endpoints
            if one.right_chain is not False and not one.budget.blocked_s(now)
        ]
        order = self.router.order(self.endpoints, asked, now)
        order = [*order, *sorted((e for e in usable if e not in order), key=lambda e: e.head_at)]
        if len(order) > at_most:
            order = [*order[: at_most - 1], min(order[at_most - 1 :], key=lambda e: e.head_at)]
        tasks = {asyncio.create_task(self._good(one, request)): one for one in order}
        try:
            pending = set(tasks)
            while pending and not any(
                not t.cancelled() and t.exception() is None for t in set(tasks) - pending
            ):
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if pending:
                await asyncio.wait(pending, timeout=grace_s)
        finally:
            # The slow ones go on by themselves: how long they take is worth knowing.
            for task in tasks:
                if not task.done():
                    self._leave(task)
        answers: list[tuple[Endpoint, list[object]]] = []
        failure: BaseException | None = None
        for task, endpoint in tasks.items():
            if not task.done():
                continue
            error = task.exception()
            if error is None:
                answers.append((endpoint, task.result()))
            elif isinstance(error, _Lacking):
                answers.append((endpoint, error.outcomes))
            else:
                failure = failure or error
        if not answers:
            raise failure or ProviderUnavailable("every endpoint serves another chain")
        return answers

    async def of_one(
        self, endpoint: Endpoint, calls: Sequence[Call], replies: Sequence[object]
    ) -> list[object]:
        """Return what this endpoint answers; raises a `TransientError` when it does not."""
        try:
            return await self._good(endpoint, _Request(Question.of(calls), replies, None))
        except _Lacking as lacking:
            return lacking.outcomes

    def wrong(self, endpoint: Endpoint, calls: Sequence[Call], error: CausewayError) -> None:
        """Note that what an endpoint answered to these calls cannot be true."""
        self._asker.failed(endpoint, methods.lead(calls), error)

    def agreed(self, agreement: Agreement) -> None:
        """Note what the endpoints' heads amount to; who is behind or on another fork is known."""
        now = self.clock.monotonic()
        for endpoint in self.endpoints:
            if endpoint.name in agreement.lags:
                endpoint.lag = agreement.lags[endpoint.name]
                forked = endpoint.name in agreement.forked
                if forked != endpoint.forked:
                    say = _log.warning if forked else _log.info
                    say(
                        "endpoint is on another fork" if forked else "endpoint agrees again",
                        endpoint=endpoint.name,
                        head=agreement.head.number,
                        undecided=agreement.undecided,
                    )
                    if forked:
                        endpoint.right_chain = None  # perhaps it serves another chain by now
                endpoint.forked = forked
        if not agreement.forked:
            self._disagreeing_since = None
        elif self._disagreeing_since is None:
            self._disagreeing_since = now
        self.agreement = agreement

    def disagreeing_s(self) -> float:
        """Return for how long endpoints have contradicted one another; 0 when they do not."""
        since = self._disagreeing_since
        return 0.0 if since is None else self.clock.monotonic() - since

    async def send_raw(self, raw_hex: str) -> str:
        """Send a signed EVM transaction as `send` does; return its hash."""
        return await self.send(("eth_sendRawTransaction", [raw_hex]), str)

    async def send(self, call: Call, reply: type[T]) -> T:
        """Send a signed transaction to every endpoint at once; return the first acceptance.

        Raises when nobody accepted: `AlreadyKnown` before `NonceTooLow` before any other refusal
        before what may heal; the bytes may have been taken in that last case, so only the same
        bytes may be sent again.
        """
        pending = {
            asyncio.create_task(self._asker.send(endpoint, call, reply))
            for endpoint in self.endpoints
            if endpoint.right_chain is not False
        }
        if not pending:
            raise ProviderUnavailable("every endpoint serves another chain")
        refused: list[CausewayError] = []
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                if isinstance(outcome, reply):
                    # The slower ones get their copy too; nobody waits for them.
                    for rest in pending:
                        self._leave(rest)
                    return outcome
                refused.append(
                    outcome if isinstance(outcome, CausewayError) else ProviderUnavailable()
                )
        for kind in (AlreadyKnown, NonceTooLow, SendRejected, RpcError):
            for error in refused:
                if isinstance(error, kind):
                    raise error
        raise refused[0]

    async def close(self) -> None:
        """Close the connections; what is under way is given up (sends have been posted)."""
        leaving = [*self._leaving, *self._under_way.values()]
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await self._asker.close()

    async def _once(self, request: _Request) -> list[object]:
        """Ask one endpoint one time: the calls change something."""
        order = self.router.order(self.endpoints, request.asked, self.clock.monotonic())
        if not order:
            raise ProviderUnavailable("every endpoint serves another chain")
        try:
            return await self._good(order[0], request)
        except _Lacking as lacking:
            return lacking.outcomes

    async def _kept(self, request: _Request) -> list[object] | None:
        """Return kept answers, if there are any that whoever asks is content with."""
        answers = await self.final_answers.get(request.asked.calls)
        if answers is None:
            return None
        outcomes = decoded(answers, request.types, request.asked.calls)
        try:
            if request.accept is not None:
                request.accept(outcomes)
        except CausewayError:
            return None
        return None if any(isinstance(one, CausewayError) for one in outcomes) else outcomes

    async def _shared(self, request: _Request) -> list[object]:
        """Make a read once for everybody who asks for it at the same time."""
        key = msgspec.json.encode([list(request.asked.calls), [repr(t) for t in request.types]])
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._first_good(request))
            self._under_way[key] = task
            task.add_done_callback(partial(self._read, key))
        else:
            _SHARED.labels(request.asked.method).inc()
        # Who stops waiting does not take the answer from the others.
        return list(await asyncio.shield(task))

    async def _first_good(self, request: _Request) -> list[object]:
        asked = request.asked
        order = self.router.order(self.endpoints, asked, self.clock.monotonic())
        await self._within_budget(order, asked)
        waiting = iter(order)
        running: dict[asyncio.Task[list[object]], tuple[Endpoint, float]] = {}
        worst: CausewayError | None = None
        may_hedge = len(order) > 1
        self._hedges = min(_HEDGE_BURST, self._hedges + _HEDGE_SHARE)

        def start() -> bool:
            endpoint = next(waiting, None)
            if endpoint is not None:
                task = asyncio.create_task(self._good(endpoint, request))
                running[task] = (endpoint, self.clock.monotonic())
            return endpoint is not None

        try:
            while running or start():
                patience = None
                if may_hedge and len(running) == 1 and self._hedges >= 1:
                    patience = self._patience(next(iter(running.values()))[0], asked.method)
                done, _ = await asyncio.wait(
                    running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    may_hedge = False
                    if self._hedges >= 1 and start():  # others may have spent it meanwhile
                        self._hedges -= 1
                        _HEDGES.labels(asked.method).inc()
                for task in done:
                    running.pop(task)
                    try:
                        outcomes = task.result()
                    except (TransientError, RangeTooLarge, _Lacking) as error:
                        worst = _more_telling(worst, error)
                        continue
                    now = self.clock.monotonic()
                    for endpoint, since in running.values():
                        if since <= now:
                            self._asker.slow(endpoint, asked.method, now - since)
                    return outcomes
        finally:
            for task in running:
                self._leave(task)
                task.cancel()
        if isinstance(worst, _Lacking):
            if request.accept is not None:
                request.accept(worst.outcomes)
            return worst.outcomes
        raise worst or ProviderUnavailable("every endpoint serves another chain")

    def _patience(self, endpoint: Endpoint, method: str) -> float:
        """Return how long an endpoint may take before another is asked besides, seconds."""
        usual = endpoint.record(method).latency_s(0.95, self.clock.monotonic())
        return _HEDGE_UNKNOWN_S if usual is None else max(_HEDGE_LEAST_S, usual)

    async def _within_budget(self, order: Sequence[Endpoint], asked: Question) -> None:
        """Wait until the first endpoint may be asked, if all have spent what they had.

        Raises `RateLimited` at once when it asked for more patience than a request has.
        """
        if not order:
            return
        now = self.clock.monotonic()
        waits = [one.budget.wait_s(cost(one, asked.calls), now) for one in order]
        least = min(waits)
        if least > self._asker.timeout_s or all(one.budget.blocked_s(now) for one in order):
            raise RateLimited(f"{order[0].name} asked us to wait", retry_after_s=least)
        if waits[0] and least:
            await self.clock.sleep(waits[0])

    async def _good(self, endpoint: Endpoint, request: _Request) -> list[object]:
        """Return an endpoint's answers, or raise why another one should be asked."""
        asked = request.asked
        started = self.clock.monotonic()
        breaker = endpoint.record(asked.method).breaker
        breaker.asking(started)
        try:
            told = await self._asker.ask(endpoint, asked.calls, request.types)
            outcomes = told.outcomes
            error = first_failure(outcomes, endpoint, asked.log_span)
            if isinstance(error, MethodUnsupported):
                raise _Lacking(outcomes)
            try:
                if error is not None:
                    raise error
                if request.accept is not None:
                    request.accept(outcomes)
            except CausewayError as failure:
                self._asker.failed(endpoint, asked.method, failure)
                self._asker.learn(endpoint, asked.calls, failure)
                raise
            self._asker.answered(endpoint, asked.method, self.clock.monotonic() - started)
        finally:
            breaker.given_up()  # nothing, when the outcome was noted
        if request.keep:
            await self.final_answers.put(
                asked.calls,
                [None if isinstance(raw, CausewayError) else bytes(raw) for raw in told.raws],
            )
        return outcomes

    def _read(self, key: bytes, task: asyncio.Task[list[object]]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # for those who wait, if anybody still does

    def _leave(self, task: asyncio.Task[list[object]] | asyncio.Task[object]) -> None:
        """Let a task end by itself, whatever it comes to."""
        leaving = cast("asyncio.Task[object]", task)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[object]) -> None:
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # has been noted where it happened


def _more_telling(known: CausewayError | None, new: CausewayError) -> CausewayError:
    """Return which of two failures the caller is told.

    A refused range is for the caller to shrink, others only if nobody refuses; that a method is
    lacking counts only if all lack it or fail.
    """
    if known is None or isinstance(known, _Lacking):
        return new if known is None or not isinstance(new, _Lacking) else known
    return new if isinstance(new, RangeTooLarge) and not isinstance(known, RangeTooLarge) else known
