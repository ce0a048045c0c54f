"""Shared by extractors that are trained: their data, one thread, and how a store keeps weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from metrics.memo import Arrays, Store


class Rows(Protocol):
    """Samples (n, ...) that are indexed by row: a tensor, or a file that is read on demand."""

    @property
    def shape(self) -> torch.Size:
        """(n, ...)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of a value."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Tensor: ...


def training_set(
    images: Rows, labels: Tensor, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, int]:
    """At most `most` images and labels, drawn by `generator`, on the CPU; the number of classes.

    ValueError unless there are uint8 images (n, C, H, W), n > 0, with labels (n,) >= 0.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"expected uint8 images (n, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError("expected one label >= 0, of an integer dtype, for every image")
    classes = int(labels.max()) + 1
    if len(images) > most:
        # In ascending order, which is the fastest to read from a file.
        rows = torch.randperm(len(images), generator=generator)[:most].sort().values
        found, labels = images[rows], labels[rows]
    else:
        found = images[:]
    return found.detach().cpu().contiguous(), labels.detach().cpu().long(), classes


def check_shape(samples: Tensor, shape: Sequence[int], extractor: str) -> None:
    """ValueError unless samples are uint8 images (B, C, H, W) of the trained shape (C, H, W)."""
    if samples.dtype != torch.uint8 or tuple(samples.shape[1:]) != shape:
        raise ValueError(
            f"extractor {extractor} takes uint8 images (B, {', '.join(map(str, shape))}),"
            f" got {samples.dtype} {tuple(samples.shape)}"
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one CPU thread: the order of sums, and so trained weights, depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def training_key(about: list[object], images: Tensor, labels: Tensor) -> str:
    """SHA-256 of everything that weights depend on: a description, images and labels."""
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(images.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    return digest.hexdigest()


def stored_weights(
    store: Store | None, key: str, about: str, train: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The weights that `train` returns, perhaps in an earlier process with this key and `about`."""

    def compute() -> Arrays:
        return {name: tensor.detach().numpy() for name, tensor in train().items()}

    found = compute() if store is None else store("classifier", [key, about], compute)
    return {name: torch.from_numpy(array.copy()) for name, array in found.items()}
