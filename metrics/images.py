"""Metrics of the images themselves, for plugins too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from metrics.base import Domain, Metric, Need, PixelStats, SampleSet

Images = npt.NDArray[np.uint8]
"""uint8 (n, C, H, W): values 0 to 255, C is 1 (grey) or 3 (RGB), in the order of the samples."""


@dataclass(frozen=True)
class ImagePixels(PixelStats):
    """The pixel statistics of a set, and the images that they are of."""

    read: Callable[[], Images]

    @cached_property
    def images(self) -> Images:
        """The images, read when they are first used."""
        found = self.read()
        found.setflags(write=False)
        return found


def with_images(statistics: PixelStats, read: Callable[[], Images]) -> ImagePixels:
    """The statistics of a set, with what reads its images."""
    s = statistics
    return ImagePixels(s.at_ends, s.contrast, s.chroma, read)


def images(samples: SampleSet) -> Images:
    """The images of a set, uint8 (n, C, H, W), read-only; ValueError if it does not hold them."""
    if not isinstance(samples.pixels, ImagePixels):
        raise ValueError("the sample set does not hold images: derive the metric from ImageMetric")
    return samples.pixels.images


class ImageMetric(Metric):
    """A metric that is computed from `images(real)` and `images(fake)`, once per set.

    Both sets are in memory while such a metric is computed: n C H W bytes each. A metric that does
    not use the real images sets `real_needs` to an empty set. The sizes of both sets are equal in a
    sweep, and need not be in an evaluation of other images.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pixels"})
    domain: ClassVar[Domain] = "image"
    uses_extractor: ClassVar[bool] = False
