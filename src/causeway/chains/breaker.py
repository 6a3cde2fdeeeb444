"""A circuit breaker: whoever fails again and again is not asked for a while, then by one question.

Opens after five failures in a row, or when more than half of at least ten calls within 30 seconds
failed. It stays open 15 s, twice as long after each half-open question that failed, up to 5 min.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

State = Literal["closed", "open", "half_open"]

_IN_A_ROW = 5
_WINDOW_S = 30.0
_LEAST = 10
_SHARE = 0.5
_OPEN_FIRST_S = 15.0
_OPEN_MAX_S = 300.0


class Breaker:
    """The breaker of one thing that can fail. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, bool]] = deque(maxlen=200)
        self._in_a_row = 0
        self._open_until: float | None = None
        self._open_s = _OPEN_FIRST_S
        self._asking = False

    def state(self, now: float) -> State:
        """Return whether calls pass: all (`closed`), none, or one."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until or self._asking else "half_open"

    def asking(self, now: float) -> None:
        """Note that a call is made; when half open no other passes until it ends."""
        if self.state(now) == "half_open":
            self._asking = True

    def given_up(self) -> None:
        """Note that the call that was made ended without telling anything."""
        self._asking = False

    def succeeded(self, now: float) -> None:
        """Note an answer."""
        self._asking = False
        self._in_a_row = 0
        self._recent.append((now, True))
        if self._open_until is not None:
            self._open_until = None
            self._open_s = _OPEN_FIRST_S
            self._recent.clear()

    def failed(self, now: float) -> None:
        """Note a failure of the one who was asked, not of the question."""
        self._recent.append((now, False))
        self._in_a_row += 1
        if self._open_until is not None:
            if self._asking or now >= self._open_until:
                self._open_s = min(self._open_s * 2, _OPEN_MAX_S)
                self._open_until = now + self._open_s
            self._asking = False
            return
        while self._recent and self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()
        failures = sum(not ok for _, ok in self._recent)
        many = len(self._recent) >= _LEAST and failures > len(self._recent) * _SHARE
        if self._in_a_row >= _IN_A_ROW or many:
            self._open_until = now + self._open_s
