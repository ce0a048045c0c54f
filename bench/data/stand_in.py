"""A substitute for a data set that is not on this machine: its shape, and random content."""

from __future__ import annotations

from functools import cached_property

import torch

from bench.data.base import Dataset, Split
from methods.spec import DataSpec


class RandomImages(Dataset):
    """Uniformly random images in the shape of a data set that is missing."""

    summary = "random images"
    class_names = ()
    extractors = ()
    default_samples = 0
    size = 64

    def __init__(self, spec: DataSpec) -> None:
        self.name, self._spec = spec.name, spec

    @property
    def spec(self) -> DataSpec:
        """The specification of the missing data set."""
        return self._spec

    @cached_property
    def train(self) -> Split:
        """64 images, uint8."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.size, *self._spec.shape)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.randint(self._spec.num_classes, (self.size,), generator=generator)
        return Split(images, labels)

    @property
    def reference(self) -> Split:
        """The same images as `train`."""
        return self.train
