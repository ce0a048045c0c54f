"""Write samples: a folder or ZIP of PNGs, the npz of the ADM evaluator, a grid to look at."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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

SUFFIXES = {".npz": "npz", ".zip": "zip", ".png": "grid"}
ABOUT = "about"
"""Where an npz (an array of one string) and a grid (a text chunk) keep the card."""
GRID_MOST = 1024
WIDEST = 32
"""With more classes a grid has no column per class: it would be too wide."""
TILE = 32
GAP = 2
_PNG_END = bytes.fromhex("00000000 49454e44 ae426082")
"""The last chunk of every PNG: no bytes, IEND, their CRC."""

Write = Callable[[int, npt.NDArray[Any], list[int]], object]
"""Takes a batch: the index of its first sample, uint8 (B, H, W, C) or float32 (B, D), classes."""


def guess_format(path: Path) -> str:
    """The format of a path's suffix; a folder of PNGs for other suffixes.

    Raises UserError for the suffix of another image format, which would become a folder's name.
    """
    if path.suffix.lower() not in SUFFIXES and is_image(path.name):
        raise UserError(
            f"Samples are not written as {path.suffix} ({path}): give a folder, or a name ending "
            f"in {', '.join(SUFFIXES)}.",
            code=2,
        )
    return SUFFIXES.get(path.suffix.lower(), "png")


class SampleWriter:
    """Takes samples in order from `start` on; the output is complete after the last one.

    Only a folder can start above 0. A context: if it ends before the last sample, a file is
    discarded, and a folder too unless an exception ended it.
    """

    def __init__(self, path: Path, kind: str, card: SampleCard, start: int = 0) -> None:
        self.path, self.kind, self.card, self.seen = path, kind, card, start
        self._was_there = path.exists()
        self._stack = ExitStack()
        self._write: Write | None = None

    def add(self, samples: Tensor, labels: Tensor) -> None:
        """The next samples, uint8 (B, C, H, W) or float32 (B, D), and their classes."""
        if tuple(samples.shape[1:]) != self.card.shape:
            raise ValueError(f"samples {tuple(samples.shape)} are not {self.card.shape}")
        if self._write is None:
            self._write = self._stack.enter_context(FORMATS[self.kind](self.path, self.card))
        self._write(self.seen, arrays(samples), labels.tolist())
        self.seen += len(labels)
        if self.seen >= self.card.n:
            self._stack.close()

    def discard(self) -> None:
        """Remove a folder's images of this card, and the folders that are empty then."""
        if self.kind != "png":
            return  # the temporary file is removed by `__exit__`
        for index, label in enumerate(self.card.labels):
            (self.path / self.card.file(index, label)).unlink(missing_ok=True)
        (self.path / SAMPLES_JSON).unlink(missing_ok=True)
        folders = {self.path / self.card.folder(k) for k in self.card.classes}
        for folder in (*folders, *([] if self._was_there else [self.path])):
            with suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.seen < self.card.n:
            if error[0] is None:
                self.discard()
            with suppress(_Incomplete):
                self._stack.__exit__(_Incomplete, _Incomplete(), None)


class _Incomplete(Exception):
    """Ends a format's context early, so that the temporary file is removed."""


@contextmanager
def _png_folder(path: Path, card: SampleCard) -> Iterator[Write]:
    """`<class>/<index>.png` and samples.json, which is written first, so that it can be resumed."""

    def write(first: int, batch: npt.NDArray[Any], labels: list[int]) -> None:
        for index, (image, label) in enumerate(zip(batch, labels, strict=True), first):
            file = path / card.file(index, label)
            make_folder(file.parent)
            # A killed process leaves no half image. Syncing each would take longer than sampling.
            temporary = file.with_suffix(".png.tmp")
            try:
                temporary.write_bytes(png_bytes(image))
                places.check()
                temporary.replace(file)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    if not (path / SAMPLES_JSON).exists():
        write_text(path / SAMPLES_JSON, card.with_labels())
    yield write


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    # Stored: images do not compress further, and a stored array can be read at any position.
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        yield file


@contextmanager
def _png_zip(path: Path, card: SampleCard) -> Iterator[Write]:
    """The folder of PNGs as one ZIP."""

    def write(first: int, batch: npt.NDArray[Any], labels: list[int]) -> None:
        for index, (image, label) in enumerate(zip(batch, labels, strict=True), first):
            file.writestr(_entry(card.file(index, label)), png_bytes(image))

    with _archive(path) as file:
        file.writestr(_entry(SAMPLES_JSON), card.with_labels())
        yield write


