"""Read samples in batches from untrusted trees of images and npz arrays.

Names, sizes and headers are checked first, nothing is unpickled, and no more than a batch is held
in memory.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data.decode import PIXELS_MOST, SUFFIXES, Geometry, channels_of, decode, is_image
from bench.data.labels import (
    Classes,
    by_folder,
    class_of_folders,
    index_files,
    index_labels,
    whole_numbers,
)
from bench.data.leftovers import other_files, told_left_out
from bench.data.samples.card import SAMPLES_JSON, SampleCard, parse_sample_card
from bench.data.trees import Tree, Zip, open_tree
from bench.data.untrusted import DAMAGE, open_array, read_member, take
from bench.system.errors import UserError, said

BATCH = 256
CARD_MOST = 64 << 20
BATCH_MOST = 256 << 20
"""Bytes of a batch; large images make it smaller."""
VECTOR_MOST = 1 << 20
SAMPLES_MOST = 100_000_000

Batches = Iterator[tuple[Tensor, Tensor | None]]


class Opened(NamedTuple):
    """Samples before the first is read: their number, files (None in an array) and classes.

    `left_out` names the files that are no samples: no images, or images beside class folders.
    `oddities` counts images by `ODDITIES`, complete after the last batch.
    """

    n: int
    names: list[str] | None
    classes: Classes | None
    batches: Batches
    oddities: Mapping[str, int]
    left_out: tuple[str, ...] = ()


def read_samples(path: Path, *, batch: int = BATCH, channels: int | None = None) -> Batches:
    """Batches of uint8 (B, C, H, W), or float32 (B, D) from an npz of vectors, and their classes.

    Takes a folder of images, a ZIP or tar of one, or an npz with `arr_0` uint8 (n, H, W, C) and, if
    it has classes, `arr_1` (n,). Classes come from samples.json or dataset.json if there is one,
    otherwise from the folders in the order of their names (`numbered`); None if images are not in
    folders.
    Images come in the order of samples.json or of their names, in a tar in its own order.
    `channels` 3 converts grey to colour, 1 refuses colour; by default images are grey if all are.
    Raises UserError, partly during iteration, for files that cannot be read.
    """
    return open_samples(path, batch=batch, channels=channels).batches


def open_samples(
    path: Path, *, batch: int = BATCH, channels: int | None = None, orient: bool = True
) -> Opened:
    """`read_samples` with the number of samples, before the first is read.

    `orient` turns images as their EXIF data say.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is None, 1 or 3, got {channels}")
    tree = open_tree(path)
    files = {file.name for file in tree.files()}
    if isinstance(tree, Zip) and (path.suffix.lower() == ".npz" or "arr_0.npy" in files):
        return _from_npz(path, batch, channels)
    paths, classes, left_out = _found(tree, files)
    names = tree.order(paths)
    if classes is not None:
        labels = dict(zip(paths, classes.labels.tolist(), strict=True))
        classes = replace(classes, labels=np.array([labels[name] for name in names], np.int64))
    oddities: Counter[str] = Counter()
    geometry = Geometry(orient=orient)
    batches = _images(tree, names, classes, batch, channels, geometry, oddities)
    return Opened(len(names), names, classes, batches, oddities, left_out)


def _found(tree: Tree, files: Collection[str]) -> tuple[list[str], Classes | None, tuple[str, ...]]:
    """The images in the order of reading, if the tree allows it, their classes, and other files."""
    found = sorted(filter(is_image, files))
    if SAMPLES_JSON in files:
        ((_, text),) = tree.contents([SAMPLES_JSON], CARD_MOST)
        try:
            card = parse_sample_card(text)
        except ValueError as error:
            where = tree.path / SAMPLES_JSON
            raise UserError(f"{where} does not describe samples ({error}): remove it.") from None
        names = _names_of_card(card, found, tree.path)
        return names, Classes(np.array(card.labels, np.int64), card.class_names), ()
    others = other_files(files)
    if not found:
        raise UserError(
            f"There are no images in {tree.path} ({', '.join(SUFFIXES)})."
            f"{told_left_out(others, ' It holds')}"
        )
    if indices := index_files(files):
        labels = index_labels(tree, indices, found)
        return found, None if labels is None else Classes(labels), tuple(others)
    placed, strays = by_folder(found)
    return [image.path for image in placed], class_of_folders(placed), (*strays, *others)


