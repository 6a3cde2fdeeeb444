"""One track from the bytes of one file, whatever its kind; a clear refusal of what is none.

The kind is told from the content, never from the name. Sizes are bounded before anything is
parsed, also of what comes out of gzip, and XML with a document type is refused: neither GPX nor TCX
has one, and it is what entity bombs are made of.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from causeway.apps.wisp.domain.files.fit import read_fit
from causeway.apps.wisp.domain.files.gpx import read_gpx
from causeway.apps.wisp.domain.files.samples import MOST_SAMPLES, UnreadableFile
from causeway.apps.wisp.domain.files.tcx import read_tcx
from causeway.apps.wisp.domain.track import Track
from causeway.base.errors import TooLarge

__all__ = ["MOST_BYTES", "MOST_SAMPLES", "UnreadableFile", "kind_of", "read_track", "unpacked"]

#: A day at one sample a second is some 20 MB of TCX.
MOST_BYTES = 64 * 1024 * 1024

_DECLARED = re.compile(rb"""^[^<]{0,8}<\?xml[^>]{0,100}encoding=["']([A-Za-z0-9._-]{1,30})["']""")
_BYTE_ORDER = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_DOCTYPE = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_ROOT = re.compile(r"<(?:[\w.-]+:)?(gpx|TrainingCenterDatabase)[\s>]", re.IGNORECASE)


def unpacked(data: bytes, most: int = MOST_BYTES) -> bytes:
    """Return what is in a gzip file, or the bytes themselves when they are none.

    Raises TooLarge for more than `most` bytes, before they are all unpacked.
    """
    if data[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, most + 1)
        except zlib.error as error:
            raise UnreadableFile(f"the gzip file is broken: {error}") from error
        if not unpacker.eof and len(data) <= most:
            raise UnreadableFile("the gzip file is cut off")
    if len(data) > most:
        raise TooLarge(f"the file is larger than {most} bytes")
    return data


def _text_of(data: bytes) -> str:
    """Return XML as text: by its byte order mark, by what it declares, else as UTF-8."""
    encoding = next((name for mark, name in _BYTE_ORDER.items() if data.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARED.match(data[:200])
        encoding = declared[1].decode() if declared else "utf-8"
    try:
        return data.decode(encoding)
    except (LookupError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"the text is not {encoding}: {error}") from error


def kind_of(data: bytes) -> str | None:
    """Return `fit`, `gpx` or `tcx` by the first bytes of a file; None if it is none of them."""
    if data[8:12] == b".FIT":
        return "fit"
    text = data[:4096].decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1")
    root = _ROOT.search(text)
    if root is None:
        return None
    return "gpx" if root[1].lower() == "gpx" else "tcx"


def read_track(data: bytes, *, most_bytes: int = MOST_BYTES) -> Track:
    """Return the track in a GPX, TCX or FIT file, gzipped or not.

    Raises UnreadableFile with the reason when there is none, and TooLarge.
    """
    data = unpacked(data, most_bytes)
    kind = kind_of(data)
    if kind == "fit":
        return read_fit(data)
    if kind is None:
        raise UnreadableFile("the file is not GPX, TCX or FIT")
    text = _text_of(data)
    if _DOCTYPE.search(text):
        raise UnreadableFile("the file declares a document type, which is not accepted")
    readers: dict[str, Callable[[str], Track]] = {"gpx": read_gpx, "tcx": read_tcx}
    return readers[kind](text)
