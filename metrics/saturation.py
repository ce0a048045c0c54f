"""Clipped values and contrast: what strong guidance does to images before any feature sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.base import Metric, PixelStats, SampleSet
from metrics.registry import register


class PixelAccumulator:
    """Share of clipped values and mean RMS contrast of a stream of uint8 images."""

    def __init__(self) -> None:
        self._images = 0
        self._values = 0
        self._at_ends = 0
        self._contrast = 0.0

    def update(self, images: Tensor) -> None:
        """Add a batch (B, C, H, W) uint8; ValueError on another shape or dtype."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"expected uint8 images (B, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if images.numel() == 0:
            return
        values = images.flatten(1).cpu()
        self._images += len(values)
        self._values += values.numel()
        self._at_ends += int(((values == 0) | (values == 255)).sum())
        # Integer sums are exact, so an image's contrast does not depend on its batch.
        whole = values.long()
        size = values.shape[1]
        spread = size * whole.square().sum(1) - whole.sum(1).square()
        self._contrast += float((spread.double().sqrt() / (255 * size)).sum())

    def finish(self) -> PixelStats:
        """Statistics of everything seen; ValueError if nothing was."""
        if self._images == 0:
            raise ValueError("no images were seen")
        return PixelStats(
            at_ends=self._at_ends / self._values, rms_contrast=self._contrast / self._images
        )


def _pixels(samples: SampleSet) -> PixelStats:
    if samples.pixels is None:
        raise ValueError("the sample set has no pixel statistics: accumulate with need 'pixels'")
    return samples.pixels


@register
class Saturation(Metric):
    """Share of values at 0 or 255 in the generated images, in [0, 1].

    What is normal depends on the data (black borders are clipped values too): compare with the
    value of real images.
    """

    name = "saturation"
    label = "Saturation"
    summary = "share of pixel values at 0 or 255"
    direction = "none"
    needs = frozenset({"pixels"})
    domain = "image"
    uses_extractor = False
    minimum_n = 1

    def compute(
        self,
        *,
        real: SampleSet,
        fake: SampleSet,
        extractor: str,
    ) -> float:
        """Return the share in the generated set; the real set is not used."""
        return _pixels(fake).at_ends


@register
class ContrastRatio(Metric):
    """RMS contrast of generated over that of real images: 1 is like the data, >= 0.

    RMS contrast is the standard deviation of an image's values (Peli 1990, eq. 4), over all
    channels, averaged over images.
    """

    name = "contrast_ratio"
    label = "Contrast ratio"
    summary = "RMS contrast of generated images over that of real ones, 1 = like the data"
    direction = "none"
    needs = frozenset({"pixels"})
    domain = "image"
    uses_extractor = False
    minimum_n = 1

    def compute(
        self,
        *,
        real: SampleSet,
        fake: SampleSet,
        extractor: str,
    ) -> float:
        """Return the ratio; ValueError if the real images are constant."""
        reference = _pixels(real).rms_contrast
        if reference == 0.0:
            raise ValueError("the real images have no contrast to compare with")
        return _pixels(fake).rms_contrast / reference
