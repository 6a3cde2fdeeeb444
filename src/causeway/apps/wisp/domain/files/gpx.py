"""GPX 1.0 and 1.1, by gpxpy, with the extensions of Garmin, Strava and others by their names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from xml.etree.ElementTree import ParseError

import gpxpy
from gpxpy.gpx import GPXException, GPXTrackPoint, GPXXMLSyntaxException

from causeway.apps.wisp.domain.files.samples import Samples, UnreadableFile
from causeway.apps.wisp.domain.track import Sport, Track

_SPORTS: dict[str, Sport] = {
    "trail": "trail",
    "trail_running": "trail",
    "treadmill_running": "treadmill",
    "walk": "walk",
    "walking": "walk",
    "hiking": "walk",
    "9": "run",
    "running": "run",
    "run": "run",
}
_NAMES = {"hr": "heart_rate", "cad": "cadence", "distance": "distance_m", "accuracy": "accuracy_m"}


def read_gpx(text: str) -> Track:
    """Return the track of a GPX document; its segments are apart by pauses.

    Raises UnreadableFile.
    """
    try:
        document = gpxpy.parse(text)
    except (GPXException, GPXXMLSyntaxException, ParseError, ValueError, AttributeError) as error:
        raise UnreadableFile(f"the file is not valid GPX: {error}") from error
    samples = Samples()
    pauses: list[tuple[datetime, datetime]] = []
    kind = name = None
    for track in document.tracks:
        kind, name = kind or track.type, name or track.name
        for segment in track.segments:
            before = samples.last
            for i, point in enumerate(segment.points):
                samples.add(
                    point.time,
                    lat=point.latitude,
                    lng=point.longitude,
                    elevation_m=point.elevation,
                    **dict(_extensions(point)),
                )
                after = samples.last
                if i == 0 and before is not None and after is not None:
                    pauses.append((before, after))
    sport: Sport = "run" if kind is None else _SPORTS.get(kind.strip().lower(), "other")
    creator = (document.creator or "").lower()
    return samples.track(
        pauses,
        source="gpx",
        sport=sport,
        name=name,
        # Strava writes this when the altitudes are the device's barometer's.
        is_barometric="barometer" in creator,
    )


def _extensions(point: GPXTrackPoint) -> Iterator[tuple[str, float]]:
    """Yield the columns that are in the extensions of a point, whatever their namespace."""
    for top in point.extensions:
        for element in top.iter():
            tag = element.tag
            if not isinstance(tag, str) or not element.text:
                continue
            column = _NAMES.get(tag.rpartition("}")[2].lower())
            if column is None:
                continue
            try:
                value = float(element.text)
            except ValueError:
                continue
            # GPX has the turns of one leg; a track has the steps of both.
            yield column, value * 2 if column == "cadence" and value < 130 else value
