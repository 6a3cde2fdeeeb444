"""What the readers of all kinds of files share: collecting samples into a track."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from causeway.apps.wisp.domain.track import COLUMNS, Track
from causeway.base.errors import InvalidInput

#: Three days at one sample a second.
MOST_SAMPLES = 260_000
#: Before this no device recorded a run with satellites; clocks that were not set say 1901 or 1970.
EARLIEST = datetime(1995, 1, 1, tzinfo=UTC)


class UnreadableFile(InvalidInput):
    """The file holds no run that can be read."""


class Samples:
    """Collects samples, each a time and some columns."""

    def __init__(self) -> None:
        self._times: list[datetime] = []
        self._rows: list[tuple[float, ...]] = []
        self.without_time = 0
        self.without_sense = 0

    def __len__(self) -> int:
        return len(self._times)

    @property
    def last(self) -> datetime | None:
        """The time of the sample that was added last."""
        return self._times[-1] if self._times else None

    def add(self, at: datetime | None, **columns: float | None) -> None:
        """Take in one sample; without a time, or with places that are none, it is counted only.

        Raises UnreadableFile when there are too many.
        """
        if at is None:
            self.without_time += 1
            return
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        lat, lng = columns.get("lat"), columns.get("lng")
        if lat is None or lng is None:
            columns["lat"] = columns["lng"] = None
        elif not (-90 <= lat <= 90 and -180 <= lng <= 180):
            self.without_sense += 1
            return
        elif lat == 0 and lng == 0:
            # What a receiver says before it knows.
            columns["lat"] = columns["lng"] = None
        if len(self._times) >= MOST_SAMPLES:
            raise UnreadableFile(f"the file has more than {MOST_SAMPLES} samples")
        self._times.append(at)
        row: list[float] = []
        for name in COLUMNS:
            value = columns.get(name)
            row.append(math.nan if value is None else float(value))
        self._rows.append(tuple(row))

    def track(self, pauses: Sequence[tuple[datetime, datetime]] = (), **rest: Any) -> Track:
        """Return the track of the samples, in order of time.

        Raises UnreadableFile when there are fewer than two with a time.
        """
        if len(self._times) < 2:
            if self.without_time:
                raise UnreadableFile("the samples of the file have no times")
            raise UnreadableFile("the file has fewer than two samples")
        order = sorted(range(len(self._times)), key=self._times.__getitem__)
        started = next((self._times[i] for i in order if self._times[i] >= EARLIEST), None)
        if started is None:
            raise UnreadableFile(f"no sample of the file is later than {EARLIEST:%Y}")
        kept = [i for i in order if self._times[i] >= started]
        self.without_sense += len(order) - len(kept)
        if len(kept) < 2:
            raise UnreadableFile("the file has fewer than two samples with a possible time")
        t = np.array([(self._times[i] - started).total_seconds() for i in kept])
        table = np.array([self._rows[i] for i in kept], np.float64)
        table[~np.isfinite(table)] = np.nan
        warnings: list[str] = []
        if self.without_time:
            warnings.append(f"{self.without_time} samples without a time were left out")
        if self.without_sense:
            warnings.append(f"{self.without_sense} samples with an impossible place or time")
        since = started
        stood = [
            ((a - since).total_seconds(), (b - since).total_seconds()) for a, b in pauses if b > a
        ]
        return Track.of(
            t,
            {name: table[:, i] for i, name in enumerate(COLUMNS)},
            started_at=started.astimezone(UTC),
            pauses=tuple(stood),
            warnings=tuple(warnings),
            **rest,
        )
