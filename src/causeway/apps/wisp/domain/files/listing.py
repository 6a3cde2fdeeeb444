"""What a Strava export says of its files: `activities.csv`, a line an activity.

The file's headings are in its owner's language, so columns are known by their place, and the one
with the name of the file by what is in it.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

from causeway.apps.wisp.domain.files.samples import UnreadableFile

LISTING = "activities.csv"
#: A hundred thousand activities have some 40 MB.
MOST_BYTES = 128 * 1024 * 1024
_FOLDER = "activities/"


@dataclass(frozen=True, slots=True)
class Listed:
    """An activity as the export has it; the kind is Strava's word in its owner's language."""

    activity_id: str
    title: str
    kind: str
    description: str | None


def listing(file: IO[bytes]) -> dict[str, Listed]:
    """Return what is said of each file of an export, by its name in the archive.

    Nothing for an archive that is no such export. Raises UnreadableFile for one that is no ZIP.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if LISTING not in archive.namelist():
                return {}
            with archive.open(LISTING) as packed:
                data = packed.read(MOST_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UnreadableFile(f"the file is not a ZIP archive: {error}") from error
    found: dict[str, Listed] = {}
    for row in csv.reader(io.StringIO(data.decode("utf-8-sig", "replace"), newline="")):
        name = next((cell for cell in row if cell.startswith(_FOLDER)), None)
        if name is not None and len(row) > 4:
            found[name] = Listed(row[0], row[2].strip(), row[3].strip(), row[4].strip() or None)
    return found
