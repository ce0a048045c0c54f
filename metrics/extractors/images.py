"""Shared by extractors of images: input checks, chunks, exact arithmetic and resizing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.base import Extracted, Extractor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def colour(samples: Tensor, extractor: str) -> Tensor:
    """uint8 (B, 3 or 1, H, W) -> uint8 (B, 3, H, W); ValueError on another dtype or shape."""
    if samples.dtype != torch.uint8 or samples.ndim != 4 or samples.shape[1] not in (1, 3):
        raise ValueError(
            f"extractor {extractor} takes uint8 images (B, 3 or 1, H, W), got "
            f"{samples.dtype} {tuple(samples.shape)}"
        )
    return samples.expand(-1, 3, -1, -1)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """No TensorFloat-32, which changes features by 1e-3, and no choice of algorithms by timing."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class ChunkedExtractor(Extractor):
    """Computes features of images in chunks on `device`.

    A CPU is fastest with `cpu_chunk` images, which fit into its cache; a GPU with `gpu_chunk`.
    """

    device: torch.device
    cpu_chunk: ClassVar[int] = 8
    gpu_chunk: ClassVar[int] = 64

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        images = colour(samples, self.name)
        size = self.cpu_chunk if self.device.type == "cpu" else self.gpu_chunk
        with exact_arithmetic():
            parts = [self._features(part).cpu() for part in torch.split(images, size)]
            features = torch.cat(parts)
            return Extracted(features, self._logits(features))

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> features (B, D)."""

    def _logits(self, features: Tensor) -> Tensor | None:
        """Logits (B, K) on the CPU from all features (B, D), None if there are none."""
        return None


def tf1_resize(images: Tensor, side: int) -> Tensor:
    """Float (B, C, H, W) -> (B, C, side, side), bilinear as in TensorFlow 1, by torch-fidelity.

    It has no antialiasing and no half-pixel shift.
    """
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(side, side), align_corners=False
    )
    return resized


def bicubic_resize(images: Tensor, side: int) -> Tensor:
    """Float (B, C, H, W) -> (B, C, side, side), antialiased bicubic, neither clipped nor rounded.

    Keys' kernel with a = -1/2, as in PIL and jax.image.
    """
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Float (B, 3, H, W) in [0, 255] -> (x / 255 - mean) / std, per channel."""
    shift = images.new_tensor(mean)[:, None, None]
    return (images / 255 - shift) / images.new_tensor(std)[:, None, None]
