"""What extractors of images share: their inputs, resizing, and arithmetic that does not vary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

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


def chunk_size(device: torch.device, cpu: int, gpu: int = 64) -> int:
    """Images at a time: on a CPU as many as its caches like, on a GPU enough to keep it busy."""
    return cpu if device.type == "cpu" else gpu


def in_chunks(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """Features of all images, `size` at a time, on the CPU."""
    return torch.cat([network(part).cpu() for part in torch.split(images, size)])


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """No TensorFloat-32 on a GPU, which would move features by 1e-3, and no choice by timing."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def tf1_resize(images: Tensor, side: int) -> Tensor:
    """Float (B, C, H, W) -> (B, C, side, side), TensorFlow 1's bilinear as torch-fidelity has it.

    There is no antialiasing, and no half-pixel shift.
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
    """Float (B, 3, H, W) in [0, 255] -> (x / 255 - mean) / std, channel by channel."""
    shift = images.new_tensor(mean)[:, None, None]
    return (images / 255 - shift) / images.new_tensor(std)[:, None, None]
