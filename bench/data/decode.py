"""Image files and arrays to uint8 (C, H, W) of one size, by Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bench.data.trees import damage_named
from bench.data.untrusted import DAMAGE, PICTURES
from bench.system.errors import UserError, said

Crop = Literal["center", "none"]
Resize = Literal["box", "bicubic"]

MAX_BYTES = 1 << 28
MAX_PIXELS = (1 << 30) // 12
"""Of one image, as in Pillow, which warns above and fails at twice as many."""
GREY = ("1", "L")
KNOWN_MODES = ("RGB", *GREY, "P", "PA", "LA", "La", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
_FILTERS = {"box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}


class NeedsColour(Exception):
    """A colour image came in a set that was taken for grey."""


@dataclass(frozen=True)
class Geometry:
    """How images come to one size: None for `size` means that they have it already.

    "center" cuts the largest square out of the middle, "none" squeezes the whole image; both
    resize to (size, size) afterwards, antialiased.
    """

    size: int | None = None
    crop: Crop = "center"
    resize: Resize = "box"


@dataclass(frozen=True)
class Decoded:
    """Pixels uint8 (C, H, W); `mode` and `format` of the file that they come from."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    format: str


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Make an error of Pillow's warning about images that declare too many pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_encoded(path: Path, file: IO[bytes], name: str) -> bytes:
    """The bytes of the image file `name` within the source at `path`."""
    with damage_named(path, name):
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"The image {name!r} has more than {MAX_BYTES >> 20} MiB; it is not read.")
    return content


def decode(
    content: bytes | npt.NDArray[np.uint8], name: str, geometry: Geometry, channels: int
) -> Decoded:
    """One image with 1 or 3 `channels`, from a file's bytes or from uint8 (C, H, W).

    Images of other modes become RGB, their transparency dropped. NeedsColour if a colour image is
    to have one channel; a UserError names an image that cannot be used.
    """
    if isinstance(content, np.ndarray):
        if geometry.size is None or content.shape[1:] == (geometry.size, geometry.size):
            return Decoded(content, "", "")
        hwc = np.ascontiguousarray(content.transpose(1, 2, 0))
        picture = Image.fromarray(hwc[:, :, 0] if len(content) == 1 else hwc)
        return Decoded(_pixels(_fit(picture, geometry)), "", "")
    try:
        with Image.open(io.BytesIO(content), formats=PICTURES) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.mode not in KNOWN_MODES:
                raise UserError(
                    f"The image {name!r} has pixels of mode {image.mode!r}, which 8 bits a channel "
                    "cannot hold; convert it first."
                )
            mode, kind = image.mode, image.format or ""
            if channels == 1 and mode not in GREY:
                raise NeedsColour
            wanted = "L" if channels == 1 else "RGB"
            pixels = _pixels(_fit(image if mode == wanted else image.convert(wanted), geometry))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"The image {name!r} declares more pixels than the limit of "
            f"{MAX_PIXELS:,}; it is not read."
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"{name!r} is not an image that Pillow can read.") from None
    except DAMAGE as error:
        raise UserError(f"The image {name!r} is damaged or cut off ({said(error)}).") from None
    return Decoded(pixels, mode, kind)


def _fit(image: Image.Image, geometry: Geometry) -> Image.Image:
    if geometry.size is None or image.size == (geometry.size, geometry.size):
        return image
    if geometry.crop == "center":
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Cut first: a filter that is given a box reaches beyond its edges.
        image = image.crop((left, top, left + side, top + side))
    return image.resize((geometry.size, geometry.size), _FILTERS[geometry.resize])


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
