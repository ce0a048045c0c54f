"""Shared by the consistency methods: training noise levels, the smaller level r(t), the loss.

Sources: Song & Dhariwal (2023, iCT), Geng et al. (2024, ECT), Hsu, Kao, Balestriero (2025, iGCT).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from methods.base import Progress


def training_sigma(n: Tensor, p_mean: float, p_std: float, sigma_max: float) -> Tensor:
    """Lognormal noise levels exp(p_mean + p_std n), at most sigma_max, for standard normal n."""
    return torch.exp(p_mean + p_std * n).clamp(max=sigma_max)


def smaller_sigma(t: Tensor, exponent: float, q: float, k: float, b: float) -> Tensor:
    """r(t) = max(0, t [1 - q^-exponent (1 + k sigmoid(-b t))]), below t (ECT and iGCT).

    Stage s has exponent s in iGCT, so that its stage 0 is plain denoising (r = 0), and s + 1 in
    ECT.
    """
    ratio: Tensor = 1.0 - q**-exponent * (1.0 + k * torch.sigmoid(-b * t))
    return (t * ratio).clamp(min=0.0)


def stage_at(progress: Progress, first: int, last: int, steps: int | None = None) -> int:
    """The stage, first..last. Each lasts `steps` steps, and the last one until training ends.

    With `steps` None, all stages are equally long.
    """
    count = last - first + 1
    stage = int(progress.fraction * count) if steps is None else progress.step // steps
    return first + min(stage, count - 1)


def pseudo_huber(delta: Tensor, c: float) -> Tensor:
    """sqrt(||delta||^2 + c^2) - c per sample: (B, ...) => (B,).

    With c = 0 this is the plain norm, and its gradient at 0 is defined as 0.
    """
    squared = delta.flatten(1).square().sum(1)
    if c == 0:
        zero = squared == 0
        root = torch.where(zero, torch.ones_like(squared), squared).sqrt()
        return torch.where(zero, squared, root)
    return (squared + c**2).sqrt() - c


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) => (B, 1, ..., 1), to broadcast over the samples of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def consistency_target(denoise: Callable[[], Tensor], r: Tensor, clean: Tensor) -> Tensor:
    """(B, ...) `denoise()` at the smaller levels r (B,) without gradient, or `clean` where r = 0.

    The network is not evaluated if all r are 0, as in stage 0.
    """
    noisy = r > 0
    if not bool(noisy.any()):
        return clean
    with torch.no_grad():
        return torch.where(per_sample(noisy, clean), denoise(), clean)
