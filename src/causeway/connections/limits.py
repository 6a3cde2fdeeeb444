"""How much may still be asked: what providers say in their headers, and what they only document.

Rules without input or output; times are seconds since 1970, as the clock gives them. Counted in
each process: the numbers in the headers hold for all of them, so every answer puts them right.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds by which two times of the same reset may differ.
_SAME_RESET_S = 2.0
#: A header's reset larger than this is a time; smaller, it is a number of seconds from now.
_EPOCH_FROM = 1_000_000_000
#: Nobody is told to wait longer than this by one header.
MOST_S = 24 * 3600.0


@dataclass(frozen=True)
class Rate:
    """At most `requests` in any `seconds`."""

    requests: int
    seconds: float


@dataclass(frozen=True)
class Reading:
    """What one answer says is left, and when it is full again."""

    remaining: int
    resets_at: float


def read_limits(headers: Mapping[str, str], now: float) -> Reading | None:
    """Return what `X-RateLimit-*` or `RateLimit-*` headers say; None when they say nothing clear.

    The reset is a Unix time (GitHub) or a number of seconds (the IETF draft).
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    for prefix in ("x-ratelimit-", "ratelimit-", "x-rate-limit-"):
        remaining = lower.get(f"{prefix}remaining", "")
        reset = lower.get(f"{prefix}reset", "")
        if _is_number(remaining) and _is_number(reset):
            seconds = int(reset)
            at = float(seconds) if seconds >= _EPOCH_FROM else now + seconds
            return Reading(int(remaining), min(at, now + MOST_S))
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


class Budget:
    """What one caller may ask of one provider."""

    def __init__(self, rate: Rate | None = None) -> None:
        self._rate = rate
        self._asked: deque[float] = deque(maxlen=rate.requests if rate else 0)
        self._left: Reading | None = None
        self._paused_until = 0.0

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may go; 0 when it may go now."""
        until = self._paused_until
        if self._left is not None and self._left.remaining <= 0:
            until = max(until, self._left.resets_at)
        if self._rate is not None and len(self._asked) == self._rate.requests:
            until = max(until, self._asked[0] + self._rate.seconds)
        return max(0.0, until - now)

    def take(self, now: float) -> None:
        """Count a request that goes out now."""
        if self._rate is not None:
            self._asked.append(now)
        if self._left is not None:
            if self._left.resets_at <= now:
                self._left = None
            else:
                self._left = Reading(self._left.remaining - 1, self._left.resets_at)

    def not_counted(self) -> None:
        """Take back what was counted: an answer that says "unchanged" costs nothing."""
        if self._left is not None:
            self._left = Reading(self._left.remaining + 1, self._left.resets_at)

    def learn(self, reading: Reading, now: float) -> None:
        """Take over what an answer said.

        Answers may overtake one another: within one period the smaller number counts, and one of
        an earlier period says nothing.
        """
        known = self._left
        if reading.resets_at <= now:
            return
        if known is None or reading.resets_at > known.resets_at + _SAME_RESET_S:
            self._left = reading
        elif reading.resets_at >= known.resets_at - _SAME_RESET_S:
            self._left = Reading(min(known.remaining, reading.remaining), known.resets_at)

    def pause(self, seconds: float, now: float) -> None:
        """Let nothing go out for `seconds`: the provider said so."""
        self._paused_until = max(self._paused_until, now + min(seconds, MOST_S))


class Budgets:
    """One budget for each caller; those not used for longest are forgotten first."""

    def __init__(self, rate: Rate | None = None, *, most: int = 10_000) -> None:
        self._rate = rate
        self._most = most
        self._of: OrderedDict[str, Budget] = OrderedDict()

    def of(self, who: str) -> Budget:
        """Return the budget of that caller."""
        budget = self._of.get(who)
        if budget is None:
            budget = self._of[who] = Budget(self._rate)
        self._of.move_to_end(who)
        while len(self._of) > self._most:
            self._of.popitem(last=False)
        return budget