def _names_of_card(card: SampleCard, found: Sequence[str], path: Path) -> list[str]:
    # Checked first: a card can claim more samples than memory holds labels.
    if card.n > len(found):
        raise UserError(
            f"{path} is unfinished: {card.n - len(found):,} of {card.n:,} samples are missing. "
            "Run the command that made it again to continue."
        )
    names = [card.file(index, label) for index, label in enumerate(card.labels)]
    if missing := set(names) - set(found):
        raise UserError(
            f"{path} lacks {len(missing):,} of its {card.n:,} samples, such as {min(missing)}. "
            "Run the command that made it again."
        )
    if other := set(found) - set(names):
        raise UserError(
            f"{path} has {len(other):,} other images besides its samples, such as {min(other)}: "
            "move them away."
        )
    return names


def _images(
    tree: Tree,
    names: Sequence[str],
    classes: Classes | None,
    batch: int,
    channels: int | None,
    geometry: Geometry,
    oddities: Counter[str],
) -> Batches:
    if channels is None:
        channels = channels_of((text, tree.path / name) for name, text in tree.contents(names))
    decoded: list[npt.NDArray[np.uint8]] = []
    labels = None if classes is None else torch.from_numpy(classes.labels)
    shape: tuple[int, ...] = ()
    for done, (name, content) in enumerate(tree.contents(names), 1):
        where = tree.path / name
        found = decode(content, where, geometry, channels)
        image = found.pixels
        oddities.update(found.oddities)
        shape = shape or image.shape
        if image.shape != shape:
            raise UserError(
                f"{where} has {image.shape[2]} x {image.shape[1]} pixels, the images before it "
                f"{shape[2]} x {shape[1]}; all must have one size."
            )
        decoded.append(image)
        if len(decoded) == fitting(batch, image.nbytes) or done == len(names):
            start = done - len(decoded)
            yield (
                torch.from_numpy(np.stack(decoded)).contiguous(),
                None if labels is None else labels[start:done],
            )
            decoded = []


def fitting(batch: int, size: int) -> int:
    """The size of a batch of samples of `size` bytes: `batch`, or fewer for large samples."""
    return max(1, min(batch, BATCH_MOST // max(1, size)))


def _from_npz(path: Path, batch: int, channels: int | None) -> Opened:
    file = zipfile.ZipFile(path)
    try:
        samples, shape, dtype = open_array(file, "arr_0.npy")
        pictures = dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3)
        if not pictures and not (dtype.kind == "f" and len(shape) == 2):
            raise ValueError(
                f"arr_0 is {dtype} {shape}, not uint8 (n, H, W, 1 or 3) or float (n, D)"
            )
        if pictures and channels == 1 and shape[3] == 3:
            raise ValueError("its images are in colour; grey images are needed")
        if pictures and shape[1] * shape[2] > PIXELS_MOST:
            raise ValueError(f"{shape[2]} x {shape[1]} pixels are too many")
        if not pictures and shape[1] > VECTOR_MOST:
            raise ValueError(f"vectors of {shape[1]:,} numbers are too long")
        if shape[0] > SAMPLES_MOST:
            raise ValueError(f"{shape[0]:,} samples are too many")
        labels = _npz_labels(file, shape[0])
        classes = None if labels is None else Classes(labels.numpy())
    except DAMAGE as error:
        file.close()
        raise UserError(f"Cannot read {path}: {said(error)}.") from None

    def batches() -> Batches:
        with closing(file), closing(samples):
            most = fitting(batch, math.prod(shape[1:]) * dtype.itemsize)
            for start in range(0, shape[0], most):
                count = min(most, shape[0] - start)
                found = take(samples, (count, *shape[1:]), dtype, path)
                if not pictures:
                    with np.errstate(over="ignore"):  # infinity is reported with its sample
                        found = found.astype(np.float32, copy=False)
                x = torch.from_numpy(found)
                if pictures:
                    wide = 3 if channels == 3 else shape[3]
                    x = x.permute(0, 3, 1, 2).expand(-1, wide, -1, -1).contiguous()
                yield x, None if labels is None else labels[start : start + count]

    return Opened(shape[0], None, classes, batches(), {})


def _npz_labels(file: zipfile.ZipFile, n: int) -> Tensor | None:
    if "arr_1.npy" not in file.NameToInfo:
        return None
    return torch.from_numpy(whole_numbers(read_member(file, "arr_1.npy", 8 * n + 4096), n))
