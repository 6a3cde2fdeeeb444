"""The one place where the process reads time, so that tests own it.

What several machines must agree on (leases, due times) is compared by the database with the
database's own clock; this one is for everything that stays inside a process or is shown.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the code may know about time."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; a backoff or a poll, never a way to synchronise."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for durations."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def iso(instant: datetime) -> str:
    """Return `instant` as RFC 3339 in UTC ending in `Z`, to the microsecond when it has any."""
    if instant.tzinfo is None:
        raise ValueError("a naive time has no place here")
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
