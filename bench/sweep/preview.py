"""The few samples in a row, so that figures need only rows."""

from __future__ import annotations

import base64
import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from bench.data import Dataset
from bench.data.samples.write import png_bytes
from bench.experiment.rows import Density, Images, Points, Preview

TILES = 10
POINTS = 400
THUMBNAIL = 64
"""Pixels of a side: a row holds its preview, and a page those of all rows."""
BINS = 240
REACH = 15.0  # of the histogram beyond the outermost mode, in standard deviations


def preview(samples: Tensor, labels: Tensor, data: Dataset) -> Preview | None:
    """A preview of final samples, uint8 (N, C, H, W) or float32 (N, D); None for other vectors."""
    if samples.ndim == 4:
        return _images(samples[:TILES], labels[:TILES], data.class_names)
    mixture = data.spec.mixture
    if mixture is None:
        return None
    if samples.shape[1] == 1:
        return _density(samples[:, 0], labels, mixture.means, mixture.std)
    if samples.shape[1] == 2:
        return _points(samples[:POINTS], labels[:POINTS], mixture.means, mixture.std)
    return None


def _images(samples: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> Images:
    strip = np.concatenate([_thumbnail(x) for x in samples.permute(0, 2, 3, 1).numpy()], axis=1)
    return Images(
        png=base64.b64encode(png_bytes(strip, optimize=True)).decode(),
        labels=tuple(labels.tolist()),
        class_names=class_names,
    )


def _thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image (H, W, C) of at most THUMBNAIL pixels a side, averaged if it is larger."""
    by = math.ceil(max(image.shape[:2]) / THUMBNAIL)
    if by == 1:
        return image
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).reduce(by)
    small = np.asarray(picture)
    return small[:, :, None] if small.ndim == 2 else small


Means = tuple[tuple[tuple[float, ...], ...], ...]


def _density(x: Tensor, labels: Tensor, means: Means, std: float) -> Density:
    modes = [point[0] for points in means for point in points]
    low, high = min(modes) - REACH * std, max(modes) + REACH * std
    edges = np.linspace(low, high, BINS + 1)
    inside = x.double().clamp(low, high).numpy()
    counts = [
        np.histogram(inside[labels.numpy() == k], edges)[0].tolist() for k in range(len(means))
    ]
    return Density(
        edges=tuple(round(float(e), 9) for e in edges),
        counts=tuple(tuple(c) for c in counts),
        means=tuple(tuple(point[0] for point in points) for points in means),
        std=std,
    )


def _points(xy: Tensor, labels: Tensor, means: Means, std: float) -> Points:
    return Points(
        xy=tuple((round(x, 4), round(y, 4)) for x, y in xy.tolist()),
        labels=tuple(labels.tolist()),
        means=tuple(tuple((p[0], p[1]) for p in points) for points in means),
        std=std,
    )
