"""What a picture is, told by its bytes and nothing else."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageStat, UnidentifiedImageError

from causeway.base.errors import PermanentError

#: Formats that are kept: Pillow's name -> (media type, file extension).
FORMATS = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
}

#: More pixels than this are refused before they are decoded.
MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a picture's bytes."""

    mime: str
    width: int
    height: int
    sha256: str
    size: int
    extension: str
    #: Wholly black: some models answer so instead of refusing a prompt.
    suspected_black: bool


def examine(content: bytes) -> ImageFacts:
    """Decode a picture fully and return what it is.

    Raises `PermanentError` in plain words when it is no PNG, JPEG, WebP or GIF, is cut short, or
    has more than 40 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are judged below
            with Image.open(BytesIO(content), formats=list(FORMATS)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PermanentError(
                        f"the picture has {width} x {height} pixels, more than {MAX_PIXELS:,}"
                    )
                if image.format == "PNG":
                    # Decoding stops at the last pixel; this reads every chunk to the end.
                    with Image.open(BytesIO(content), formats=["PNG"]) as whole:
                        whole.verify()
                image.load()
                mime, extension = FORMATS[image.format or ""]
                black = not any(high for _, high in ImageStat.Stat(image.convert("RGB")).extrema)
    except PermanentError:
        raise
    except UnidentifiedImageError:
        raise PermanentError(f"this is not a picture, it begins {content[:16]!r}") from None
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError) as error:
        raise PermanentError(f"the picture is damaged or cut short: {error}") from None
    return ImageFacts(
        mime=mime,
        width=width,
        height=height,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        extension=extension,
        suspected_black=black,
    )
