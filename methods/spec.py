"""What a method knows about its data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """A mixture of isotropic Gaussian modes per class: the exact density of the toy data.

    `means[k]` holds the centres of the modes of class k in data space. All classes are equally
    likely, as are all modes of a class. Every mode has standard deviation `std`.
    """

    means: tuple[tuple[tuple[float, ...], ...], ...]
    std: float


@dataclass(frozen=True)
class DataSpec:
    """Shape and classes of a data set, without its content.

    `shape` is (D,) for vectors and (C, H, W) for images. Vectors are modelled in their own units,
    images in [-1, 1].
    """

    name: str
    shape: tuple[int, ...]
    num_classes: int
    mixture: Mixture | None = None

    @property
    def is_image(self) -> bool:
        """Whether samples are images (three dimensions) rather than vectors."""
        return len(self.shape) == 3
