"""The samples that are compared: files, or a data set by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.data.find import find_dataset, has_dataset
from bench.data.labels import Classes, Labels, read_labels, whole_numbers
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


def names_dataset(given: str | SampleSource) -> TypeGuard[str]:
    """Whether this is a data set's name, with or without a split, such as 'digits:train'."""
    if not isinstance(given, str):
        return False
    name, mark, split = given.partition(":")
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
    data = find_dataset(name).images
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

    content = _Content(n)
    for x, _ in batches():
        shape = shape or tuple(x.shape[1:])
        content.update(x)
        count(content.done, n)
    names = opened.names
    if chosen is not None:
        known = known[chosen]
        names = None if names is None else [names[index] for index in chosen]
    return SampleSource(
        plain(str(path)), n, shape, content.hash(known), batches,
        files=None if names is None else tuple(map(plain, names)),
        copies=content.copies,
        oddities=dict(found_odd[0]),
        classes=None if classes is None else replace(classes, labels=known),
        left_out=opened.left_out,
    )  # fmt: skip


class _Content:
    """The hash of `n` samples that come in batches, and how many equal an earlier one."""

    def __init__(self, n: int) -> None:
        self.n, self.done = n, 0
        self._digest = hashlib.sha256()
        self._different: set[bytes] = set()

    def update(self, x: Tensor) -> None:
        if self.done == 0:
            self._digest.update(f"{(self.n, *x.shape[1:])} {x.dtype}".encode())
        self._digest.update(x.contiguous().numpy().data)
        self._different.update(hashlib.sha256(one.tobytes()).digest() for one in x.numpy())
        self.done += len(x)

    @property
    def copies(self) -> int:
        return self.n - len(self._different)

    def hash(self, labels: Labels) -> str:
        self._digest.update(labels.data)
        return self._digest.hexdigest()


def array_source(
    name: str, samples: npt.NDArray[Any] | Tensor, labels: object = None
) -> SampleSource:
    """Samples in memory: uint8 (n, H, W), (n, H, W, C) or (n, C, H, W), or vectors float (n, D).

    `labels` (n,) are whole numbers from 0, if the samples have classes.
    """
    x = _as_samples(name, samples)
    n = len(x)
    classes = None
    if labels is not None:
        try:
            classes = Classes(whole_numbers(np.asarray(labels), n))
        except ValueError as error:
            raise UserError(f"The labels of the {name} are {error}.", code=2) from None
    known = np.zeros(n, np.int64) if classes is None else classes.labels

    def batches() -> Batches:
        for start in range(0, n, BATCH):
            stop = start + BATCH
            yield x[start:stop], torch.from_numpy(known[start:stop])

    content = _Content(n)
    for batch, _ in batches():
        content.update(batch)
    return SampleSource(
        name, n, tuple(x.shape[1:]), content.hash(known), batches, copies=content.copies,
        classes=classes,
    )  # fmt: skip


def _as_samples(name: str, given: npt.NDArray[Any] | Tensor) -> Tensor:
    """Images uint8 (n, C, H, W) or vectors float32 (n, D); UserError for anything else."""
    x = torch.as_tensor(given).detach().cpu()
    if len(x) < 2:
        raise UserError(f"The {name} need at least 2 samples, got {len(x)}.", code=2)
    if x.ndim == 2 and x.is_floating_point():
        return x.to(torch.float32)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"The {name} have the shape {tuple(given.shape)}: give images (n, H, W), "
            "(n, H, W, C) or (n, C, H, W) with C = 1 or 3, or vectors (n, D) of floats.",
            code=2,
        )
    if x.dtype != torch.uint8:
        low, high = float(x.min()), float(x.max())
        raise UserError(
            f"The {name} are {given.dtype} from {low:.3g} to {high:.3g}, and images are uint8 from "
            "0 to 255: bench.data.convert.from_model converts a tensor (n, C, H, W) in [-1, 1].",
            code=2,
        )
    # With one channel, other strides count as contiguous too; convolutions round differently then.
    return x.reshape(-1).view(x.shape)


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
