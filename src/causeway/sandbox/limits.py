"""The two ways the real services count requests."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


class TokenBucket:
    """`per_minute` at once, then as they come back one by one."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._at = 0.0

    def take(self, now: float, per_minute: float, burst: float | None = None) -> float | None:
        """Take one; return None, or the seconds until there is one again."""
        rate = per_minute / 60
        size = per_minute if burst is None else burst
        self._spent = max(0.0, self._spent - (now - self._at) * rate)
        self._at = now
        if self._spent + 1 > size:
            return (self._spent + 1 - size) / rate
        self._spent += 1
        return None


class MinuteWindow:
    """So many in each minute, counted from its first request."""

    def __init__(self) -> None:
        self.used = 0
        self.ends_at = 0.0

    def take(self, now: float, per_minute: int) -> bool:
        """Count one; return whether it is within the limit."""
        if now >= self.ends_at:
            self.used, self.ends_at = 0, now + 60
        self.used += 1
        return self.used <= per_minute


@dataclass
class Limits:
    """The counters of all services."""

    creations: TokenBucket = field(default_factory=TokenBucket)
    reads: TokenBucket = field(default_factory=TokenBucket)
    pinning: MinuteWindow = field(default_factory=MinuteWindow)
    pinata_data: MinuteWindow = field(default_factory=MinuteWindow)
    #: (login, resource) -> (used, when the hour ends).
    github: dict[tuple[str, str], tuple[int, float]] = field(
        default_factory=dict[tuple[str, str], tuple[int, float]]
    )
    #: username -> times of the last five minutes.
    wakatime: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    #: (meter, seconds of the window, its beginning) -> requests, refused ones included.
    strava: dict[tuple[str, int, int], int] = field(default_factory=dict[tuple[str, int, int], int])
    #: (seconds of the window, its beginning) -> requests.
    open_meteo: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    #: Beginning of a day -> requests.
    openweather: dict[int, int] = field(default_factory=dict[int, int])
    #: path -> its minute.
    neynar: dict[str, MinuteWindow] = field(default_factory=dict[str, MinuteWindow])
