"""Clipped values, contrast and colour: effects of strong guidance on the pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from metrics.about import About
from metrics.base import Array, Estimate, Metric, PixelStats, SampleSet
from metrics.errors import jackknife_groups, mean_estimate
from metrics.registry import register


class PixelAccumulator:
    """Clipped values, RMS contrast and chroma of each image in a stream of uint8 images."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []

    def update(self, images: Tensor) -> None:
        """Add a batch (B, C, H, W) uint8; ValueError on another shape or dtype."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"expected uint8 images (B, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if images.numel() == 0:
            return
        images = images.cpu()
        values = images.flatten(1)
        size = values.shape[1]
        at_ends = ((values == 0) | (values == 255)).sum(1).double() / size
        # Integer sums are exact, so an image's values do not depend on its batch.
        whole = values.long()
        spread = size * whole.square().sum(1) - whole.sum(1).square()
        contrast = spread.double().sqrt() / (255 * size)
        span = images.amax(1) - images.amin(1)
        chroma = span.flatten(1).long().sum(1).double() / (255 * span[0].numel())
        self._seen.append(torch.stack([at_ends, contrast, chroma]))

    def finish(self) -> PixelStats:
        """Statistics of all images, read-only; ValueError if there are none."""
        if not self._seen:
            raise ValueError("there are no images")
        parts: list[Array] = [row.numpy().copy() for row in torch.cat(self._seen, dim=1)]
        for part in parts:
            part.setflags(write=False)
        return PixelStats(*parts)


def _pixels(samples: SampleSet) -> PixelStats:
    if samples.pixels is None:
        raise ValueError("the sample set has no pixel statistics: accumulate with need 'pixels'")
    return samples.pixels


class _Pixels(Metric):
    """A mean over images, with the error of a mean, conditional on the reference set."""

    direction = "none"
    needs = frozenset({"pixels"})
    domain = "image"
    uses_extractor = False
    minimum_n = 1


class _Ratio(_Pixels):
    """The mean of a statistic divided by that of real images; refuses a real mean of 0."""

    statistic: ClassVar[Literal["contrast", "chroma"]]
    what: ClassVar[str]

    def _of(self, samples: SampleSet) -> Array:
        pixels = _pixels(samples)
        return pixels.contrast if self.statistic == "contrast" else pixels.chroma

    def refuses(self, *, real: SampleSet, extractor: str) -> str | None:
        """Also refuses real images without contrast, or without colour."""
        reason = super().refuses(real=real, extractor=extractor)
        if reason is None and float(self._of(real).mean()) == 0.0:
            return f"{self.name} needs real images with {self.what}, and these have none"
        return reason

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Return the ratio; ValueError if the mean of the real images is 0."""
        reference = float(self._of(real).mean())
        if reference == 0.0:
            raise ValueError(f"the real images have no {self.what} to compare with")
        return mean_estimate(self._of(fake), jackknife_groups(fake.labels), unit=reference)


@register
class Saturation(_Pixels):
    """Share of values at 0 or 255 in the generated images, in [0, 1].

    Compare it with the value of real images: black borders, for example, count as clipped values.
    """

    name = "saturation"
    label = "Saturation"
    summary = "share of pixel values at 0 or 255"
    about = About(order=150, standing="shown", low=0.0, high=1.0, error_of="generated")
    real_needs = frozenset()

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Return the share in the generated set; the real set is not used."""
        return mean_estimate(_pixels(fake).at_ends, jackknife_groups(fake.labels))


@register
class ContrastRatio(_Ratio):
    """RMS contrast of generated over that of real images, >= 0; 1 = like the data.

    RMS contrast is the standard deviation of an image's values (Peli 1990, eq. 4), over all
    channels, averaged over images.
    """

    name = "contrast_ratio"
    label = "Contrast ratio"
    summary = "RMS contrast of generated images over that of real ones, 1 = like the data"
    about = About(order=160, standing="shown", low=0.0)
    statistic, what = "contrast", "contrast"


@register
class ChromaRatio(_Ratio):
    """Chroma of generated over that of real images: 1 = like the data, above 1 = oversaturated.

    Chroma is that of the HSV model (Smith 1978): the largest minus the smallest channel of a pixel,
    averaged over pixels and images. Unlike HSV's saturation it is not noisy in dark pixels.
    """

    name = "chroma_ratio"
    label = "Colour saturation ratio"
    summary = "chroma of generated images over that of real ones, 1 = like the data"
    about = About(order=170, standing="shown", low=0.0)
    statistic, what = "chroma", "colour"
    default = False
