"""Files of samples back to batches: image folders, ZIPs of images, npz arrays; nothing unpickled.

What is read may come from anywhere, so that names, sizes and headers are checked before they are
believed, and no more than a batch is held in memory.
"""

from __future__ import annotations

import io
import math
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from bench.data.samples.card import SAMPLES_JSON, SampleCard, parse_sample_card
from bench.data.untrusted import DAMAGE, PICTURES, open_array, take, unfolds
from bench.system.errors import UserError, said
from bench.system.files import read_whole

BATCH = 256
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
CARD_MOST = 64 << 20
FILE_MOST = 256 << 20
"""Bytes of one image file; a small ZIP can claim to hold far more than memory."""
PIXELS_MOST = 1 << 26
BATCH_MOST = 256 << 20
"""Bytes of a batch, which takes fewer images where they are large."""
VECTOR_MOST = 1 << 20
SAMPLES_MOST = 100_000_000
GREY = frozenset({"L", "1"})
COLOUR = frozenset({"RGB", "RGBA", "P", "PA", "LA", "CMYK", "YCbCr"})

Batches = Iterator[tuple[Tensor, Tensor | None]]


class Opened(NamedTuple):
    """How many samples there are, their files' names (None in an array), and the samples."""

    n: int
    names: list[str] | None
    batches: Batches


def read_samples(path: Path, *, batch: int = BATCH, channels: int | None = None) -> Batches:
    """Batches of uint8 (B, C, H, W), or float32 (B, D) from an npz of vectors, and their classes.

    Takes a folder of images, a ZIP of one, or an npz with `arr_0` uint8 (n, H, W, C) and, if it
    has classes, `arr_1` (n,). Classes are those of samples.json where there is one, otherwise the
    folders in order of their names; None where images lie in no folders. `channels` 1 or 3 turns
    grey to colour and back; by default images stay as the first one is. UserError, in part only
    once the iteration comes to it, for what cannot be read.
    """
    return open_samples(path, batch=batch, channels=channels).batches


def open_samples(path: Path, *, batch: int = BATCH, channels: int | None = None) -> Opened:
    """`read_samples` with the number of samples, known before the first is read."""
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is None, 1 or 3, got {channels}")
    if path.is_dir():
        return _from_folder(path, batch, channels)
    if not path.exists():
        raise UserError(f"There are no samples at {path}: no such file or folder.")
    if not path.is_file() or not zipfile.is_zipfile(path):
        if path.is_file() and path.suffix.lower() in (".zip", ".npz"):
            raise UserError(
                f"{path} is damaged or cut off: it does not end as a {path.suffix[1:].lower()} "
                "file does. Fetch or write it again."
            )
        raise UserError(
            f"{path} is no folder, ZIP or npz of images; single images and .npy arrays are not "
            "sets of samples."
        )
    try:
        with zipfile.ZipFile(path) as file:
            names = [entry.filename for entry in file.infolist()]
    except DAMAGE as error:
        raise UserError(f"{path} is damaged: {said(error)}.") from None
    if path.suffix.lower() == ".npz" or "arr_0.npy" in names:
        return _from_npz(path, batch, channels)
    return _from_zip(path, batch, channels)


def _from_folder(path: Path, batch: int, channels: int | None) -> Opened:
    root = path.resolve()
    about = path / SAMPLES_JSON
    every = (p.relative_to(path).as_posix() for p in path.rglob("*"))
    found = sorted(name for name in every if _is_image(name))
    card = _card_in(about) if about.is_file() else None
    names, labels = _listed(card, found, path)
    for name in names:
        try:
            inside = (path / name).resolve().is_relative_to(root)
        except (OSError, RuntimeError):  # a loop of links
            inside = False
        if not inside:
            raise UserError(f"{path / name} is a link that leaves the folder: copy the image in.")

    def read(name: str) -> bytes:
        return read_whole(path / name, FILE_MOST)

    return Opened(len(names), names, _images(names, labels, read, path, batch, channels))


