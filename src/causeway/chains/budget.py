"""How much an endpoint may be asked: a token bucket whose rate is learned from refusals.

Without a configured rate nothing is held back until the endpoint says 429. Then the rate is half
of what it was asked in the last seconds, and grows by a tenth each minute; a refusal halves it
again. Retry-After is honoured: nothing is asked until then.
"""

from __future__ import annotations

import math
import re
from collections import deque

from causeway.base.errors import ConfigurationError

_WATCHED_S = 10.0
_GROWTH_A_MINUTE = 1.1
_LONG_MIN = 60.0
_LEAST_RATE = 1.0
#: A learned rate that has grown so far above the one that was refused is no limit any more.
_FREE_AGAIN = 4.0
#: Refusals of one burst count once.
_ONE_BURST_S = 1.0


class Budget:
    """What one endpoint may be asked. Cost in units (calls, or compute units); monotonic seconds.

    `rate`: units a second by its plan; None where there is no limit that we know. `weighed`:
    whether calls cost their compute units, or one each.
    """

    def __init__(self, rate: float | None = None, *, weighed: bool = False) -> None:
        self.weighed = weighed
        self._plan = rate
        self._learned: float | None = None
        self._refused_rate = 0.0
        self._learned_at = 0.0
        self._refused_at = -math.inf
        self._blocked_until = -math.inf
        self._spent: deque[tuple[float, float]] = deque()
        self._tokens = rate or 0.0
        self._filled_at: float | None = None

    def rate(self, now: float) -> float | None:
        """Return the units a second that may be spent now; None without a limit."""
        learned = self._learned
        if learned is not None:
            minutes = min((now - self._learned_at) / 60, _LONG_MIN)
            learned *= _GROWTH_A_MINUTE**minutes
            if learned > self._refused_rate * _FREE_AGAIN:
                learned = self._learned = None
        if learned is None or self._plan is None:
            return self._plan if learned is None else learned
        return min(learned, self._plan)

    def blocked_s(self, now: float) -> float:
        """Return the seconds that a Retry-After still has to run; 0 when there is none."""
        return max(0.0, self._blocked_until - now)

    def wait_s(self, cost: float, now: float) -> float:
        """Return the seconds until so much may be spent; 0 at once."""
        blocked = self.blocked_s(now)
        rate = self.rate(now)
        if rate is None:
            return blocked
        self._fill(rate, now)
        # What costs more than a second's worth may be asked of a full bucket.
        lacking = min(cost, max(rate, 1.0)) - self._tokens
        return max(blocked, lacking / rate, 0.0)

    def spend(self, cost: float, now: float) -> None:
        """Note that so much was asked."""
        self._spent.append((now, cost))
        while self._spent and self._spent[0][0] < now - _WATCHED_S:
            self._spent.popleft()
        rate = self.rate(now)
        if rate is not None:
            self._fill(rate, now)
            self._tokens -= cost

    def refused(self, now: float, retry_after_s: float | None = None) -> None:
        """Note a 429."""
        if retry_after_s:
            self._blocked_until = max(self._blocked_until, now + retry_after_s)
        if now - self._refused_at < _ONE_BURST_S:
            return
        self._refused_at = now
        spent = [cost for at, cost in self._spent if at >= now - _WATCHED_S]
        over_s = max(1.0, now - self._spent[0][0]) if spent else 1.0
        known = self.rate(now)
        asked = sum(spent) / over_s
        self._refused_rate = max(
            _LEAST_RATE, asked if known is None else min(asked, known) or asked
        )
        self._learned = max(_LEAST_RATE, self._refused_rate / 2)
        self._learned_at = now
        self._tokens = 0.0
        self._filled_at = now

    def _fill(self, rate: float, now: float) -> None:
        if self._filled_at is None:
            self._tokens = max(rate, 1.0)
        else:
            grown = self._tokens + (now - self._filled_at) * rate
            self._tokens = min(grown, max(rate, 1.0))  # one second's worth at most
        self._filled_at = now


_WRITTEN = re.compile(r"([\w.-]+)=(\d+(?:\.\d+)?)(cu)?(?:/s)?")


def budgets_from(text: str) -> dict[str, Budget]:
    """Read budgets by endpoint: `base-mainnet-1=25, base-mainnet-2=330cu`.

    A number is requests a second, with `cu` compute units a second. Raises `ConfigurationError`.
    """
    found: dict[str, Budget] = {}
    for part in filter(None, re.split(r"[,\s]+", text)):
        written = _WRITTEN.fullmatch(part)
        if written is None or float(written[2]) <= 0:
            raise ConfigurationError(
                f"CAUSEWAY_RPC_BUDGETS: {part!r} is not written like base-mainnet-1=25 "
                "(requests a second) or base-mainnet-1=330cu (compute units a second)"
            )
        found[written[1]] = Budget(float(written[2]), weighed=written[3] is not None)
    return found
