"""The border between files and models: uint8 and [-1, 1], indices and one-hot labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def to_model(samples: Tensor) -> Tensor:
    """uint8 (N, C, H, W) => float32 in [-1, 1], x / 127.5 - 1; vectors pass unchanged."""
    if samples.dtype == torch.uint8:
        return samples.to(torch.float32) / 127.5 - 1.0
    return samples


def from_model(x: Tensor) -> Tensor:
    """Float (N, C, H, W) => uint8, clipped and rounded; vectors (N, D) => float32.

    Adding 128 before truncation rounds to the nearest level, so that all 256 levels survive a
    round trip. The arithmetic is float32 because bfloat16 cannot represent all levels.
    """
    if x.ndim == 4:
        return (x.to(torch.float32) * 127.5 + 128.0).clamp(0, 255).to(torch.uint8)
    return x.to(torch.float32)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """int64 (N,) => float32 (N, K); never the null label, which is the zero vector."""
    return F.one_hot(labels, num_classes).to(torch.float32)


def sampling_labels(
    indices: Tensor, num_classes: int, classes: Sequence[int] | None = None
) -> Tensor:
    """Classes of sample indices: balanced over `classes` or all, a function of the index only."""
    chosen = torch.arange(num_classes) if classes is None else torch.tensor(classes)
    return chosen[indices % len(chosen)]
