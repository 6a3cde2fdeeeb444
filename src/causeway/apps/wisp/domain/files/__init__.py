"""Recorded runs as files: GPX, TCX and FIT in, GPX, TCX and GeoJSON out, and archives of many."""

from __future__ import annotations

from causeway.apps.wisp.domain.files.archive import Entry, entries
from causeway.apps.wisp.domain.files.listing import Listed, listing
from causeway.apps.wisp.domain.files.reading import (
    MOST_BYTES,
    MOST_SAMPLES,
    UnreadableFile,
    read_track,
)
from causeway.apps.wisp.domain.files.writing import to_geojson, to_gpx, to_tcx

__all__ = [
    "MOST_BYTES",
    "MOST_SAMPLES",
    "Entry",
    "Listed",
    "UnreadableFile",
    "entries",
    "listing",
    "read_track",
    "to_geojson",
    "to_gpx",
    "to_tcx",
]
