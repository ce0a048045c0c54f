"""The losses of invertible guided consistency training. All random draws are arguments.

Source: Hsu, Kao, Balestriero, "Beyond and Free from Diffusion: Invertible Guided Consistency
Training" (arXiv 2502.05391), sections 3 and 4. All three losses use the training form of both
networks. `w` is always g - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.consistency import consistency_target, per_sample, pseudo_huber

DenoiseLW = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,), labels (B, K), w (B,)) -> denoised (B, ...)."""
NoiseL = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,), labels (B, K)) -> latent (B, ...)."""


@dataclass(frozen=True)
class GuidedDraws:
    """The draws of one guided loss: t, r, w (B,), `guided` (B,) bool, eps (B, ...)."""

    t: Tensor
    r: Tensor
    w: Tensor
    guided: Tensor
    eps: Tensor


def guided_probability(
    t: Tensor, window: tuple[float, float], power: float, p_max: float
) -> Tensor:
    """Probability of guidance at level t: p_max clamp((t - lo) / (hi - lo), 0, 1)^power."""
    low, high = window
    return p_max * ((t - low) / (high - low)).clamp(0.0, 1.0) ** power


def guided_consistency_loss(
    denoise: DenoiseLW, x0: Tensor, labels: Tensor, decoupled: Tensor, draws: GuidedDraws, c: float
) -> Tensor:
    """The loss (B,) of the denoiser; section 3.

    Guided rows start from an independent image y_d and take one Euler step along
    (1 + w) eps_c - w eps_null with eps_null = eps and eps_c = (x_t - y_c) / t. This differs from
    the unguided step by (r - t)(1 + w)(y_d - y_c) / t. Where r = 0 the target is the clean image.
    """
    t, r, w = (per_sample(v, x0) for v in (draws.t, draws.r, draws.w))
    guided = per_sample(draws.guided, x0)
    y = torch.where(guided, decoupled, x0)
    x_t = y + t * draws.eps
    x_r = y + r * draws.eps + (r - t) * (1.0 + w) * (y - x0) / t
    target = consistency_target(lambda: denoise(x_r, draws.r, labels, draws.w), draws.r, y)
    delta = denoise(x_t, draws.t, labels, draws.w) - target
    return pseudo_huber(delta, c) / (draws.t - draws.r)


def inverse_consistency_loss(
    noise: NoiseL,
    x0: Tensor,
    labels: Tensor,
    a: Tensor,
    b: Tensor,
    eps: Tensor,
    c: float,
    weight: float,
) -> Tensor:
    """The loss (B,) of the noiser between levels a < b; the noisier sample is the target.

    It is multiplied by b - a and by `weight`, which is sigma_data / sigma_max. With a uniform
    weight the latent diverges.
    """
    x_a = x0 + per_sample(a, x0) * eps
    x_b = x0 + per_sample(b, x0) * eps
    with torch.no_grad():
        target = noise(x_b, b, labels)
    return pseudo_huber(noise(x_a, a, labels) - target, c) * weight * (b - a)


def reconstruction_loss(
    denoise: DenoiseLW,
    noise: NoiseL,
    x0: Tensor,
    labels: Tensor,
    eps: Tensor,
    c: float,
    sigma_min: float,
    sigma_max: float,
) -> Tensor:
    """The unweighted loss (B,) of a round trip through both networks at w = 0."""
    low = x0.new_full((len(x0),), sigma_min)
    high = x0.new_full((len(x0),), sigma_max)
    start = x0 + sigma_min * eps
    latent = noise(start, low, labels)
    back = denoise(latent, high, labels, torch.zeros_like(low))
    return pseudo_huber(back - start, c)
