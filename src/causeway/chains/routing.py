"""Which endpoint is asked first: the well before the ill, then by score, with some loyalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from causeway.chains import methods
from causeway.chains.asking import cost
from causeway.chains.endpoint import Endpoint
from causeway.chains.rpc import Call
from causeway.chains.score import Score, score

#: Another endpoint has to be so much better for so long before it takes the first place.
_BETTER = 1.3
_BETTER_FOR_S = 30.0
#: Blocks an endpoint may be below the agreed head and still be asked about the tip.
_LAG_ALLOWED = 2


@dataclass(frozen=True)
class Question:
    """What routing has to know of a request."""

    calls: Sequence[Call]
    #: The method it is known by.
    method: str
    #: Blocks of logs asked for; None for anything else.
    log_span: int | None
    #: Whether it is about the newest block, and the highest and lowest block it is about.
    tip: bool
    highest: int | None
    state_at: int | None

    @classmethod
    def of(cls, calls: Sequence[Call], log_span: int | None = None) -> Question:
        """Return what there is to know of these calls."""
        return cls(
            calls,
            methods.lead(calls),
            log_span,
            methods.about_the_tip(calls),
            methods.highest_block(calls),
            methods.state_block(calls),
        )


class Router:
    """Orders the endpoints of one pool. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._challenger: dict[str, tuple[str, float]] = {}

    def forget(self) -> None:
        """Forget who was in the first place: somebody wrote another list."""
        self._first.clear()
        self._challenger.clear()

    def order(self, endpoints: Sequence[Endpoint], asked: Question, now: float) -> list[Endpoint]:
        """Return the endpoints to ask in turn; those of another chain are left out.

        Who is on another fork or too far behind is left out as long as another one is left, and so
        is who asked us to wait. Nobody is left out for being slow or having failed.
        """
        usable = [one for one in endpoints if one.right_chain is not False]
        if len(usable) > 1:
            usable = [one for one in usable if not self._misleads(one, asked)] or usable
            usable = [one for one in usable if not one.budget.blocked_s(now)] or usable
            scores = {one.name: self.score(one, usable, asked.method, now).points for one in usable}
            first = self._loyal(endpoints[0].name, usable, scores, asked.method, now)
            usable.sort(
                key=lambda one: (
                    self._hindrance(one, asked, now),
                    one.cooling_until if one.cooling_until > now else 0.0,
                    one.name != first,
                    -round(scores[one.name] / 10),  # small differences leave the given order
                )
            )
        return usable

    def score(
        self, endpoint: Endpoint, among: Sequence[Endpoint], method: str, now: float
    ) -> Score:
        """Return the score of an endpoint for a method, beside the others of its pool."""
        latencies = [one.record(method).latency_s(0.5, now) for one in among]
        known = [one for one in latencies if one is not None]
        record = endpoint.record(method)
        return score(
            success=record.success(now),
            latency_s=record.latency_s(0.5, now),
            median_s=median(known) if len(known) > 1 else None,
            lag_blocks=endpoint.lag,
            forked=endpoint.forked,
        )

    @staticmethod
    def _misleads(one: Endpoint, asked: Question) -> bool:
        """Say whether its answer could be of a block that is not, or not any more, the chain's."""
        if one.forked:
            return True
        if asked.tip:
            return one.lag > _LAG_ALLOWED
        return (
            asked.highest is not None
            and one.head is not None
            and one.lag > _LAG_ALLOWED
            and asked.highest > one.head.number
        )

    @staticmethod
    def _hindrance(one: Endpoint, asked: Question, now: float) -> int:
        """Return how much speaks against asking it: 0 nothing."""
        if any(one.lacks.get(method, 0.0) > now for method, _ in asked.calls):
            return 5
        if asked.state_at is not None and asked.state_at < one.state_from:
            return 4
        if one.record(asked.method).breaker.state(now) == "open":
            return 3
        if asked.log_span is not None and asked.log_span > one.max_log_range:
            return 2
        return 1 if one.budget.wait_s(cost(one, asked.calls), now) > 0 else 0

    def _loyal(
        self,
        listed: str,
        usable: Sequence[Endpoint],
        scores: dict[str, float],
        method: str,
        now: float,
    ) -> str:
        """Return who is in the first place: who has it, until another is better for a while.

        `listed`: who it is at the start; nobody knows better than who wrote the list.
        """
        best = max(usable, key=lambda one: scores[one.name]).name
        first = self._first.get(method, listed)
        if first not in scores:
            return usable[0].name  # until it may be asked again
        if scores[best] >= scores[first] * _BETTER and best != first:
            challenger, since = self._challenger.get(method, (best, now))
            if challenger != best:
                since = now
            self._challenger[method] = (best, since)
            if now - since >= _BETTER_FOR_S:
                first = best
        else:
            self._challenger.pop(method, None)
        self._first[method] = first
        return first
