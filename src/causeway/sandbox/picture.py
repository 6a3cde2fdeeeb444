"""Pictures that cost milliseconds, are real files, and differ for every prompt and seed."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Format = Literal["png", "jpg", "webp"]
#: Draws a PNG from a prompt, a seed and a side in pixels; a demo may bring a painter of its own.
Painter = Callable[[str, int, int], bytes]

_PILLOW_NAMES: dict[Format, str] = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@lru_cache(maxsize=64)
def picture(
    prompt: str, seed: int, *, width: int, height: int, fmt: Format = "png", black: bool = False
) -> bytes:
    """Return a `width` x `height` pixel file, the same for the same arguments.

    `black` gives the wholly black picture some models return instead of a refusal.
    """
    digest = hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    colours = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for x, y, r, red, green, blue in rng.random((7, 6)):
        radius = 2 + r * width / 6
        box = (x * width - radius, y * height - radius, x * width + radius, y * height + radius)
        draw.ellipse(box, fill=(int(red * 255), int(green * 255), int(blue * 255)))
    if black:
        image = Image.new("RGB", (width, height))
    out = BytesIO()
    image.save(out, format=_PILLOW_NAMES[fmt])
    return out.getvalue()


def bomb() -> bytes:
    """Return a small PNG that claims 50,000 x 50,000 pixels, to try a reader's pixel limit."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + chunk(b"IEND", b"")
    )
