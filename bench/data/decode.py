"""Image files and arrays to uint8 (C, H, W) of one size, by Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.data.untrusted import DAMAGE
from bench.system.errors import UserError, counted, said

Crop = Literal["center", "none"]
Resize = Literal["box", "bicubic"]

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    **({"AVIF": (".avif", ".avifs")} if find_spec("PIL._avif") else {}),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "PCX": (".pcx",),
    "TGA": (".tga",),
}
"""Formats that are read, by Pillow's names, and their suffixes.

Pillow reads more, among them PostScript, which is a program that it runs.
"""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
ORIENTATION = 0x0112
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""The inverse of each orientation."""
PIXELS_MOST = 1 << 26
"""Pixels of one image; Pillow warns from 4/3 of that."""
GREY = ("1", "L")
MODES: Mapping[str, Literal[1, 3]] = {"rgb": 3, "grey": 1}
"""The modes of a data set and their channels."""
_WORDS = {
    "1": "black and white",
    "L": "greyscale",
    "LA": "greyscale with transparency",
    "RGBA": "RGB with transparency",
    "P": "of a palette",
    "PA": "of a palette with transparency",
}
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "CMYK", "YCbCr", "HSV", "LAB")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
Pixels = npt.NDArray[np.uint8]
_FILTERS = {"box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Geometry:
    """How images are brought to one size and mode; `size` None keeps their size.

    `crop` "center" cuts out the largest central square, "none" squeezes the whole image. Both are
    then resized to (size, size), antialiased. `orient`: first turn images as their EXIF data say.
    `channels`: 1 is grey, 3 RGB, None keeps grey if all images are grey.
    """

    size: int | None = None
    crop: Crop = "center"
    resize: Resize = "box"
    orient: bool = True
    channels: Literal[1, 3] | None = None


AS_IT_IS = Geometry()
ODDITIES = {
    "turned": "turned as their EXIF orientation says (--no-orient keeps them as stored)",
    "stored": "not turned as their EXIF orientation says",
    "frames": "with several frames, of which the first is used",
    "enlarged": "enlarged to the size",
}
"""What is counted of images, and how it is reported."""


@dataclass(frozen=True)
class Decoded:
    """Pixels uint8 (C, H, W); `mode` and `format` of their file, and which of `ODDITIES` apply."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    format: str
    oddities: tuple[str, ...] = ()


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def told_oddities(counts: Mapping[str, int]) -> list[str]:
    """The counted oddities of images as text, such as '3 with several frames, ...'."""
    return [f"{counts[name]:,} {text}" for name, text in ODDITIES.items() if counts.get(name)]


def told_modes(counts: Mapping[str, int]) -> list[str]:
    """The counted modes of images, by Pillow's names: '10 images were greyscale and were'."""
    verbs = {mode: "was" if n == 1 else "were" for mode, n in counts.items()}
    return [
        f"{counted(n, 'image')} {verbs[mode]} {_WORDS.get(mode, mode)} and {verbs[mode]}"
        for mode, n in counts.items()
    ]


def read_head(content: bytes, where: Path | str) -> tuple[bool, tuple[int, int]]:
    """Whether an image is grey, and its (width, height) once turned; only the header is read."""
    with _opened(content, where) as image:
        width, height = image.size
        sideways = image.format != "TIFF" and _orientation(image) >= 5  # a TIFF is turned already
        return image.mode in GREY, (height, width) if sideways else (width, height)


def channels_of(images: Iterable[tuple[bytes | npt.NDArray[np.uint8], Path | str]]) -> int:
    """1 if all images are grey, otherwise 3; reads headers up to the first image in colour.

    Arrays (C, H, W) have the channels of the first.
    """
    for content, where in images:
        if isinstance(content, np.ndarray):
            return len(content)
        if not read_head(content, where)[0]:
            return 3
    return 1


def decode(
    content: bytes | npt.NDArray[np.uint8],
    where: Path | str,
    geometry: Geometry = AS_IT_IS,
    channels: int = 3,
    *,
    to_grey: bool = False,
) -> Decoded:
    """One image with 1 or 3 `channels`, from a file's bytes or from uint8 (C, H, W).

    Grey becomes colour, and colour becomes grey with `to_grey`; transparency is dropped. Raises
    UserError, in which the image is called `where`, if it cannot be used.
    """
    if isinstance(content, np.ndarray):
        sized = geometry.size is None or content.shape[1:] == (geometry.size, geometry.size)
        if sized and len(content) == channels:
            return Decoded(content, "", "")
        hwc = np.ascontiguousarray(content.transpose(1, 2, 0))
        picture = Image.fromarray(hwc[:, :, 0] if len(content) == 1 else hwc)
        wanted = "L" if channels == 1 else "RGB"
        own = "" if picture.mode == wanted else picture.mode
        return Decoded(_pixels(_fit(picture.convert(wanted), geometry)), own, "")
    with _opened(content, where) as image:
        mode, kind = image.mode, image.format or ""
        oddities = _oddities(image, geometry)
        if channels == 1 and mode not in GREY and not to_grey:
            raise UserError(f"{where} is in colour; grey images are needed.")
        wanted = "L" if channels == 1 else "RGB"
        if oddities[:1] == ["turned"] and kind != "TIFF":
            image = ImageOps.exif_transpose(image)
        elif oddities[:1] == ["stored"] and kind == "TIFF":
            image = _turned_back(image)
        if geometry.size is not None and min(image.size) < geometry.size:
            oddities.append("enlarged")
        # A palette with transparency has to be resolved before it can be dropped.
        whole = image.convert("RGBA") if mode in ("P", "PA") else image
        pixels = _pixels(_fit(whole if mode == wanted else whole.convert(wanted), geometry))
    return Decoded(pixels, mode, kind, tuple(oddities))


def _oddities(image: Image.Image, geometry: Geometry) -> list[str]:
    """Orientation and frames, before anything is decoded."""
    found = []
    if _orientation(image) != 1:
        found.append("turned" if geometry.orient else "stored")
    if getattr(image, "is_animated", False):
        found.append("frames")
    return found


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, from 1 (upright) to 8."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:  # of the description only
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned_back(image: Image.Image) -> Image.Image:
    """The stored pixels of a TIFF, which Pillow turns when it loads them."""
    back = BACK[_orientation(image)]
    image.load()
    return image.transpose(back)


@contextmanager
def _opened(content: bytes, where: Path | str) -> Iterator[Image.Image]:
    """An image with a checked header; its pixels are not read yet."""
    try:
        with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
            if image.width * image.height > PIXELS_MOST:
                raise Image.DecompressionBombError
            if image.mode not in GREY + COLOUR:
                raise UserError(
                    f"{where} has pixels of mode {image.mode!r}, which 8 bits a channel cannot "
                    "hold; convert it first."
                )
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{where} declares more pixels than the limit of {PIXELS_MOST:,}; it is not read."
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{where} is not an image that can be read ({', '.join(FORMATS)}). "
            "Remove or convert it."
        ) from None
    except DAMAGE as error:
        raise UserError(f"{where} is damaged or cut off ({said(error)}).") from None


def _fit(image: Image.Image, geometry: Geometry) -> Image.Image:
    if geometry.size is None or image.size == (geometry.size, geometry.size):
        return image
    if geometry.crop == "center":
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Crop first: with `box=`, a filter reaches beyond the edges of the box.
        image = image.crop((left, top, left + side, top + side))
    return image.resize((geometry.size, geometry.size), _FILTERS[geometry.resize])


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
