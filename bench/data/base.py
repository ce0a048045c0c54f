"""The base of data sets (two splits with labels and a hash, class names) and their registry."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from bench.data.decoder import DecoderSource
from bench.data.rows import FileRows
from bench.system.errors import check_whole
from methods.spec import DataSpec

HASHED_AT_ONCE = 4096


@dataclass(frozen=True)
class Split:
    """Samples uint8 (N, C, H, W) for images or float32 (N, D) for vectors; labels int64 (N,)."""

    samples: Tensor | FileRows
    """Both types return tensors for slices and index tensors."""
    labels: Tensor
    known_hash: str = ""
    """`hash` of a split that is too large to be hashed at every start."""
    latent: bool = False
    """Whether the samples are latents float32 (N, c, h, w)."""

    def __post_init__(self) -> None:
        pixels = self.samples.ndim == 4 and not self.latent
        expected = torch.uint8 if pixels else torch.float32
        if self.samples.dtype != expected:
            raise ValueError(f"samples must be {expected}, got {self.samples.dtype}")
        if len(self.samples) != len(self.labels):
            raise ValueError(f"{len(self.samples)} samples with {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Split:
        """Samples [start, stop), without copying or reading."""
        samples = self.samples
        own = samples[start:stop] if isinstance(samples, Tensor) else samples.part(start, stop)
        return Split(own, self.labels[start:stop], latent=self.latent)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over shape, dtype, samples and labels."""
        if self.known_hash:
            return self.known_hash
        digest = hashlib.sha256(f"{tuple(self.samples.shape)} {self.samples.dtype}".encode())
        for start in range(0, len(self), HASHED_AT_ONCE):  # a file may exceed memory
            digest.update(self.samples[start : start + HASHED_AT_ONCE].contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


class Dataset(ABC):
    """A data set by name. Methods use `train`, metrics compare with `reference`.

    The two are disjoint. Trained extractors are trained on `train`.
    """

    name: str
    summary: str
    class_names: tuple[str, ...]
    extractors: tuple[str, ...]
    default_samples: int
    reference_split: str = "reference"
    """The name in rows of the split that metrics compare with."""

    decoder: DecoderSource | None = None
    """What makes images of the training samples, if these are latents."""

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """Shape and classes of the samples that metrics compare."""

    @property
    def space(self) -> DataSpec:
        """Shape and classes of the training samples: `spec`, unless these are latents."""
        return self.spec

    @property
    def images(self) -> Dataset:
        """The data set whose samples metrics and trained extractors get: this one.

        For a data set of latents it is that of their images.
        """
        return self

    statistics: Path | None = None
    """A statistics file that stands for the reference."""

    @property
    @abstractmethod
    def train(self) -> Split:
        """The samples that methods are trained on."""

    @property
    @abstractmethod
    def reference(self) -> Split:
        """The samples that generated samples are compared with."""


DATASETS: dict[str, type[Dataset]] = {}
D = TypeVar("D", bound=type[Dataset])


def register(cls: D) -> D:
    """Class decorator that registers a data set by its `name`.

    ValueError if that is taken; TypeError if the class is incomplete.
    """
    check_whole("data set", cls)
    taken = DATASETS.setdefault(cls.name, cls)
    # Reloading a module registers the same class again.
    if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"a data set named {cls.name!r} is already registered by {taken.__module__}"
        )
    DATASETS[cls.name] = cls
    return cls
