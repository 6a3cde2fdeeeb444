"""Providers that are away: asked now and then by one, instead of by everybody who waits.

Each participant would otherwise find out alone, with all the patience of an outgoing request, and
those of other providers would wait behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from causeway.apps.motify.goals import Provider

#: Failures in a row, without a success, after which a provider counts as away.
_AWAY_AFTER = 3
#: Between two questions to a provider that is away, seconds: at first, and at most.
_FIRST_PAUSE_S = 2.0
_MOST_PAUSE_S = 60.0


@dataclass
class _Record:
    failures: int = 0
    #: Monotonic seconds; nobody asks before.
    closed_until: float = 0.0


@dataclass
class Outages:
    """What this process knows of providers that are away."""

    _records: dict[Provider, _Record] = field(default_factory=dict[Provider, _Record])

    def wait_s(self, provider: Provider, now: float) -> float | None:
        """Return how long to leave a provider alone; None: ask it now.

        Of those who wait, one is let through each time the pause is over.
        """
        record = self._records.get(provider)
        if record is None or record.failures < _AWAY_AFTER:
            return None
        if now < record.closed_until:
            return record.closed_until - now
        record.closed_until = now + self._pause_s(record)
        return None

    def failed(self, provider: Provider, now: float) -> None:
        """Note that a provider did not answer."""
        record = self._records.setdefault(provider, _Record())
        record.failures += 1
        if record.failures >= _AWAY_AFTER:
            record.closed_until = now + self._pause_s(record)

    def answered(self, provider: Provider) -> bool:
        """Note that a provider answered, whatever it said; return whether it had been away."""
        record = self._records.pop(provider, None)
        return record is not None and record.failures >= _AWAY_AFTER

    @staticmethod
    def _pause_s(record: _Record) -> float:
        return min(_MOST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(10, record.failures - _AWAY_AFTER))
