"""Average velocities of a flow: their network, guided targets, and the loss weight.

Shared by `meanflow` and `alpha-flow`. Sources: Geng, Deng, Bai, Kolter, He (2025), "Mean Flows for
One-step Generative Modeling" (arXiv 2505.13447); Geng et al. (2025), "Improved Mean Flows" (arXiv
2512.02012), for the guidance scale and interval as inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from methods.consistency import per_sample
from methods.forward_mode import value_and_derivative
from methods.guidance_embedding import embed_guidance

T_FLOOR = 0.05
"""Lower bound of the divisor t of a network that predicts data; its error grows with 1 / t."""

MeanVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z (B, ...), r (B,), t (B,)) -> average velocity over [r, t], same shape as z."""


class MeanFlowNet(nn.Module):
    """The average velocity u(z; r, t, labels, g): the network's output F, or (z - F) / t.

    In the second form the network need not learn the factor 1 / t of a velocity: F at r = t is the
    denoised z, and F at (0, 1) is the one-step sample.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        scale: float,
        *,
        time_scale: float = 2.7,
        predicts_data: bool = False,
    ) -> None:
        super().__init__()
        self.model = net
        self.dim, self.scale, self.time_scale = dim, scale, time_scale
        self.predicts_data = predicts_data

    def forward(
        self,
        z: Tensor,
        r: Tensor,
        t: Tensor,
        labels: Tensor,
        g: Tensor,
        interval: Tensor | None = None,
    ) -> Tensor:
        """u, same shape as z (B, ...); r <= t in [0, 1] and g >= 1 are (B,); `labels` (B, K).

        `interval` (B, 2) are the times between which g acts, for networks that take them. u is
        smooth in z, r and t, because training differentiates with respect to them.
        """
        # Map t to the range of c_noise that the networks expect. We use a linear map, because
        # ln(sigma) is infinite at t = 1. Sampling starts there, and training rarely draws it.
        c_noise = self.time_scale * t - 1.6
        features = [
            embed_guidance(g - 1.0, self.dim, self.scale).to(z),
            interval_features(t - r, self.dim),
        ]
        if interval is not None:
            features.append(interval.to(z))
        out = cast(Tensor, self.model(z, c_noise, labels, torch.cat(features, dim=1)))
        if not self.predicts_data:
            return out
        return (z - out) / per_sample(t.clamp(min=T_FLOOR), out)


def interval_features(interval: Tensor, dim: int) -> Tensor:
    """[sin | cos] of t - r in [0, 1], (B,) => (B, dim), with periods from 4 down to 1/4.

    Shorter periods would make the derivative along the flow large.
    """
    periods = torch.logspace(2.0, -2.0, dim // 2, base=2.0).to(interval)
    angle = interval[:, None] * (2 * math.pi / periods)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def guided_velocity(
    v: Tensor, u_cond: Tensor, u_null: Tensor, g: Tensor, mixing: float = 1.0
) -> Tensor:
    """W v + (1 - w - k) u_null + k u_cond with k = mixing (1 - 1/g) and w = g (1 - k).

    This is a sample of the guided velocity. The network gives `u_cond` at (labels, g) and `u_null`
    at (null, 1), both at r = t; `g` is (B,). At the fixed point, where u_cond is the mean of this,
    u_cond = g E[v | labels] - (g - 1) u_null for any mixing, which is CFG. Mixing 1 is iMF's v +
    (1 - 1/g)(u_cond - u_null), mixing 0 is MeanFlow's g v + (1 - g) u_null (2505.13447).
    """
    k = per_sample(mixing * (1.0 - 1.0 / g), v)
    w = per_sample(g, v) * (1.0 - k)
    return w * v + (1.0 - w - k) * u_null + k * u_cond


def total_derivative(u: MeanVelocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """du/dt along dz/dt = v at fixed r, same shape as z, by forward-mode differentiation."""
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    return value_and_derivative(u, (z, r, t), tangents)[1]


def mean_target(
    u: MeanVelocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor, along: Tensor | None = None
) -> Tensor:
    """The target v - (t - r) du/dt, same shape as z, without gradient (2505.13447, eq. 6).

    `along` is the dz/dt of the derivative; None: `v`.
    """
    with torch.no_grad():
        derivative = total_derivative(u, z, r, t, v if along is None else along)
        return v - per_sample(t - r, v) * derivative


def adaptive(error: Tensor, power: float, floor: float) -> Tensor:
    """|error|^2 / (|error|^2 + floor)^power, (B, ...) => (B,), the weight under stop-gradient.

    Source: 2505.13447, eq. 22.
    """
    squared = error.square().flatten(1).sum(1)
    return squared / (squared.detach() + floor) ** power
