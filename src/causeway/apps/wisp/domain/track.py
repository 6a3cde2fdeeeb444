"""One run as it was recorded: columns over time, whatever file or device it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Sport = Literal["run", "trail", "treadmill", "walk", "other"]
Source = Literal["gpx", "tcx", "fit", "app"]

#: Columns a track may have beside its times; NaN where a sample has none.
COLUMNS = ("lat", "lng", "elevation_m", "accuracy_m", "distance_m", "heart_rate", "cadence")


@dataclass(frozen=True)
class Summary:
    """What the device itself says of the run; None where it does not."""

    distance_m: float | None = None
    #: Pauses counted, and not counted.
    elapsed_s: float | None = None
    timer_s: float | None = None
    ascent_m: float | None = None
    calories: float | None = None


@dataclass(frozen=True)
class Track:
    """Samples of a run in order of time; `t` in seconds since `started_at`."""

    t: Floats
    lat: Floats
    lng: Floats
    elevation_m: Floats
    #: Radius of error, metres.
    accuracy_m: Floats
    #: The device's own cumulative distance, metres.
    distance_m: Floats
    #: Beats a minute, and steps a minute of both feet.
    heart_rate: Floats
    cadence: Floats
    started_at: datetime | None = None
    #: When the device's timer stood: from and to, in seconds since the start.
    pauses: tuple[tuple[float, float], ...] = ()
    sport: Sport = "run"
    source: Source = "app"
    name: str | None = None
    summary: Summary = field(default_factory=Summary)
    #: Whether altitudes come from a barometer, so that they are smooth.
    is_barometric: bool = False
    #: What was odd about the file, for the person who brought it.
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self.t):
                raise ValueError(f"{name} has {len(getattr(self, name))} of {len(self.t)} samples")

    def __len__(self) -> int:
        return len(self.t)

    @property
    def has_places(self) -> bool:
        """Whether at least two samples say where they were taken."""
        return int(np.count_nonzero(np.isfinite(self.lat))) >= 2

    @property
    def duration_s(self) -> float:
        """Seconds from the first sample to the last, pauses included."""
        return float(self.t[-1] - self.t[0]) if len(self.t) else 0.0

    def at(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Track:
        """Return the track of some of its samples."""
        chosen: dict[str, Any] = {name: getattr(self, name)[index] for name in COLUMNS}
        return replace(self, t=self.t[index], **chosen)

    def warned(self, warning: str) -> Track:
        """Return the track with one more thing that was odd."""
        return replace(self, warnings=(*self.warnings, warning))

    @classmethod
    def of(cls, t: Floats, columns: Mapping[str, Floats], **rest: Any) -> Track:
        """Return a track; columns that are not given have no values.

        `rest` are the other fields of a track. Raises TypeError for a name that is none.
        """
        unknown = set(columns) - set(COLUMNS) | set(rest) - {one.name for one in fields(cls)}
        if unknown:
            raise TypeError(f"a track has no {', '.join(sorted(unknown))}")
        empty = np.full(len(t), np.nan)
        given: dict[str, Any] = {name: columns.get(name, empty) for name in COLUMNS}
        return cls(t, **given, **rest)
