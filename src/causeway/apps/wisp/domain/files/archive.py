"""The runs in a ZIP file, one after the other: a Strava or Garmin export, or any files together.

Only one member is in memory at a time. A ZIP inside a ZIP is read too (Garmin's export has them),
one level deep. Sizes are bounded by what comes out, never by what the ZIP promises.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from causeway.apps.wisp.domain.files.reading import MOST_BYTES, kind_of, unpacked
from causeway.apps.wisp.domain.files.samples import UnreadableFile
from causeway.base.errors import TooLarge

#: So many members at most, and so many bytes of all of them.
MOST_MEMBERS = 200_000
MOST_TOTAL_BYTES = 100 * 1024**3
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError)
_SUFFIXES = (".gpx", ".tcx", ".fit", ".gpx.gz", ".tcx.gz", ".fit.gz")


@dataclass(frozen=True)
class Entry:
    """One member that may be a run: its bytes, unpacked, or why there are none."""

    name: str
    data: bytes = b""
    reason: str | None = None


def entries(file: IO[bytes], *, after: str | None = None) -> Iterator[Entry]:
    """Yield the members of a ZIP that may be runs, in their order.

    `after` is the name of the last member that was dealt with: it and those before it are passed
    over without being unpacked. Raises UnreadableFile when the file is no ZIP, and TooLarge.
    """
    total = 0
    passing = after is not None
    for name, member, archive in _members(file, ""):
        if passing:
            passing = name != after
            continue
        try:
            with archive.open(member) as packed:
                data = packed.read(MOST_BYTES + 1)
            total += len(data)
            data = unpacked(data)
        except (UnreadableFile, TooLarge) as error:
            yield Entry(name, reason=error.message)
        except (*_BROKEN, NotImplementedError, RuntimeError) as error:
            yield Entry(name, reason=f"the archive is broken here: {error}")
        else:
            if name.lower().endswith(_SUFFIXES) or kind_of(data):
                yield Entry(name, data)
        if total > MOST_TOTAL_BYTES:
            raise TooLarge(f"the archive has more than {MOST_TOTAL_BYTES} bytes")


def _members(
    file: IO[bytes], prefix: str
) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """Yield the members of a ZIP and of the ZIPs in it, with their full names."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UnreadableFile(f"the file is not a ZIP archive: {error}") from error
    with archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise TooLarge(f"the archive has more than {MOST_MEMBERS} files")
        for member in members:
            name = prefix + member.filename
            if member.is_dir():
                continue
            if not member.filename.lower().endswith(".zip"):
                yield name, member, archive
            elif not prefix:
                yield from _nested(archive, member, name)


def _nested(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """Yield the members of a ZIP in a ZIP, from a copy on disk, for a ZIP is read from its end."""
    with tempfile.TemporaryFile() as copy:
        left = MOST_TOTAL_BYTES
        with archive.open(member) as packed:
            while left > 0 and (chunk := packed.read(1 << 20)):
                copy.write(chunk)
                left -= len(chunk)
        copy.seek(0)
        try:
            yield from _members(copy, f"{name}/")
        except UnreadableFile:
            return
