"""Toy data with an exactly known density: Gaussian modes per class, in one and two dimensions.

The one-dimensional set is the toy of Hsu, Kao, Balestriero (2025), Fig. 3: two classes with modes
at +2 and -2.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from bench.data.base import Dataset, Split, register
from methods.rng import derive_seed
from methods.spec import DataSpec, Mixture

STD = 0.2
TRAIN_N = 20_000
REFERENCE_N = 4_000


class Modes(Dataset):
    """Samples of a mixture, balanced over classes, drawn once from a fixed seed."""

    extractors = ("identity",)
    default_samples = 2000
    mixture: ClassVar[Mixture]

    @property
    def spec(self) -> DataSpec:
        """Vectors (D,) with their exact density."""
        dim = len(self.mixture.means[0][0])
        return DataSpec(self.name, (dim,), len(self.mixture.means), self.mixture)

    @cached_property
    def train(self) -> Split:
        """20,000 samples."""
        return self._draw("train", TRAIN_N)

    @cached_property
    def reference(self) -> Split:
        """4,000 further samples."""
        return self._draw("reference", REFERENCE_N)

    def _draw(self, split: str, n: int) -> Split:
        rng = np.random.Generator(np.random.Philox(key=derive_seed(self.name, split)))
        labels = np.arange(n) % len(self.mixture.means)
        modes = [np.asarray(m, dtype=np.float64) for m in self.mixture.means]
        starts = np.cumsum([0, *(len(m) for m in modes[:-1])])
        chosen = rng.integers(np.array([len(m) for m in modes])[labels])
        centres = np.concatenate(modes)[starts[labels] + chosen]
        points = centres + self.mixture.std * rng.standard_normal(centres.shape)
        return Split(
            torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))
        )


@register
class Modes1d(Modes):
    """Two classes on a line, at +2 and -2."""

    name = "modes1d"
    summary = "2 classes on a line, modes at +2 and -2, std 0.2, density known"
    class_names = ("+2", "-2")
    mixture = Mixture(means=(((2.0,),), ((-2.0,),)), std=STD)


@register
class Modes2d(Modes):
    """Four classes in the plane, at (+-2, +-2)."""

    name = "modes2d"
    summary = "4 classes in the plane, modes at (+-2, +-2), std 0.2, density known"
    class_names = ("++", "+-", "-+", "--")
    mixture = Mixture(
        means=(((2.0, 2.0),), ((2.0, -2.0),), ((-2.0, 2.0),), ((-2.0, -2.0),)), std=STD
    )
