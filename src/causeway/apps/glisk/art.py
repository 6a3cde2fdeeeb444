"""Glitch art, drawn from a prompt and a seed: the same bytes for the same words, for ever.

A picture is built in layers: a palette out of the prompt's hash, a field of smooth noise bent by
another (domain warping), a few large shapes, then the glitches: rows sorted by brightness, blocks
moved aside, colour channels pulled apart, scan lines. The prompt chooses palette and character,
the seed everything else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float32]

#: Version of the drawing; pictures of one version never change.
VERSION = 1


def draw(prompt: str, seed: int, size_px: int = 768) -> bytes:
    """Return a square PNG of `size_px` pixels a side."""
    mood = np.random.Generator(np.random.PCG64(_number(f"{VERSION}:{prompt}")))
    rng = np.random.Generator(np.random.PCG64(_number(f"{VERSION}:{prompt}:{seed}")))
    palette = _palette(mood)
    character = mood.random(4).astype(np.float32)

    field = _warped_field(rng, size_px, 2.0 + 3.0 * float(character[0]))
    picture = _colour(field, palette)
    picture = _shapes(rng, picture, palette, count=3 + int(character[1] * 5))
    picture = _sorted_rows(rng, picture, share=0.10 + 0.22 * float(character[2]))
    picture = _moved_blocks(rng, picture, count=10 + int(character[3] * 26))
    picture = _pulled_channels(rng, picture, size_px)
    picture = _scan_lines(picture)

    out = BytesIO()
    pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _palette(rng: np.random.Generator) -> Array:
    """Return seven colours from dark to light around one or two hues."""
    hue = float(rng.random())
    spread = float(rng.choice(np.array([0.08, 0.17, 0.33, 0.5])))
    colours: list[tuple[float, float, float]] = []
    for step in range(7):
        light = 0.05 + 0.88 * (step / 6) ** 1.15
        angle = hue + spread * math.sin(step * 1.3) + 0.02 * float(rng.standard_normal())
        vivid = 0.16 + 0.10 * float(rng.random())
        colours.append(_oklch(light, vivid * (1 - abs(light - 0.55)), angle % 1))
    return np.array(colours, dtype=np.float32)


def _oklch(light: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Return sRGB of an Oklab colour in polar form (Ottosson 2020); even steps look even."""
    a, b = chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)
    l_ = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m_ = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s_ = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l_ - 3.3077115913 * m_ + 0.2309699292 * s_,
        -1.2684380046 * l_ + 2.6097574011 * m_ - 0.3413193965 * s_,
        -0.0041960863 * l_ - 0.7034186147 * m_ + 1.7076147010 * s_,
    )
    r, g, b = (min(max(c, 0.0), 1.0) ** (1 / 2.2) for c in linear)
    return r, g, b


