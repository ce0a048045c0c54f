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

from bench.data import Dataset
from bench.data.find import find_dataset, has_dataset
from bench.data.labels import read_labels
from bench.data.samples.read import open_samples
from bench.system.errors import UserError
from bench.system.progress import Count

BATCH = 256
SEED = 2020
SPLITS = ("reference", "train")

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SampleSource:
    """Samples uint8 (n, C, H, W) or float32 (n, D), which have been read through once.

    `batches` reads them again, with int64 labels, 0 where there are none. `hash` is of samples and
    labels, `copies` the number that equal an earlier one. `data` is the data set, where it is one.
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
        """Whether these are images, and not vectors."""
        return len(self.shape) == 3

    def where(self, index: int) -> str:
        """What people call sample `index`."""
        if self.files is None:
            return f"sample {index} of {self.name}"
        return f"{Path(self.name) / self.files[index]}"


def names_dataset(text: str) -> bool:
    """Whether this is a data set's name, perhaps with a split, as in 'digits:train'."""
    name, mark, split = text.partition(":")
    return has_dataset(name) and (not mark or split in SPLITS)


def check_exists(text: str) -> None:
    """UserError, before anything slow, unless there is such a file, folder or data set."""
    if names_dataset(text):
        return
    path = Path(text.rpartition("#")[0] if "#" in text and not Path(text).exists() else text)
    if not path.exists():
        known = ""
        if not path.suffix and len(path.parts) == 1:
            name, mark, split = text.partition(":")
            if mark and has_dataset(name):
                known = f" Splits of {name} are {' and '.join(SPLITS)}, not {split!r}."
            else:
                known = " Prepared and built-in data sets: bench list datasets."
        raise UserError(f"There is no file, folder or data set {text!r}.{known}", code=2)


def dataset_source(text: str, most: int | None = None) -> SampleSource:
    """A split of a data set, by default the reference one; at most `most` samples of it."""
    name, _, which = text.partition(":")
    data = find_dataset(name)
    split = data.train if which == "train" else data.reference
    chosen = draw(len(split), most)
    rows = np.arange(len(split)) if chosen is None else chosen

    def batches() -> Batches:
        for start in range(0, len(rows), BATCH):
            some = torch.from_numpy(rows[start : start + BATCH])
            yield split.samples[some], split.labels[some]

    content = split.hash
    if chosen is not None:
        content = hashlib.sha256(f"{split.hash} {len(rows)} {SEED}".encode()).hexdigest()
    return SampleSource(
        f"{name}/{which or SPLITS[0]}", len(rows), tuple(split.samples.shape[1:]), content,
        batches, data=data,
    )  # fmt: skip


def file_source(
    path: Path,
    most: int | None = None,
    *,
    labels: Path | None = None,
    channels: int | None = None,
    tell: Count = lambda _done, _total: None,
) -> SampleSource:
    """Samples in a folder, ZIP or npz, all of which are read once: a damaged one is found now.

    At most `most` of them. `labels` is a file of one class a sample, which replaces those of the
    files; `channels` 3 makes grey images colour ones; `tell` is told how many have been read.
    """
    opened = open_samples(path, channels=channels)
    given = None if labels is None else torch.from_numpy(read_labels(labels, opened.n))
    chosen = draw(opened.n, most)
    n = opened.n if chosen is None else len(chosen)
    if n < 2:
        raise UserError(f"{path} has 1 sample; a comparison needs at least 2.")
    shape: tuple[int, ...] = ()

    def batches() -> Batches:
        # Whether all images are grey is looked for once.
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
        tell(done, n)
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
    """Indices, in order, of `most` of `total` samples; None for all of them.

    At random with a fixed seed: the first ones of sorted files would be of few classes.
    """
    if most is None or most >= total:
        return None
    order = np.random.RandomState(SEED).permutation(total)
    return np.sort(order[:most]).astype(np.int64)
