"""What calls of one method at one endpoint were like: how often, how quick, how they failed."""

from __future__ import annotations

import math
from collections import Counter, deque

from causeway.chains.breaker import Breaker

_SAMPLES = 200
#: After so long a latency says nothing about now.
_MAX_AGE_S = 300.0
#: Weight of the newest call in the share of answered ones.
_NEWEST = 0.1
#: After so long half of what failures took from that share is forgotten: who is not asked any
#: more could not earn it back.
_FORGIVEN_S = 60.0


class Record:
    """One method at one endpoint. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.calls = 0
        #: Failures by kind (`timeout`, `http_502`, `rate_limit`, `wrong_answer`, ...).
        self.failures: Counter[str] = Counter()
        self.breaker = Breaker()
        self._lost = 0.0
        self._lost_at = 0.0
        self._latencies: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)
        self._sorted: list[float] | None = None

    def answered(self, now: float, seconds: float) -> None:
        """Count an answer that took so long."""
        self.calls += 1
        self._note(now, 0.0)
        self.breaker.succeeded(now)
        self._latencies.append((now, seconds))
        self._sorted = None

    def failed(self, now: float, kind: str) -> None:
        """Count a failure."""
        self.calls += 1
        self.failures[kind] += 1
        self._note(now, 1.0)
        self.breaker.failed(now)

    def slow(self, now: float, seconds: float) -> None:
        """Count a call that was given up after so long because another endpoint was quicker."""
        self.calls += 1
        self.failures["slow"] += 1
        self.breaker.failed(now)
        self._latencies.append((now, seconds))
        self._sorted = None

    def latency_s(self, share: float, now: float) -> float | None:
        """Return the time within which `share` of the recent calls were answered; None if none."""
        while self._latencies and self._latencies[0][0] < now - _MAX_AGE_S:
            self._latencies.popleft()
            self._sorted = None
        if not self._latencies:
            return None
        if self._sorted is None:
            self._sorted = sorted(seconds for _, seconds in self._latencies)
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]

    def success(self, now: float) -> float | None:
        """Return the share of recent calls that were answered, 0 to 1; None before the first."""
        return None if not self.calls else 1.0 - self._lost_now(now)

    def _lost_now(self, now: float) -> float:
        return self._lost * 0.5 ** ((now - self._lost_at) / _FORGIVEN_S)

    def _note(self, now: float, lost: float) -> None:
        known = self._lost_now(now)
        # The first few calls count alike: one failure of one call is all of them.
        self._lost = known + (lost - known) * max(_NEWEST, 1 / self.calls)
        self._lost_at = now
