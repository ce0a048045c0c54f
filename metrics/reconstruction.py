"""Quality of reconstructions per image, and per batch as in the code of the iGCT authors.

All except `mse` take uint8 images (N, C, H, W), sources and reconstructions in the same order, and
compute in float64 with a data range of 255. SSIM: Wang et al. (2004); values per batch: the
evaluation code of Hsu, Kao, Balestriero (arXiv 2502.05391).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RANGE = 255.0
WINDOW = 7
GAUSSIAN_WINDOW = 11
GAUSSIAN_SIGMA = 1.5
_C1, _C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2

Average = Callable[[Tensor], Tensor]
"""Local means of (N, C, ...) at every position where the whole window fits."""


def mse(source: Tensor, other: Tensor) -> Tensor:
    """Mean squared error of every image: floats in [-1, 1] (N, ...) -> (N,) float64."""
    _check_pair(source, other)
    return (source.double() - other.double()).square().flatten(1).mean(1)


def psnr(source: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every image in dB, (N,); infinite for equal images."""
    source, other = _images(source, other)
    return 10 * torch.log10(RANGE**2 / (source - other).square().flatten(1).mean(1))


def psnr_limit(shape: Sequence[int]) -> float:
    """The largest finite PSNR of uint8 images (C, H, W): one value differs by one level."""
    return 10 * math.log10(RANGE**2 * math.prod(shape))


def ssim(source: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of every image, (N,): 7x7 uniform window, mean over the channels.

    scikit-image's `structural_similarity(channel_axis=0, data_range=255)`: sample covariance,
    only positions where the whole window fits. ValueError for images smaller than the window.
    """
    source, other = _images(source, other)
    _check_window(source.shape[2:], WINDOW)
    return (
        _ssim(source, other, lambda x: F.avg_pool2d(x, WINDOW, stride=1), _unbiased(WINDOW**2))
        .flatten(1)
        .mean(1)
    )


def ssim_gaussian(source: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of every image, (N,), with the window of Wang et al. (2004).

    A Gaussian of standard deviation 1.5 over 11x11, population covariance, mean over the channels.
    ValueError for images smaller than the window.
    """
    source, other = _images(source, other)
    _check_window(source.shape[2:], GAUSSIAN_WINDOW)
    reach = torch.arange(GAUSSIAN_WINDOW, dtype=torch.float64) - GAUSSIAN_WINDOW // 2
    weights = torch.exp(-reach.square() / (2 * GAUSSIAN_SIGMA**2)).to(source.device)
    weights = weights / weights.sum()

    def average(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)[:, None]
        flat = F.conv2d(F.conv2d(flat, weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
        return flat.reshape(*x.shape[:2], *flat.shape[2:])

    return _ssim(source, other, average, 1.0).flatten(1).mean(1)


def psnr_batch(source: Tensor, other: Tensor, batch: int) -> list[float]:
    """The authors' PSNR in dB: that of the mean squared error of each batch of `batch` images.

    It is below the mean over images, since the worst images dominate. Infinite for equal batches.
    """
    source, other = _images(source, other)
    return [
        float(10 * torch.log10(RANGE**2 / (a - b).square().mean()))
        for a, b in _batches(source, other, batch)
    ]


def ssim_batch(source: Tensor, other: Tensor, batch: int) -> list[float]:
    """The authors' SSIM of every batch: a 7x7x7 window that also slides from image to image.

    scikit-image's `structural_similarity` of a whole (N, H, W, C) batch. Neighbours in the batch
    are unrelated, which inflates it. A last batch of fewer than 7 images is smaller than the window
    and is skipped; ValueError if no batch remains.
    """
    source, other = _images(source, other)
    _check_window(source.shape[2:], WINDOW)
    pairs = [(a, b) for a, b in _batches(source, other, batch) if len(a) >= WINDOW]
    if not pairs:
        raise ValueError(f"SSIM per batch needs at least {WINDOW} images, got {len(source)}")
    return [
        float(
            _ssim(
                # (N, C, H, W) -> (1, C, N, H, W): the batch becomes a third spatial axis.
                a.transpose(0, 1)[None],
                b.transpose(0, 1)[None],
                lambda x: F.avg_pool3d(x, WINDOW, stride=1),
                _unbiased(WINDOW**3),
            ).mean()
        )
        for a, b in pairs
    ]


def _batches(source: Tensor, other: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(source), batch):
        yield source[start : start + batch], other[start : start + batch]


def _ssim(x: Tensor, y: Tensor, average: Average, correction: float) -> Tensor:
    """Equation 13 of Wang et al. (2004) at every position of the window."""
    mean_x, mean_y = average(x), average(y)
    var_x = correction * (average(x * x) - mean_x * mean_x)
    var_y = correction * (average(y * y) - mean_y * mean_y)
    cov = correction * (average(x * y) - mean_x * mean_y)
    similar = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return similar / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))


def _unbiased(places: int) -> float:
    return places / (places - 1)


def _check_pair(source: Tensor, other: Tensor) -> None:
    if source.shape != other.shape or len(source) == 0:
        raise ValueError(
            f"expected equal shapes of at least one image, got {tuple(source.shape)} and "
            f"{tuple(other.shape)}"
        )


def _images(source: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    _check_pair(source, other)
    if source.dtype != torch.uint8 or other.dtype != torch.uint8 or source.ndim != 4:
        raise ValueError(
            f"expected uint8 images (N, C, H, W), got {source.dtype} and {other.dtype} "
            f"{tuple(source.shape)}"
        )
    return source.double(), other.double()


def _check_window(size: Sequence[int], window: int) -> None:
    if min(size) < window:
        raise ValueError(
            f"images of {'x'.join(map(str, size))} are smaller than its {window}x{window} window"
        )
