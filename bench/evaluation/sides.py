"""The samples that are compared: files, or a data set by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.data.find import find_dataset, has_dataset
from bench.data.labels import Classes, Labels, read_labels
from bench.data.samples.read import open_samples
from bench.evaluation.statistics_files import split_section
from bench.system.errors import UserError, plain
from bench.system.progress import Count

BATCH = 256
SEED = 2020
SPLITS = ("reference", "train")

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SampleSource:
    """Samples uint8 (n, C, H, W) or float32 (n, D), already read once.

    `batches` reads them again with int64 labels, 0 if `classes` is None. `hash` covers
    samples and labels; `copies` counts those equal to an earlier one; `data` is their data set, if
    any; `left_out` names files of the source that are no samples; `oddities` is as in `Opened`.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    hash: str
    batches: Callable[[], Batches]
    files: tuple[str, ...] | None = None
    data: Dataset | None = None
    copies: int = 0
    oddities: Mapping[str, int] = field(default_factory=dict)
    classes: Classes | None = None
    left_out: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether these are images rather than vectors."""
        return len(self.shape) == 3

    def where(self, index: int) -> str:
        """The file of sample `index`, or its index."""
        if self.files is None:
            return f"sample {index} of {self.name}"
        return f"{Path(self.name) / self.files[index]}"

    def relabelled(self, labels: Labels) -> SampleSource:
        """The same samples with other labels (n,)."""

        def batches() -> Batches:
            start = 0
            for x, _ in self.batches():
                yield x, torch.from_numpy(labels[start : start + len(x)])
                start += len(x)

        return replace(self, batches=batches)


def names_dataset(text: str) -> bool:
    """Whether this is a data set's name, with or without a split, such as 'digits:train'."""
    name, mark, split = text.partition(":")
    return has_dataset(name) and (not mark or split in SPLITS)


def check_exists(text: str) -> str:
    """UserError unless there is such a file, folder or data set; a warning if there are two."""
    if names_dataset(text):
        if not Path(text).exists():
            return ""
        return f"{text!r} is taken for the data set; write ./{text} for the file or folder here."
    path, _ = split_section(text)
    if not path.exists():
        name, mark, split = text.partition(":")
        known = ""
        if mark and has_dataset(name):
            known = f" Splits of {name} are {' and '.join(SPLITS)}, not {split!r}."
        elif not path.suffix and len(path.parts) == 1:
            known = " Prepared and built-in data sets: bench list datasets."
        raise UserError(f"There is no file, folder or data set {text!r}.{known}", code=2)
    return ""


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
    names = tuple(data.class_names)
    classes = Classes(
        split.labels[torch.from_numpy(rows)].numpy(),
        names if len(names) == data.spec.num_classes else (),
    )
    return SampleSource(name, len(rows), shape, content, batches, data=data, classes=classes)


def file_source(
    path: Path,
    most: int | None = None,
    *,
    labels: Path | None = None,
    channels: int | None = None,
    orient: bool = True,
    count: Count = lambda _done, _total: None,
) -> SampleSource:
    """At most `most` samples in a folder, ZIP or npz; reads all once, so that damage is found.

    `labels` is a file with one class per sample (`read_labels`) that replaces those of the files;
    `channels` 3 turns grey images into colour ones; `orient` turns images as their EXIF data say;
    `count` receives the number of samples read.
    """
    opened = open_samples(path, channels=channels)
    classes = opened.classes
    if labels is not None:
        classes = Classes(read_labels(labels, opened.n, opened.names))
    chosen = draw(opened.n, most)
    n = opened.n if chosen is None else len(chosen)
    if n < 2:
        raise UserError(f"{path} has 1 sample; a comparison needs at least 2.")
    known = np.zeros(opened.n, np.int64) if classes is None else classes.labels
    every = torch.from_numpy(known)
    shape: tuple[int, ...] = ()
    found_odd: list[Mapping[str, int]] = []

    def batches() -> Batches:
        # Whether all images are grey is determined only once.
        depth = shape[0] if len(shape) == 3 else channels
        start = 0
        again = open_samples(path, channels=depth, orient=orient)
        for x, _ in again.batches:
            stop = start + len(x)
            found = every[start:stop]
            if chosen is not None:
                some = torch.from_numpy(chosen[(chosen >= start) & (chosen < stop)] - start)
                x, found = x[some], found[some]
            start = stop
            if len(x):
                yield x, found
        found_odd.append(again.oddities)

    digest, done = hashlib.sha256(), 0
    different: set[bytes] = set()
    for x, _ in batches():
        if not shape:
            shape = tuple(x.shape[1:])
            digest.update(f"{(n, *shape)} {x.dtype}".encode())
        digest.update(x.contiguous().numpy().data)
        different.update(hashlib.sha256(one.tobytes()).digest() for one in x.numpy())
        done += len(x)
        count(done, n)
    names = opened.names
    if chosen is not None:
        known = known[chosen]
        names = None if names is None else [names[index] for index in chosen]
    digest.update(known.data)
    return SampleSource(
        plain(str(path)), n, shape, digest.hexdigest(), batches,
        files=None if names is None else tuple(map(plain, names)),
        copies=n - len(different),
        oddities=dict(found_odd[0]),
        classes=None if classes is None else replace(classes, labels=known),
        left_out=opened.left_out,
    )  # fmt: skip


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
