"""A track as a file that other programs read: GPX 1.1 with heart rates, TCX, GeoJSON."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from xml.etree import ElementTree

import gpxpy.gpx

from causeway.apps.wisp.domain.track import Track

_TPX = "http://www.garmin.com/xmlschemas/TrackPointExtension/v1"
_TCX = "http://www.garmin.com/xmlschemas/TrainingCenterDatabase/v2"


def _segments(track: Track) -> list[range]:
    """Return the samples between pauses."""
    cuts = [0]
    for start, _ in track.pauses:
        cut = int((track.t <= start).sum())
        if cuts[-1] < cut < len(track):
            cuts.append(cut)
    return [range(a, b) for a, b in zip(cuts, [*cuts[1:], len(track)], strict=True)]


def _times(track: Track) -> list[datetime]:
    start = track.started_at or datetime(1970, 1, 1, tzinfo=UTC)
    return [start + timedelta(seconds=float(t)) for t in track.t]


def to_gpx(track: Track, name: str | None = None) -> str:
    """Return GPX 1.1; a pause begins a new segment. Samples without a place are left out."""
    document = gpxpy.gpx.GPX()
    document.creator = "Causeway Wisp"
    document.nsmap["gpxtpx"] = _TPX
    line = gpxpy.gpx.GPXTrack(name=name or track.name)
    cast("Any", line).type = track.sport
    document.tracks.append(line)
    times = _times(track)
    for samples in _segments(track):
        segment = gpxpy.gpx.GPXTrackSegment()
        for i in samples:
            if math.isnan(track.lat[i]):
                continue
            altitude = float(track.elevation_m[i])
            point = gpxpy.gpx.GPXTrackPoint(
                float(track.lat[i]),
                float(track.lng[i]),
                elevation=None if math.isnan(altitude) else round(altitude, 2),
                time=times[i],
            )
            extension = ElementTree.Element(f"{{{_TPX}}}TrackPointExtension")
            for tag, value in (("hr", track.heart_rate[i]), ("cad", track.cadence[i] / 2)):
                if not math.isnan(value):
                    ElementTree.SubElement(extension, f"{{{_TPX}}}{tag}").text = f"{value:.0f}"
            if len(extension):
                point.extensions.append(extension)
            segment.points.append(point)
        if segment.points:
            line.segments.append(segment)
    return document.to_xml(version="1.1")


def to_tcx(track: Track, distance_m: float, timer_s: float) -> str:
    """Return TCX with one lap of the whole run, and a track for each stretch between pauses."""
    root = ElementTree.Element("TrainingCenterDatabase", xmlns=_TCX)
    activity = ElementTree.SubElement(
        ElementTree.SubElement(root, "Activities"), "Activity", Sport="Running"
    )
    times = [f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z" for at in _times(track)]
    ElementTree.SubElement(activity, "Id").text = times[0]
    lap = ElementTree.SubElement(activity, "Lap", StartTime=times[0])
    for tag, text in (
        ("TotalTimeSeconds", f"{timer_s:.3f}"),
        ("DistanceMeters", f"{distance_m:.2f}"),
        ("Calories", f"{track.summary.calories or 0:.0f}"),
        ("Intensity", "Active"),
        ("TriggerMethod", "Manual"),
    ):
        ElementTree.SubElement(lap, tag).text = text
    for samples in _segments(track):
        line = ElementTree.SubElement(lap, "Track")
        for i in samples:
            point = ElementTree.SubElement(line, "Trackpoint")
            ElementTree.SubElement(point, "Time").text = times[i]
            if not math.isnan(track.lat[i]):
                place = ElementTree.SubElement(point, "Position")
                ElementTree.SubElement(place, "LatitudeDegrees").text = f"{track.lat[i]:.7f}"
                ElementTree.SubElement(place, "LongitudeDegrees").text = f"{track.lng[i]:.7f}"
            for tag, value in (
                ("AltitudeMeters", track.elevation_m[i]),
                ("DistanceMeters", track.distance_m[i]),
            ):
                if not math.isnan(value):
                    ElementTree.SubElement(point, tag).text = f"{value:.2f}"
            if not math.isnan(track.heart_rate[i]):
                beats = ElementTree.SubElement(point, "HeartRateBpm")
                ElementTree.SubElement(beats, "Value").text = f"{track.heart_rate[i]:.0f}"
            if not math.isnan(track.cadence[i]):
                ElementTree.SubElement(point, "Cadence").text = f"{track.cadence[i] / 2:.0f}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def to_geojson(track: Track, name: str | None = None) -> dict[str, Any]:
    """Return a GeoJSON feature (RFC 7946): a line for each stretch between pauses.

    `coordTimes` has the times, as other programs write them.
    """
    times = [at.isoformat().replace("+00:00", "Z") for at in _times(track)]
    lines: list[list[list[float]]] = []
    stamps: list[list[str]] = []
    for samples in _segments(track):
        places = [i for i in samples if not math.isnan(track.lat[i])]
        if len(places) < 2:
            continue
        line: list[list[float]] = []
        for i in places:
            place = [round(float(track.lng[i]), 7), round(float(track.lat[i]), 7)]
            if not math.isnan(track.elevation_m[i]):
                place.append(round(float(track.elevation_m[i]), 2))
            line.append(place)
        lines.append(line)
        stamps.append([times[i] for i in places])
    return {
        "type": "Feature",
        "properties": {"name": name or track.name, "sport": track.sport, "coordTimes": stamps},
        "geometry": {"type": "MultiLineString", "coordinates": lines},
    }
