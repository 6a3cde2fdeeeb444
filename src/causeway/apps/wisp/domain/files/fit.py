"""FIT, the binary files of Garmin, Polar, Suunto, Coros and others, by fitdecode."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, cast

import fitdecode
from fitdecode.exceptions import FitError

from causeway.apps.wisp.domain.files.samples import Samples, UnreadableFile
from causeway.apps.wisp.domain.track import Sport, Summary, Track

#: Positions are in these parts of a circle.
_SEMICIRCLE = 180.0 / 2**31
_FIELDS = {
    "position_lat": "lat",
    "position_long": "lng",
    "altitude": "elevation_m",
    "enhanced_altitude": "elevation_m",
    "gps_accuracy": "accuracy_m",
    "distance": "distance_m",
    "heart_rate": "heart_rate",
    "cadence": "cadence",
}
_SPORTS: dict[str, Sport] = {"running": "run", "walking": "walk", "hiking": "walk"}
_SUB_SPORTS: dict[str, Sport] = {
    "treadmill": "treadmill",
    "indoor_running": "treadmill",
    "trail": "trail",
}


#: What the reader raises on bytes that are none of its kind, which is more than it promises.
_BROKEN = (
    FitError,
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Session:
    """What the messages of a file come to, one after the other."""

    def __init__(self) -> None:
        self.samples = Samples()
        self.pauses: list[tuple[datetime, datetime]] = []
        self.stopped: datetime | None = None
        self.sport: Sport = "other"
        self.totals: dict[str, float] = {}

    def take(self, message: Any) -> None:
        """Take in one data message."""
        if message.name == "record":
            self._record(message)
        elif message.name == "event":
            self._event(_values(message))
        elif message.name == "session":
            self._session(_values(message))

    def _record(self, message: Any) -> None:
        columns: dict[str, float | None] = {}
        at = None
        for one in message.fields:
            column = _FIELDS.get(one.name)
            value = one.value
            if column is None:
                if one.name == "timestamp" and isinstance(value, datetime):
                    at = value
            elif isinstance(value, (int, float)):
                if column in ("lat", "lng"):
                    columns[column] = value * _SEMICIRCLE
                elif column == "cadence":
                    # FIT has the turns of one leg.
                    columns[column] = value * 2.0
                else:
                    columns[column] = float(value)
        self.samples.add(at, **columns)

    def _event(self, values: dict[str, Any]) -> None:
        at = values.get("timestamp")
        if values.get("event") != "timer" or not isinstance(at, datetime):
            return
        kind = str(values.get("event_type"))
        if kind.startswith("stop") and self.stopped is None:
            self.stopped = at
        elif kind == "start" and self.stopped is not None:
            self.pauses.append((self.stopped, at))
            self.stopped = None

    def _session(self, values: dict[str, Any]) -> None:
        sport = _SPORTS.get(str(values.get("sport")), "other")
        self.sport = _SUB_SPORTS.get(str(values.get("sub_sport")), sport)
        for name in (
            "total_distance",
            "total_timer_time",
            "total_elapsed_time",
            "total_ascent",
            "total_calories",
        ):
            value = values.get(name)
            if isinstance(value, (int, float)):
                self.totals[name] = self.totals.get(name, 0.0) + value


def _values(message: Any) -> dict[str, Any]:
    return {one.name: one.value for one in message.fields}


def read_fit(data: bytes) -> Track:
    """Return the track of a FIT file; what follows a broken place is left out, with a warning.

    Raises UnreadableFile when nothing can be read.
    """
    session = _Session()
    broken: str | None = None
    try:
        # Checksums are not looked at: what is lost behind a wrong one is what a person wants back.
        with fitdecode.FitReader(
            data,
            check_crc=fitdecode.CrcCheck.DISABLED,
            error_handling=fitdecode.ErrorHandling.IGNORE,
        ) as reader:
            for frame in cast("Any", reader):
                if frame.frame_type == fitdecode.FIT_FRAME_DATA:
                    session.take(frame)
    except UnreadableFile:
        raise
    except _BROKEN as error:
        broken = str(error) or type(error).__name__
    if broken is not None and len(session.samples) < 2:
        raise UnreadableFile(f"the file is not valid FIT: {broken}")
    totals = session.totals
    track = session.samples.track(
        session.pauses,
        source="fit",
        sport=session.sport,
        summary=Summary(
            distance_m=totals.get("total_distance"),
            elapsed_s=totals.get("total_elapsed_time"),
            timer_s=totals.get("total_timer_time"),
            ascent_m=totals.get("total_ascent"),
            calories=totals.get("total_calories"),
        ),
    )
    if broken is None:
        return track
    return track.warned(f"the file is broken after {len(track)} samples: {broken}")
