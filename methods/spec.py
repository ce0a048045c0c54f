"""What a method is told about the data it models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussian modes of every class: the exact density of the toy data.

    `means[k]` holds the modes of class k, each a point in data space; the modes of a class are
    equally likely, all classes are equally likely, and every mode has standard deviation `std`.
    """

    means: tuple[tuple[tuple[float, ...], ...], ...]
    std: float


@dataclass(frozen=True)
class DataSpec:
    """Shape and classes of a data set, without its content.

    `shape` is (D,) for vectors, which are modelled in their own units, and (C, H, W) for images,
    which are modelled in [-1, 1].
    """

    name: str
    shape: tuple[int, ...]
    num_classes: int
    mixture: Mixture | None = None

    @property
    def is_image(self) -> bool:
        """Whether samples are images (three dimensions) and not vectors."""
        return len(self.shape) == 3