@contextmanager
def _npz(path: Path, card: SampleCard) -> Iterator[Write]:
    """`arr_0` uint8 (n, H, W, C) or float32 (n, D), `arr_1` int64 (n,) classes, and the card.

    Names and order are those of the evaluator of Dhariwal, Nichol (2021). Batches are written
    directly: the array is never whole in memory.
    """
    pictures = len(card.shape) == 3
    shape = (card.n, *card.shape[1:], card.shape[0]) if pictures else (card.n, *card.shape)
    descr = np.lib.format.dtype_to_descr(np.dtype(np.uint8 if pictures else np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    about = (("arr_1", np.array(card.labels, np.int64)), (ABOUT, np.array(card.model_dump_json())))
    with _archive(path) as file:
        with file.open(_entry("arr_0.npy"), "w", force_zip64=True) as array:
            np.lib.format.write_array_header_1_0(array, header)
            yield lambda _, batch, __: array.write(np.ascontiguousarray(batch).tobytes())
        for name, content in about:
            with file.open(_entry(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, content, allow_pickle=False)


@contextmanager
def _grid(path: Path, card: SampleCard) -> Iterator[Write]:
    """One PNG with a tile per image, and a column per class if it is not too wide."""
    tiles: list[npt.NDArray[np.uint8]] = []
    yield lambda _, batch, __: tiles.extend(batch)
    height, width, channels = tiles[0].shape
    classes = len(card.classes)
    # The number of columns is a multiple of the number of classes, so that a column has one class.
    across = math.sqrt(card.n)
    columns = classes * max(1, round(across / classes)) if classes <= WIDEST else round(across)
    columns = min(max(columns, 1), card.n)
    rows = math.ceil(card.n / columns)
    scale = max(1, TILE // height)
    high, wide = height * scale + GAP, width * scale + GAP
    picture = np.full((rows * high + GAP, columns * wide + GAP, channels), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * high + GAP, i % columns * wide + GAP
        large = tile.repeat(scale, 0).repeat(scale, 1)
        picture[top : top + high - GAP, left : left + wide - GAP] = large
    about = PngImagePlugin.PngInfo()
    about.add_text(ABOUT, card.model_dump_json())
    with atomic_path(path) as temporary:
        _image(picture).save(temporary, format="PNG", pnginfo=about, optimize=True)


FORMATS: dict[str, Callable[[Path, SampleCard], AbstractContextManager[Write]]] = {
    "png": _png_folder,
    "zip": _png_zip,
    "npz": _npz,
    "grid": _grid,
}


def check_format(kind: str, card: SampleCard) -> None:
    """UserError if a format cannot hold these samples."""
    if len(card.shape) != 3 and kind != "npz":
        raise UserError(
            f"Samples of {card.dataset!r} are vectors, which only npz can hold, not {kind}: end "
            "--out in .npz, or use --format npz.",
            code=2,
        )
    if kind == "grid" and card.n > GRID_MOST:
        raise UserError(
            f"A grid is to look at and takes at most {GRID_MOST:,} samples, got {card.n:,}: use "
            "png, zip or npz.",
            code=2,
        )


def first_missing(path: Path, kind: str, card: SampleCard) -> int:
    """The index of the first missing sample; `card.n` if the output is complete.

    Raises UserError if other samples, or anything else, are at `path`.
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
    if other := differences(there, card):
        raise UserError(
            f"{path} holds samples of other settings ({other}); choose another place for the "
            "samples, or remove it."
        )
    if kind != "png":
        return card.n
    have = (_is_whole(path / card.file(index, label)) for index, label in enumerate(card.labels))
    return next((index for index, is_there in enumerate(have) if not is_there), card.n)


def _is_whole(path: Path) -> bool:
    """Whether a PNG is complete; it may be cut off after a power failure."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), io.SEEK_END)
            return file.read() == _PNG_END
    except OSError:  # absent, or shorter than the end of a PNG
        return False


def _card_of(path: Path, kind: str) -> SampleCard | None:
    """The card of the samples at `path`, None for an empty folder; raises if there is no card."""
    if kind == "png":
        if not path.is_dir():
            raise ValueError("it is a file, not a folder")
        # A killed process may leave a hidden part of its first file.
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
    # A fixed date, so that equal samples make equal files.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry
