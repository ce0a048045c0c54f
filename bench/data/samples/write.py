"""Samples to files: a folder or ZIP of PNGs, the npz of the ADM evaluator, a grid to look at."""

from __future__ import annotations

import io
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin
from torch import Tensor

from bench.data.decode import is_image
from bench.data.samples.card import SAMPLES_JSON, SampleCard, differences, parse_sample_card
from bench.data.samples.read import CARD_MOST
from bench.data.trees import Zip
from bench.data.untrusted import DAMAGE, read_member
from bench.system import places
from bench.system.errors import UserError, said
from bench.system.files import atomic_path, check_regular, make_folder, read_whole, tidy, write_text

FORMATS = ("png", "zip", "npz", "grid")
SUFFIXES = {".npz": "npz", ".zip": "zip", ".png": "grid"}
ABOUT = "about"
"""Where an npz (an array of one string) and a grid (a text chunk) keep the card."""
GRID_MOST = 1024
WIDEST = 32
"""With more classes a column is no class: the grid would be too wide."""
TILE = 32
GAP = 2
_PNG_END = bytes.fromhex("00000000 49454e44 ae426082")
"""The last chunk of every PNG: no bytes, IEND, their CRC."""


def guess_format(path: Path) -> str:
    """The format that a path's suffix means; a folder of PNGs if it has none of them.

    UserError for the suffix of another image format, which would become a folder's name.
    """
    if path.suffix.lower() not in SUFFIXES and is_image(path.name):
        raise UserError(
            f"Samples are not written as {path.suffix} ({path}): give a folder, or a name ending "
            f"in {', '.join(SUFFIXES)}.",
            code=2,
        )
    return SUFFIXES.get(path.suffix.lower(), "png")


class SampleWriter(ABC):
    """Takes samples in order and is complete, under its final name, once it has them all.

    Leaving it as a context before that discards what a file cannot be gone on with.
    """

    def __init__(self, path: Path, card: SampleCard, start: int = 0) -> None:
        self.path, self.card, self.seen = path, card, start
        self._complete = False
        self._was_there = path.exists()
        self._stack = ExitStack()

    def add(self, samples: Tensor, labels: Tensor) -> None:
        """The next samples, uint8 (B, C, H, W) or float32 (B, D), and their classes."""
        if tuple(samples.shape[1:]) != self.card.shape:
            raise ValueError(f"samples {tuple(samples.shape)} are not {self.card.shape}")
        self._write(samples, labels.tolist())
        self.seen += len(labels)
        if self.seen >= self.card.n:
            self._finish()
            self._complete = True

    @abstractmethod
    def _write(self, samples: Tensor, labels: list[int]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    def discard(self) -> None:  # noqa: B027 - a temporary file goes by itself
        """Remove what was written of samples that cannot be completed."""

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        if not self._complete:
            if error[0] is None:
                self.discard()
            # Leaves the temporary file without its final name, so that it is removed.
            with suppress(_Incomplete):
                self._stack.__exit__(_Incomplete, _Incomplete(), None)


class _Incomplete(Exception):
    """Leaves a temporary file behind without its taking the final name."""


class PngFolder(SampleWriter):
    """`<class>/<index>.png` and samples.json, which comes first: the same card can go on."""

    def _write(self, samples: Tensor, labels: list[int]) -> None:
        about = self.path / SAMPLES_JSON
        if not about.exists():
            write_text(about, self.card.with_labels())
        for offset, (image, label) in enumerate(zip(arrays(samples), labels, strict=True)):
            path = self.path / self.card.file(self.seen + offset, label)
            make_folder(path.parent)
            # A killed process leaves no half image; to flush each to the disk would take longer
            # than to sample it.
            temporary = path.with_suffix(".png.tmp")
            try:
                temporary.write_bytes(png_bytes(image))
                places.check()
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _finish(self) -> None:
        pass

    def discard(self) -> None:
        """Remove the images of this card, and the folders made for them if they are empty."""
        for index, label in enumerate(self.card.labels):
            (self.path / self.card.file(index, label)).unlink(missing_ok=True)
        (self.path / SAMPLES_JSON).unlink(missing_ok=True)
        for folder in {self.path / self.card.folder(k) for k in self.card.classes}:
            with suppress(OSError):
                folder.rmdir()
        if not self._was_there:
            with suppress(OSError):
                self.path.rmdir()


class _Zip(SampleWriter):
    """What is written into one ZIP container under a temporary name."""

    _file: zipfile.ZipFile | None = None

    def _open(self) -> zipfile.ZipFile:
        if self._file is None:
            temporary = self._stack.enter_context(atomic_path(self.path))
            # Images do not get smaller, and what is stored can be read at any place.
            self._file = zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED)
            self._stack.enter_context(self._file)
        return self._file

    def _finish(self) -> None:
        self._stack.close()


class PngZip(_Zip):
    """The folder of PNGs as one ZIP."""

    def _write(self, samples: Tensor, labels: list[int]) -> None:
        first = self._file is None
        file = self._open()
        if first:
            file.writestr(_entry(SAMPLES_JSON), self.card.with_labels())
        for offset, (image, label) in enumerate(zip(arrays(samples), labels, strict=True)):
            file.writestr(_entry(self.card.file(self.seen + offset, label)), png_bytes(image))


class Npz(_Zip):
    """`arr_0` uint8 (n, H, W, C) or float32 (n, D), `arr_1` int64 (n,) classes, and the card.

    The names and order are those of the evaluator of Dhariwal, Nichol (2021). Batches go straight
    to the file: the array is never whole in memory.
    """

    _array: Any = None

    def _write(self, samples: Tensor, labels: list[int]) -> None:
        batch = arrays(samples)
        if self._array is None:
            self._array = self._open().open(_entry("arr_0.npy"), "w", force_zip64=True)
            header = {
                "descr": np.lib.format.dtype_to_descr(batch.dtype),
                "fortran_order": False,
                "shape": (self.card.n, *batch.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(self._array, header)
        self._array.write(np.ascontiguousarray(batch).tobytes())

    def _finish(self) -> None:
        self._array.close()
        file = self._open()
        for name, array in (
            ("arr_1", np.array(self.card.labels, dtype=np.int64)),
            (ABOUT, np.array(self.card.model_dump_json())),
        ):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            file.writestr(_entry(f"{name}.npy"), buffer.getvalue())
        super()._finish()

    def __exit__(self, *error: Any) -> None:
        if self._array is not None:
            self._array.close()  # a ZIP cannot be closed while an entry is being written
        super().__exit__(*error)


class Grid(SampleWriter):
    """One PNG with a tile an image; a column a class where that fits."""

    def __init__(self, path: Path, card: SampleCard, start: int = 0) -> None:
        super().__init__(path, card, start)
        self._tiles: list[npt.NDArray[np.uint8]] = []

    def _write(self, samples: Tensor, labels: list[int]) -> None:
        self._tiles += list(arrays(samples))

    def _finish(self) -> None:
        height, width, channels = self._tiles[0].shape
        classes = len(self.card.classes)
        # Every column has one class: their number is a multiple of the classes'.
        across = math.sqrt(self.card.n)
        columns = classes * max(1, round(across / classes)) if classes <= WIDEST else round(across)
        columns = min(max(columns, 1), self.card.n)
        rows = math.ceil(self.card.n / columns)
        scale = max(1, TILE // height)
        high, wide = height * scale + GAP, width * scale + GAP
        picture = np.full((rows * high + GAP, columns * wide + GAP, channels), 255, np.uint8)
        for i, tile in enumerate(self._tiles):
            top, left = i // columns * high + GAP, i % columns * wide + GAP
            large = tile.repeat(scale, 0).repeat(scale, 1)
            picture[top : top + high - GAP, left : left + wide - GAP] = large
        about = PngImagePlugin.PngInfo()
        about.add_text(ABOUT, self.card.model_dump_json())
        with atomic_path(self.path) as temporary:
            _image(picture).save(temporary, format="PNG", pnginfo=about, optimize=True)


SINKS: dict[str, Callable[[Path, SampleCard, int], SampleWriter]] = {
    "png": PngFolder,
    "zip": PngZip,
    "npz": Npz,
    "grid": Grid,
}


def open_samples(path: Path, kind: str, card: SampleCard, start: int = 0) -> SampleWriter:
    """A sink of a format for the samples from `start` on, which only a folder can have above 0."""
    return SINKS[kind](path, card, start)


def check_format(kind: str, card: SampleCard) -> None:
    """UserError if a format cannot hold these samples."""
    if len(card.shape) != 3 and kind != "npz":
        raise UserError(
            f"Samples of {card.dataset!r} are vectors, which only npz can hold, not {kind}: end "
            "--out in .npz, or say --format npz.",
            code=2,
        )
    if kind == "grid" and card.n > GRID_MOST:
        raise UserError(
            f"A grid is to look at and takes at most {GRID_MOST:,} samples, got {card.n:,}: use "
            "png, zip or npz.",
            code=2,
        )


def first_missing(path: Path, kind: str, card: SampleCard) -> int:
    """How many samples are there, from the first on; `card.n` where output is complete.

    UserError if what is there is of another card, or nothing of this program.
    """
    tidy(path if kind == "png" else path.parent)
    if not path.exists() and not path.is_symlink():
        return 0
    try:
        there = _card_of(path, kind)
    except (UserError, *DAMAGE) as error:
        raise UserError(
            f"{path} is already there and does not say which samples it holds ({said(error)}); "
            "choose another place for the samples, or remove it."
        ) from None
    if there is None:
        return 0
    other = differences(there, card)
    if other:
        raise UserError(
            f"{path} holds samples of other settings ({other}); choose another place for the "
            "samples, or remove it."
        )
    if kind != "png":
        return card.n
    have = (_is_whole(path / card.file(index, label)) for index, label in enumerate(card.labels))
    return next((index for index, is_there in enumerate(have) if not is_there), card.n)


def _is_whole(path: Path) -> bool:
    """Whether a PNG is there to its last byte, which it may not be if the power went."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), io.SEEK_END)
            return file.read() == _PNG_END
    except OSError:  # absent, or shorter than the end of a PNG
        return False


def _card_of(path: Path, kind: str) -> SampleCard | None:
    """The card of what lies at `path`, None for an empty folder; raises if there is none."""
    if kind == "png":
        if not path.is_dir():
            raise ValueError("it is a file, not a folder")
        # What a killed process left of its first file is hidden, and no samples.
        if all(entry.name.startswith(".") for entry in path.iterdir()):
            return None
        if not (path / SAMPLES_JSON).is_file():
            raise ValueError(f"it has no {SAMPLES_JSON}")
        return parse_sample_card(read_whole(path / SAMPLES_JSON, CARD_MOST))
    if path.is_dir():
        raise ValueError("it is a folder, not a file")
    check_regular(path)
    if kind == "grid":
        with Image.open(path, formats=("PNG",)) as picture:
            return parse_sample_card(str(picture.info[ABOUT]))
    if kind == "zip":
        ((_, text),) = Zip(path).contents([SAMPLES_JSON], CARD_MOST)
        return parse_sample_card(text)
    with zipfile.ZipFile(path) as file:
        about = read_member(file, f"{ABOUT}.npy", CARD_MOST)
    if about.dtype.kind != "U" or about.shape != ():
        raise ValueError(f"its {ABOUT} is {about.dtype} {about.shape}")
    return parse_sample_card(str(about[()]))


def arrays(samples: Tensor) -> npt.NDArray[Any]:
    """uint8 (B, C, H, W) => (B, H, W, C); vectors unchanged."""
    return (samples.permute(0, 2, 3, 1) if samples.ndim == 4 else samples).cpu().numpy()


def png_bytes(image: npt.NDArray[np.uint8], *, optimize: bool = False) -> bytes:
    """uint8 (H, W, C), C 1 or 3, as a PNG; `optimize` takes longer for fewer bytes."""
    buffer = io.BytesIO()
    _image(image).save(buffer, format="PNG", optimize=optimize)
    return buffer.getvalue()


def _image(image: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _entry(name: str) -> zipfile.ZipInfo:
    # A fixed date: equal samples make equal files.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry
