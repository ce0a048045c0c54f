"""Continuous-time consistency in TrigFlow's coordinates, for networks with EDM's preconditioning.

Source: Lu & Song (2024), "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models"
(sCM, arXiv 2410.11081). Time is the angle a = atan(sigma / sigma_data) and the state y = cos(a) x,
so that y = cos(a) x0 + sin(a) z with z = sigma_data eps. Their network F, the negative of EDM's,
has D = cos(a) y - sigma_data sin(a) F(y / sigma_data, a), which is EDM's denoiser unchanged.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Progress
from methods.consistency import per_sample
from methods.consistency_model import ConsistencyConfig
from methods.forward_mode import value_and_derivative
from methods.guidance import Denoise
from methods.rng import BatchRNG
from methods.settings import ascending


class TrigFlowConfig(ConsistencyConfig):
    """Adds the training noise levels and the terms of the tangent.

    The defaults are those of CIFAR-10 in FastGen's reproduction.
    """

    p_mean: float = Field(-1.0, description="mean of ln(sigma)")
    p_std: float = Field(1.4, gt=0, description="standard deviation of ln(sigma)")
    train_sigma: tuple[float, float] = Field(
        (0.002, 80.0), description="smallest and largest noise level of training"
    )
    tangent_warmup: float = Field(
        0.0, ge=0, le=1, description="share of training until the derivative has its full weight"
    )
    tangent_floor: float | None = Field(
        0.1,
        gt=0,
        description="c of the tangent G / (rms(G) + c); null: not normalised. With few values per "
        "sample the normalisation biases the result",
    )
    weight_power: float = Field(1.0, ge=0, description="losses are divided by sigma^weight_power")
    learned_weight: bool = Field(True, description="learn a further weight per noise level")

    @model_validator(mode="after")
    def _training_ordered(self) -> Self:
        low, high = self.train_sigma
        ascending("0 and train_sigma", 0, low)
        ascending("train_sigma", low, high)
        return self

    def levels(self, rng: BatchRNG) -> Tensor:
        """Lognormal noise levels (B,), clipped to `train_sigma`."""
        sigma: Tensor = torch.exp(self.p_mean + self.p_std * rng.randn())
        return sigma.clamp(*self.train_sigma)

    def warmed(self, progress: Progress) -> float:
        """The weight of the derivative in the tangent, rising from 0 to 1."""
        return min(1.0, progress.fraction / self.tangent_warmup) if self.tangent_warmup else 1.0


class LossWeight(nn.Module):
    """ln of the expected loss at a noise level, (B,) => (B,): linear in features of ln(sigma)."""

    freqs: Tensor

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        periods = torch.logspace(math.log10(11.0), math.log10(0.135), features // 2)
        self.register_buffer("freqs", 2 * math.pi / periods)
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, sigma: Tensor) -> Tensor:
        """0 at first."""
        angle = (sigma.log() / 4)[:, None] * self.freqs
        out: Tensor = self.linear(torch.cat([angle.sin(), angle.cos()], dim=1))
        return out[:, 0]


def with_loss_weight(nets: nn.Module, config: TrigFlowConfig) -> nn.Module:
    """`nets` with a `LossWeight` as `loss_weight`, if the configuration learns one."""
    if config.learned_weight:
        nets.add_module("loss_weight", LossWeight())
    return nets


def tangent(
    denoise: Denoise, x: Tensor, sigma: Tensor, slope: Tensor, sigma_data: float, warmed: float
) -> tuple[Tensor, Tensor]:
    """The denoiser D at x (B, ...), sigma (B,), and the tangent G, both without gradient.

    `slope` is dx/dsigma, so that D* = x - sigma slope is the data that the velocity dy/da =
    (cos(a) y - D*) / sin(a) points to. With r = `warmed` the paper's tangent is
    G = -cos^2 (sigma_data F - dy/da) - r [cos sin y + sigma_data cos sin dF/da]. In terms of D this
    is r cos(a) dD/da + (1 - r) (D - D*) cos^2 / sin, where dD/da = dD/dsigma sigma_data / cos^2.
    """
    value, derivative = value_and_derivative(denoise, (x, sigma), (slope, torch.ones_like(sigma)))
    angle = torch.atan(per_sample(sigma, x) / sigma_data)
    cos, sin = angle.cos(), angle.sin()
    along = derivative * (sigma_data / cos)
    apart = (value - (x - per_sample(sigma, x) * slope)) * (cos.square() / sin)
    return value, warmed * along + (1 - warmed) * apart


def tangent_loss(
    nets: nn.Module,
    denoise: Denoise,
    x: Tensor,
    sigma: Tensor,
    slope: Tensor,
    config: TrigFlowConfig,
    progress: Progress,
) -> Tensor:
    """Mean of (F - F- - G)^2 over the values of a sample, weighted: (B, ...) => (B,).

    F- is F without gradient, so that the gradient is -2 G dF and the value tells nothing else than
    the size of G. F - F- is (D- - D) / (sigma_data sin(a)). Both calls of `denoise` must share a
    dropout mask. With the `loss_weight` L of `nets` the loss becomes loss / e^L + L; the authors'
    further factor, one over the number of values, only shifts L.
    """
    value, toward = tangent(denoise, x, sigma, slope, config.sigma_data, config.warmed(progress))
    if config.tangent_floor is not None:
        size = toward.flatten(1).square().mean(1).sqrt()
        toward = toward / per_sample(size + config.tangent_floor, toward)
    c_out = sigma * config.sigma_data / (sigma.square() + config.sigma_data**2).sqrt()
    error = (denoise(x, sigma) - value) / per_sample(c_out, x) + toward
    loss = error.flatten(1).square().mean(1) / sigma**config.weight_power
    if not config.learned_weight:
        return loss
    log_weight: Tensor = nets.get_submodule("loss_weight")(sigma)
    return loss / log_weight.exp() + log_weight
