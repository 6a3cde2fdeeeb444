"""What Strava says, as far as it is of use here: athletes, activities, streams, uploads.

Metres, seconds, m/s, degrees; heart rate in beats a minute. What is not known here is ignored, so
that a new member of an answer breaks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: Sport types that are runs; `type` says less and is deprecated.
RUNS = frozenset({"Run", "TrailRun", "VirtualRun"})

#: Streams an activity may have.
STREAMS = (
    *("time", "latlng", "distance", "altitude", "heartrate", "cadence"),
    *("velocity_smooth", "grade_smooth", "temp", "moving"),
)

_ZONE = re.compile(r"\(GMT[+-]\d\d:\d\d\) (\S+)")
_DUPLICATE = re.compile(r"\bduplicate of\b.*?(?:\bactivity |/activities/)(\d{1,19})", re.DOTALL)


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Athlete(_Wire):
    """Whose account it is."""

    id: int = Field(gt=0)
    username: str | None = None
    firstname: str | None = None
    lastname: str | None = None

    @property
    def name(self) -> str | None:
        """What to call them; None when they said nothing."""
        full = " ".join(part for part in (self.firstname, self.lastname) if part)
        return full or self.username


class Track(_Wire):
    """An activity's line on the map, encoded (precision 5); without one it was indoors."""

    summary_polyline: str | None = None
    polyline: str | None = None


class Activity(_Wire):
    """One activity; lists leave the description and the full line out."""

    id: int = Field(gt=0)
    name: str
    sport_type: str
    #: UTC. Who hides their start times has 00:00:01 of their day here: see `hides_start`.
    start_date: AwareDatetime
    #: As Strava writes it: local wall time with a Z that means nothing.
    start_date_local: str | None = None
    timezone: str | None = None
    distance: float = Field(ge=0)
    moving_time: int = Field(ge=0)
    elapsed_time: int = Field(ge=0)
    total_elevation_gain: float | None = None
    average_speed: float | None = None
    max_speed: float | None = None
    average_heartrate: float | None = None
    max_heartrate: float | None = None
    #: As it comes: of one leg in a run. See `steps_per_minute`.
    average_cadence: float | None = None
    calories: float | None = None
    description: str | None = None
    start_latlng: tuple[float, float] | tuple[()] | None = None
    end_latlng: tuple[float, float] | tuple[()] | None = None
    map: Track | None = None
    private: bool = False
    visibility: str | None = None
    trainer: bool = False
    commute: bool = False
    manual: bool = False
    external_id: str | None = None
    upload_id: int | None = None
    device_name: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it is a run of any kind."""
        return self.sport_type in RUNS

    @property
    def time_zone(self) -> str | None:
        """The IANA name in `(GMT+01:00) Europe/Rome`."""
        found = _ZONE.fullmatch(self.timezone or "")
        return found.group(1) if found else None

    @property
    def steps_per_minute(self) -> float | None:
        """Cadence of both legs; Strava counts one in runs."""
        if self.average_cadence is None or not self.is_run:
            return self.average_cadence
        return 2 * self.average_cadence

    @property
    def hides_start(self) -> bool:
        """Whether the time of day it began at is hidden."""
        return (self.start_date_local or "").removesuffix("Z").endswith("T00:00:01")


class Stream(_Wire):
    """One series of an activity's measurements."""

    data: list[Any]
    series_type: str
    original_size: int = Field(ge=0)
    resolution: str


@dataclass(frozen=True)
class Streams:
    """The series of an activity, all of one length."""

    by_key: Mapping[str, Stream]

    @property
    def points(self) -> int:
        """How many measurements there are."""
        return next((len(stream.data) for stream in self.by_key.values()), 0)

    def values(self, key: str) -> list[Any] | None:
        """Return a series, None when the activity has none of that name."""
        stream = self.by_key.get(key)
        return None if stream is None else stream.data

    def steps_per_minute(self) -> list[float | None] | None:
        """Return the cadence of both legs of a run, None where nothing was measured."""
        cadence = self.values("cadence")
        if cadence is None:
            return None
        return [None if value is None else 2 * float(value) for value in cadence]


class Upload(_Wire):
    """A file on its way to become an activity."""

    id: int = Field(gt=0)
    external_id: str | None = None
    error: str | None = None
    status: str = ""
    activity_id: int | None = None

    @property
    def duplicate_of(self) -> int | None:
        """The activity that was there already: what was wanted has happened.

        Strava says it in a sentence, with the number or with a link to it.
        """
        found = _DUPLICATE.search(self.error or "")
        return int(found.group(1)) if found else None

    @property
    def result(self) -> int | None:
        """The activity it became, or was already; None when there is none, or none yet."""
        return self.activity_id or self.duplicate_of

    @property
    def state(self) -> Literal["processing", "ready", "failed", "deleted"]:
        """How far it is. The sentence decides only where nothing else does."""
        if self.result is not None:
            return "ready"
        if "deleted" in self.status:
            return "deleted"
        if self.error or "error" in self.status:
            return "failed"
        return "processing"


class Subscription(_Wire):
    """Where Strava sends this application's events."""

    id: int
    callback_url: str | None = None


class Fault(_Wire):
    """What is wrong, in Strava's own words."""

    message: str = ""

    class Detail(_Wire):
        """One thing that is wrong."""

        resource: str = ""
        field: str = ""
        code: str = ""

    errors: list[Detail] = Field(default_factory=list[Detail])

    def has(self, code: str) -> bool:
        """Say whether one of the errors is of that code."""
        return any(code in error.code for error in self.errors)
