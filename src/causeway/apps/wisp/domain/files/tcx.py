"""TCX, Garmin's training centre database: laps with their own figures, tracks within laps."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from causeway.apps.wisp.domain.files.samples import Samples, UnreadableFile
from causeway.apps.wisp.domain.track import Sport, Summary, Track

#: A sport is one of three words here.
_SPORTS: dict[str, Sport] = {"running": "run", "other": "other", "biking": "other"}
_COLUMNS = {
    "LatitudeDegrees": "lat",
    "LongitudeDegrees": "lng",
    "AltitudeMeters": "elevation_m",
    "DistanceMeters": "distance_m",
    "Value": "heart_rate",
    "Cadence": "cadence",
    "RunCadence": "cadence",
}
#: A pause between laps shorter than this is how devices round.
_ROUNDING_S = 2.0


def read_tcx(text: str) -> Track:
    """Return the track of the first activity of a TCX document.

    Tracks within a lap are apart by pauses, and so are laps whose times leave a gap. Raises
    UnreadableFile.
    """
    try:
        # As bytes, for a text may not declare an encoding.
        root: Any = fromstring(text.encode(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise UnreadableFile(f"the file is not valid TCX: {error}") from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    activity = root.find("Activities/Activity")
    if activity is None:
        raise UnreadableFile("the file has no activity")
    samples = Samples()
    pauses: list[tuple[datetime, datetime]] = []
    totals = {"TotalTimeSeconds": 0.0, "DistanceMeters": 0.0, "Calories": 0.0}
    laps = activity.findall("Lap")
    for lap in laps:
        for name in totals:
            totals[name] += _number(lap.findtext(name)) or 0.0
        for track in lap.findall("Track"):
            before = samples.last
            is_first = True
            for point in track.findall("Trackpoint"):
                samples.add(_time(point.findtext("Time")), **_columns(point))
                after = samples.last
                if is_first and before is not None and after is not None:
                    if (after - before).total_seconds() > _ROUNDING_S:
                        pauses.append((before, after))
                is_first = False
    return samples.track(
        pauses,
        source="tcx",
        sport=_SPORTS.get(str(activity.get("Sport")).lower(), "other"),
        name=activity.findtext("Notes"),
        summary=Summary(
            distance_m=totals["DistanceMeters"] or None,
            timer_s=totals["TotalTimeSeconds"] or None,
            calories=totals["Calories"] or None,
        ),
    )


def _columns(point: Any) -> dict[str, float | None]:
    """Return the columns of one point."""
    found: dict[str, float | None] = {}
    for element in point.iter():
        column = _COLUMNS.get(cast(str, element.tag))
        if column is not None:
            value = _number(element.text)
            # TCX has the turns of one leg.
            found[column] = value * 2 if column == "cadence" and value is not None else value
    return found


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip()) if text else None
    except ValueError:
        return None
