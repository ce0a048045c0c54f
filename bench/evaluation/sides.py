"""The samples that are compared: files, or a data set by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.data.find import find_dataset, has_dataset
from bench.data.labels import read_labels
from bench.data.samples.read import open_samples
from bench.evaluation.statistics_files import split_section
from bench.system.errors import UserError
from bench.system.progress import Count

BATCH = 256
SEED = 2020
SPLITS = ("reference", "train")

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SampleSource:
    """Samples uint8 (n, C, H, W) or float32 (n, D), already read once.

    `batches` reads them again with int64 labels, 0 if there are none. `hash` covers samples and
    labels; `copies` counts those equal to an earlier one; `data` is their data set, if any.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    hash: str
    batches: Callable[[], Batches]
    files: tuple[str, ...] | None = None
    data: Dataset | None = None
    copies: int = 0

    @property
    def is_image(self) -> bool:
        """Whether these are images rather than vectors."""
        return len(self.shape) == 3

    def where(self, index: int) -> str:
        """The file of sample `index`, or its index."""
        if self.files is None:
            return f"sample {index} of {self.name}"
        return f"{Path(self.name) / self.files[index]}"


def names_dataset(text: str) -> bool:
    """Whether this is a data set's name, with or without a split, such as 'digits:train'."""
    name, mark, split = text.partition(":")
    return has_dataset(name) and (not mark or split in SPLITS)


def check_exists(text: str) -> None:
    """UserError unless there is such a file, folder or data set."""
    if names_dataset(text):
        return
    path, _ = split_section(text)
    if not path.exists():
        name, mark, split = text.partition(":")
        known = ""
        if mark and has_dataset(name):
            known = f" Splits of {name} are {' and '.join(SPLITS)}, not {split!r}."
        elif not path.suffix and len(path.parts) == 1:
            known = " Prepared and built-in data sets: bench list datasets."
        raise UserError(f"There is no file, folder or data set {text!r}.{known}", code=2)


def dataset_source(text: str, most: int | None = None) -> SampleSource:
    """At most `most` samples of a split of a data set, by default the reference split."""
    name, _, which = text.partition(":")
    data = find_dataset(name)
    split = data.train if which == "train" else data.reference
    return split_source(f"{name}/{which or SPLITS[0]}", split, data, draw(len(split), most))


def split_source(
    name: str, split: Split, data: Dataset, chosen: npt.NDArray[np.int64] | None = None
) -> SampleSource:
    """The `chosen` samples of a split, by default all."""
    rows = np.arange(len(split)) if chosen is None else chosen

    def batches() -> Batches:
        for start in range(0, len(rows), BATCH):
            some = torch.from_numpy(rows[start : start + BATCH])
            yield split.samples[some], split.labels[some]

    content = split.hash
    if chosen is not None:
        content = hashlib.sha256(f"{split.hash} {len(rows)} {SEED}".encode()).hexdigest()
    shape = tuple(split.samples.shape[1:])
    return SampleSource(name, len(rows), shape, content, batches, data=data)


def file_source(
    path: Path,
    most: int | None = None,
    *,
    labels: Path | None = None,
    channels: int | None = None,
    count: Count = lambda _done, _total: None,
) -> SampleSource:
    """At most `most` samples in a folder, ZIP or npz; reads all once, so that damage is found.

    `labels` is a file with one class per sample that replaces those of the files; `channels` 3
    turns grey images into colour ones; `count` receives the number of samples read.
    """
    opened = open_samples(path, channels=channels)
    given = None if labels is None else torch.from_numpy(read_labels(labels, opened.n))
    chosen = draw(opened.n, most)
    n = opened.n if chosen is None else len(chosen)
    if n < 2:
        raise UserError(f"{path} has 1 sample; a comparison needs at least 2.")
    shape: tuple[int, ...] = ()

    def batches() -> Batches:
        # Whether all images are grey is determined only once.
        known = shape[0] if len(shape) == 3 else channels
        start = 0
        for x, y in open_samples(path, channels=known).batches:
            stop = start + len(x)
            found = torch.zeros(len(x), dtype=torch.int64) if y is None else y
            if given is not None:
                found = given[start:stop]
            if chosen is not None:
                some = torch.from_numpy(chosen[(chosen >= start) & (chosen < stop)] - start)
                x, found = x[some], found[some]
            start = stop
            if len(x):
                yield x, found

    digest, done = hashlib.sha256(), 0
    classes: list[Tensor] = []
    different: set[bytes] = set()
    for x, y in batches():
        if not shape:
            shape = tuple(x.shape[1:])
            digest.update(f"{(n, *shape)} {x.dtype}".encode())
        digest.update(x.contiguous().numpy().data)
        different.update(hashlib.sha256(one.tobytes()).digest() for one in x.numpy())
        classes.append(y)
        done += len(x)
        count(done, n)
    digest.update(torch.cat(classes).numpy().data)
    names = opened.names
    if names is not None and chosen is not None:
        names = [names[index] for index in chosen]
    files = None if names is None else tuple(names)
    return SampleSource(
        str(path), n, shape, digest.hexdigest(), batches, files, copies=n - len(different)
    )


def is_vectors(path: Path) -> bool:
    """Whether a file holds vectors rather than images."""
    opened = open_samples(path, batch=1)
    return opened.names is None and next(opened.batches)[0].ndim == 2


def draw(total: int, most: int | None) -> npt.NDArray[np.int64] | None:
    """Sorted indices of `most` of `total` samples, drawn with a fixed seed; None means all.

    The first samples would not do: sorted files begin with few classes.
    """
    if most is None or most >= total:
        return None
    order = np.random.RandomState(SEED).permutation(total)
    return np.sort(order[:most]).astype(np.int64)
