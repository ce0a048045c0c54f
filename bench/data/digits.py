"""scikit-learn's 1,797 scans of handwritten digits, 8 x 8, which ship inside its wheel."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from bench.data.base import Dataset, Split, register
from methods.rng import derive_seed
from methods.spec import DataSpec


@register
class Digits(Dataset):
    """Grey images (1, 8, 8) of 17 levels, spread over 0..255; a fixed half is the reference."""

    name = "digits"
    summary = "1,797 scans of handwritten digits, 8x8 grey, 10 classes (scikit-learn)"
    class_names = tuple("0123456789")
    extractors = ("classifier",)
    default_samples = 898

    @property
    def spec(self) -> DataSpec:
        """Images (1, 8, 8), ten classes."""
        return DataSpec(self.name, (1, 8, 8), 10)

    @property
    def train(self) -> Split:
        """899 images."""
        return self._splits[0]

    @property
    def reference(self) -> Split:
        """The other 898 images."""
        return self._splits[1]

    @cached_property
    def _splits(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_digits

        scans = load_digits()
        images = np.rint(scans.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = scans.target.astype(np.int64)
        rng = np.random.Generator(np.random.Philox(key=derive_seed(self.name, "split")))
        order = rng.permutation(len(labels))
        halves = np.array_split(order, 2)
        first, second = (
            Split(torch.from_numpy(images[h]), torch.from_numpy(labels[h])) for h in halves
        )
        return first, second
