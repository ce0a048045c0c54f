"""Strips of sample images, made small enough for one page."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping

from PIL import Image

MOST_BYTES = 3_000_000
"""Of all strips of a data set in base64."""
MOST_PIXELS = 1 << 22
"""Of a strip; larger ones are not shown."""
LARGEST_TILE = 64
"""Pixels of a tile's side, if the strips are too large for the page."""


def fit(strips: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """The strips for the page, by strip: base64 of a PNG, and its number of tiles.

    `strips` has the number of square tiles of every PNG in base64. Strips that are no such PNG are
    missing. If they are together larger than `MOST_BYTES`, tiles are made smaller, then fewer.
    """
    opened = {png: image for png, count in strips.items() if (image := _open(png, count))}
    found = {png: (png, strips[png]) for png in opened}
    if _size(found) > MOST_BYTES:
        found = {png: _redrawn(image, strips[png]) for png, image in opened.items()}
    if (size := _size(found)) > MOST_BYTES:
        share = MOST_BYTES / size
        found = {
            png: _redrawn(image, max(1, int(share * strips[png]))) for png, image in opened.items()
        }
    return found


def _size(found: Mapping[str, tuple[str, int]]) -> int:
    return sum(len(png) for png, _ in found.values())


def _open(png: str, count: int) -> Image.Image | None:
    """The strip as an image; None if it is no PNG of `count` square tiles."""
    try:
        content = base64.b64decode(png, validate=True)
        # No other format: Pillow passes PostScript to an interpreter.
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if not 0 < image.width * image.height <= MOST_PIXELS:
                return None
            if count < 1 or image.width != image.height * count:
                return None
            image.load()
            return image
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _redrawn(image: Image.Image, kept: int) -> tuple[str, int]:
    """The first `kept` tiles of a strip, with sides of at most `LARGEST_TILE` pixels."""
    side = min(image.height, LARGEST_TILE)
    tiles = image.convert("RGB").crop((0, 0, image.height * kept, image.height))
    file = io.BytesIO()
    tiles.resize((side * kept, side), Image.Resampling.BOX).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii"), kept