def _from_zip(path: Path, batch: int, channels: int | None) -> Opened:
    file = zipfile.ZipFile(path)
    try:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in file.infolist():
            if not entry.is_dir():
                _check_entry(path, entry.filename, entry)
                if entries.setdefault(entry.filename, entry) is not entry:
                    raise UserError(f"{path} has two entries named {entry.filename!r}; keep one.")
        about = entries.get(SAMPLES_JSON)
        card = _card(file.read(about), path / SAMPLES_JSON) if about else None
        found = sorted(name for name in entries if _is_image(name))
        names, labels = _listed(card, found, path)
    except DAMAGE as error:
        file.close()
        raise UserError(f"Cannot read {path}: {said(error)}.") from None
    except BaseException:
        file.close()
        raise

    def read(name: str) -> bytes:
        return file.read(entries[name])

    def batches() -> Batches:
        with closing(file):
            yield from _images(names, labels, read, path, batch, channels)

    return Opened(len(names), names, batches())


def _check_entry(path: Path, name: str, entry: zipfile.ZipInfo) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise UserError(f"{path} has an entry that leaves it, {name!r}: it is not to be trusted.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UserError(f"{path} has a link, {name!r}: only image files can be read.")
    if entry.file_size > FILE_MOST:
        raise UserError(f"{path} has an entry of {entry.file_size:,} bytes, {name!r}: too large.")
    if unfolds(entry) or (name == SAMPLES_JSON and entry.file_size > CARD_MOST):
        raise UserError(
            f"{path} has an entry, {name!r}, of {entry.compress_size:,} bytes that unfolds into "
            f"{entry.file_size:,}: it is not to be trusted."
        )
    if entry.flag_bits & 1:
        raise UserError(f"{path} is encrypted ({name!r}): make it again without a password.")


def _is_image(name: str) -> bool:
    # A dot at the start is a system's own, such as a file beside every image or its thumbnails.
    path = PurePosixPath(name)
    own = not any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return own and path.suffix.lower() in IMAGE_SUFFIXES


def _card_in(path: Path) -> SampleCard:
    try:
        return _card(read_whole(path, CARD_MOST), path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {said(error)}.") from None


def _card(text: bytes, path: Path) -> SampleCard:
    try:
        return parse_sample_card(text)
    except ValueError as error:
        raise UserError(f"{path} does not describe samples ({error}): remove it.") from None


def _listed(
    card: SampleCard | None, found: Sequence[str], path: Path
) -> tuple[list[str], list[int] | None]:
    """Names in their order, and their classes."""
    if card is not None:
        # Checked first: a card can claim more samples than there is memory for their labels.
        if card.n > len(found):
            raise UserError(
                f"{path} is unfinished: {card.n - len(found):,} of {card.n:,} samples are missing; "
                "the command that made it goes on with it."
            )
        labels = card.labels
        names = [card.file(index, label) for index, label in enumerate(labels)]
        missing = set(names) - set(found)
        if missing:
            raise UserError(
                f"{path} lacks {len(missing):,} of its {card.n:,} samples, such as {min(missing)}; "
                "the command that made it makes them again."
            )
        other = set(found) - set(names)
        if other:
            raise UserError(
                f"{path} has {len(other):,} images beside its samples, such as {min(other)}: "
                "move them away."
            )
        return names, labels
    if not found:
        raise UserError(f"There are no images in {path} ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    folders = [name.rpartition("/")[0] for name in found]
    if not all(folders):
        return list(found), None
    index = {folder: k for k, folder in enumerate(sorted(set(folders)))}
    return list(found), [index[folder] for folder in folders]


def _images(
    names: Sequence[str],
    labels: Sequence[int] | None,
    read: Callable[[str], bytes],
    path: Path,
    batch: int,
    channels: int | None,
) -> Batches:
    size: tuple[int, int] | None = None
    start, decoded = 0, list[npt.NDArray[np.uint8]]()
    for stop, name in enumerate(names, 1):
        try:
            image, channels, size = _decode(read(name), channels, size)
        except DAMAGE as error:
            raise UserError(f"Cannot read {path / name}: {said(error)}.") from None
        decoded.append(image)
        if len(decoded) == fitting(batch, image.nbytes) or stop == len(names):
            yield (
                torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous(),
                None if labels is None else torch.tensor(labels[start:stop]),
            )
            start, decoded = stop, []


def fitting(batch: int, size: int) -> int:
    """Samples of a batch, which are fewer than `batch` where `size` bytes each are too many."""
    return max(1, min(batch, BATCH_MOST // max(1, size)))


def _decode(
    content: bytes, channels: int | None, size: tuple[int, int] | None
) -> tuple[npt.NDArray[np.uint8], int, tuple[int, int]]:
    """One image (H, W, C) with the number of channels and size (W, H) that hold from now on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = Image.open(io.BytesIO(content), formats=PICTURES)
    with opened as image:
        # The header alone tells all this; a huge image is refused before it is decoded.
        if image.width * image.height > PIXELS_MOST:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        if size is not None and image.size != size:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, the images before it "
                f"{size[0]} x {size[1]}; all must have one size"
            )
        if image.mode not in GREY | COLOUR:
            raise ValueError(f"images of mode {image.mode} have no 8 bits a channel")
        if channels is None:
            channels = 1 if image.mode in GREY else 3
        elif channels == 1 and image.mode not in GREY:
            raise ValueError("it is in colour, and the images asked for or before it are grey")
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return pixels.reshape(image.height, image.width, channels), channels, image.size


def _from_npz(path: Path, batch: int, channels: int | None) -> Opened:
    file = zipfile.ZipFile(path)
    try:
        samples = open_array(file, "arr_0.npy")
        shape, dtype = samples[1], samples[2]
        is_image = dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3)
        if not is_image and not (dtype == np.float32 and len(shape) == 2):
            raise ValueError(
                f"arr_0 is {dtype} {shape}, not uint8 (n, H, W, 1 or 3) or float32 (n, D)"
            )
        if is_image and channels == 1 and shape[3] == 3:
            raise ValueError("the images asked for are grey, and these are in colour")
        if is_image and shape[1] * shape[2] > PIXELS_MOST:
            raise ValueError(f"{shape[2]} x {shape[1]} pixels are too many")
        if not is_image and shape[1] > VECTOR_MOST:
            raise ValueError(f"vectors of {shape[1]:,} numbers are too long")
        if shape[0] > SAMPLES_MOST:
            raise ValueError(f"{shape[0]:,} samples are too many")
        labels = _npz_labels(file, shape[0])
    except DAMAGE as error:
        file.close()
        raise UserError(f"Cannot read {path}: {said(error)}.") from None
    repeat = 3 if is_image and channels == 3 and shape[3] == 1 else 1

    def batches() -> Batches:
        with closing(file), closing(samples[0]):
            most = fitting(batch, math.prod(shape[1:]) * dtype.itemsize)
            for start in range(0, shape[0], most):
                count = min(most, shape[0] - start)
                x = torch.from_numpy(take(samples[0], (count, *shape[1:]), dtype, path))
                if is_image:
                    x = x.permute(0, 3, 1, 2).expand(-1, shape[3] * repeat, -1, -1).contiguous()
                yield x, None if labels is None else labels[start : start + count]

    return Opened(shape[0], None, batches())


def _npz_labels(file: zipfile.ZipFile, n: int) -> Tensor | None:
    if "arr_1.npy" not in file.namelist():
        return None
    stream, shape, dtype = open_array(file, "arr_1.npy")
    with closing(stream):
        if shape != (n,) or dtype.kind not in "iu":
            raise ValueError(f"arr_1 is {dtype} {shape}, not one whole number for each of {n}")
        return torch.from_numpy(take(stream, shape, dtype, "arr_1").astype(np.int64))