def _noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Return smooth noise in 0..1: random values on a grid, blended by cubic interpolation."""
    grid = rng.random((cells + 3, cells + 3)).astype(np.float32)
    image = Image.fromarray(grid)
    box = (1.0, 1.0, float(cells + 1), float(cells + 1))
    smooth = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(smooth, dtype=np.float32)


def _warped_field(rng: np.random.Generator, size: int, bend: float) -> Array:
    """Return layered noise whose coordinates are bent by other noise."""
    field = np.zeros((size, size), dtype=np.float32)
    weight = 1.0
    for cells in (3, 7, 15, 40):
        field += weight * _noise(rng, size, cells)
        weight *= 0.45
    field = (field - field.min()) / (field.max() - field.min())
    shift = size * 0.05 * bend
    dx = ((_noise(rng, size, 4) - 0.5) * 2 * shift).astype(np.int32)
    dy = ((_noise(rng, size, 4) - 0.5) * 2 * shift).astype(np.int32)
    rows = np.arange(size, dtype=np.int32)[:, None]
    columns = np.arange(size, dtype=np.int32)[None, :]
    bent: Array = field[(rows + dy) % size, (columns + dx) % size]
    return bent


def _colour(field: Array, palette: Array) -> Array:
    """Return the field in colours, with thin contour lines where bands meet."""
    bands: Array = field * np.float32(len(palette) - 1)
    low = np.clip(bands.astype(np.int32), 0, len(palette) - 2)
    part = (bands - low)[..., None]
    part = part * part * (3 - 2 * part)
    picture = palette[low] * (1 - part) + palette[low + 1] * part
    lines = np.abs(field * 18 % 1 - 0.5) < 0.035
    picture[lines] = picture[lines] * 0.55 + palette[-1] * 0.45
    return picture.astype(np.float32)


def _shapes(rng: np.random.Generator, picture: Array, palette: Array, count: int) -> Array:
    """Return the picture with discs, bars and arcs laid over it, half seen through."""
    size = int(picture.shape[0])
    layer = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for _ in range(count):
        colour = palette[int(rng.integers(1, len(palette)))]
        red, green, blue = (int(c * 255) for c in colour)
        alpha = int(rng.integers(90, 210))
        x, y = (float(v) * size for v in rng.random(2))
        radius = size * (0.06 + 0.26 * float(rng.random()) ** 2)
        box = (x - radius, y - radius, x + radius, y + radius)
        kind = int(rng.integers(0, 4))
        if kind == 0:
            pen.ellipse(box, fill=(red, green, blue, alpha))
        elif kind == 1:
            pen.rectangle(
                (x - radius, y - radius / 5, x + radius, y + radius / 5),
                fill=(red, green, blue, alpha),
            )
        elif kind == 2:
            for ring in range(4):
                edge = radius * (1 - ring * 0.22)
                pen.ellipse(
                    (x - edge, y - edge, x + edge, y + edge),
                    outline=(red, green, blue, alpha),
                    width=max(2, size // 190),
                )
        else:
            start = float(rng.random()) * 360
            pen.pieslice(
                box, start, start + 40 + 200 * float(rng.random()), fill=(red, green, blue, alpha)
            )
    over = np.asarray(layer, dtype=np.float32) / 255
    alpha_map = over[..., 3:]
    mixed: Array = (picture * (1 - alpha_map) + over[..., :3] * alpha_map).astype(np.float32)
    return mixed


def _sorted_rows(rng: np.random.Generator, picture: Array, share: float) -> Array:
    """Return the picture with stretches of some rows sorted by brightness."""
    size = int(picture.shape[0])
    light: Array = picture @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
    row = int(rng.integers(0, size // 8))
    while row < size:
        height = int(rng.integers(2, max(3, size // 24)))
        if float(rng.random()) < share * 2:
            first = int(rng.integers(0, size // 2))
            last = first + int(rng.integers(size // 6, size // 2))
            part = slice(first, min(last, size))
            for y in range(row, min(row + height, size)):
                order = np.argsort(light[y, part], kind="stable")
                picture[y, part] = picture[y, part][order]
        row += height + int(rng.integers(2, max(3, size // 20)))
    return picture


def _moved_blocks(rng: np.random.Generator, picture: Array, count: int) -> Array:
    """Return the picture with blocks torn out and put down beside their places."""
    size = int(picture.shape[0])
    for _ in range(count):
        height = int(rng.integers(3, max(4, size // 14)))
        width = int(rng.integers(size // 10, size // 2))
        y, x = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
        shift = int(rng.normal(0, size / 14))
        block = picture[y : y + height, x : x + width].copy()
        to = min(max(x + shift, 0), size - width)
        if float(rng.random()) < 0.25:
            block = 1.0 - block
        picture[y : y + height, to : to + width] = block
    return picture


def _pulled_channels(rng: np.random.Generator, picture: Array, size: int) -> Array:
    """Return the picture with its red and blue moved apart, more in some bands than in others."""
    pull = int(size * (0.004 + 0.012 * float(rng.random())))
    out = picture.copy()
    out[..., 0] = np.roll(picture[..., 0], pull, axis=1)
    out[..., 2] = np.roll(picture[..., 2], -pull, axis=1)
    for _ in range(int(rng.integers(2, 6))):
        y = int(rng.integers(0, size))
        height = int(rng.integers(size // 60, size // 12))
        far = int(rng.normal(0, size / 22))
        out[y : y + height, :, 0] = np.roll(out[y : y + height, :, 0], far, axis=1)
        out[y : y + height, :, 2] = np.roll(out[y : y + height, :, 2], -far, axis=1)
    return out


def _scan_lines(picture: Array) -> Array:
    """Return the picture as a tube would show it: dimmer every third line, darker at the edges."""
    size = int(picture.shape[0])
    dim = np.ones(size, dtype=np.float32)
    dim[::3] = 0.86
    away = np.linspace(-1, 1, size, dtype=np.float32)
    edge = 1 - 0.28 * np.clip(away[:, None] ** 2 + away[None, :] ** 2 - 0.55, 0, 1)
    return (picture * dim[:, None, None] * edge[..., None]).astype(np.float32)


def contact_sheet(
    images: Sequence[tuple[str, bytes]], columns: int = 5, cell_px: int = 240
) -> bytes:
    """Return one PNG of many pictures, each with its label under it."""
    margin, label_px = 14, 34
    rows = max(1, math.ceil(len(images) / columns))
    width = margin + columns * (cell_px + margin)
    height = margin + rows * (cell_px + label_px + margin)
    sheet = Image.new("RGB", (width, height), (16, 17, 22))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for place, (label, content) in enumerate(images):
        x = margin + place % columns * (cell_px + margin)
        y = margin + place // columns * (cell_px + label_px + margin)
        with Image.open(BytesIO(content)) as image:
            small = image.convert("RGB").resize((cell_px, cell_px), Image.Resampling.LANCZOS)
        sheet.paste(small, (x, y))
        pen.text((x + 2, y + cell_px + 7), label, fill=(214, 216, 224), font=font)
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
