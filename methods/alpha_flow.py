"""alpha-Flow: from flow matching over discrete steps to MeanFlow, by one number alpha.

Source: "AlphaFlow" (2025, arXiv 2510.20771). A target with alpha > 0 needs one more evaluation of
the network and no derivative. The guidance scale as an input of the network is iMF's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from methods.base import Progress
from methods.consistency import per_sample
from methods.mean_velocity import MeanVelocity, mean_target
from methods.meanflow import MeanFlow, MeanFlowConfig
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.registry import register
from methods.settings import CIFAR10, Preset, TrainSettings, ascending, image_preset


class AlphaFlowConfig(MeanFlowConfig):
    """The settings of `meanflow`, and how alpha falls from 1 to 0 in training.

    The defaults of alpha are the paper's for networks that are trained with guidance.
    """

    alpha_from: float = Field(0.0, ge=0, description="share of training until which alpha is 1")
    alpha_to: float = Field(1.0, description="share of training after which alpha is 0")
    alpha_slope: float = Field(25.0, gt=0, description="steepness of the sigmoid between them")
    alpha_cutoff: float = Field(
        0.005, ge=0, lt=0.5, description="alpha below it is 0 (MeanFlow), above 1 - it is 1"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("alpha_from and alpha_to", self.alpha_from, self.alpha_to)
        return self

    def alpha(self, progress: Progress) -> float:
        """Alpha = 1 - sigmoid(slope (share - 1/2)), for the share of the way from `alpha_from`."""
        share = (progress.fraction - self.alpha_from) / (self.alpha_to - self.alpha_from)
        if not 0 <= share <= 1:
            return float(share < 0)
        alpha = 1 / (1 + math.exp(self.alpha_slope * (share - 0.5)))
        if alpha < self.alpha_cutoff:
            return 0.0
        return 1.0 if alpha > 1 - self.alpha_cutoff else alpha


def stepped_target(
    u: MeanVelocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor, alpha: float
) -> Tensor:
    """Alpha v + (1 - alpha) u(z - h v; r, t - h), h = alpha (t - r): same shape as z (B, ...).

    Over [r, t] this is a step of length h with velocity `v`, and then u. At alpha = 1 it is `v`,
    without an evaluation. No gradient.
    """
    if alpha == 1:
        return v
    step = alpha * (t - r)
    with torch.no_grad():
        rest = u(z - per_sample(step, z) * v, r, t - step)
    return alpha * v + (1 - alpha) * rest


# The settings of `meanflow`, and alpha from .95 to .05, so that no derivative is needed. Another
# schedule, slope 10 with derivatives where alpha is below .05, has W1 of one step .14 / 1.3 / 2.5 /
# 3.5 and of two .06 / .37 / .71 / .99 (one seed).
_TOY = AlphaFlowConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    sigma_data=2.01,
    time_mean=0.0,
    time_std=1.6,
    same_time=0.5,
    power=0.0,
    per_scale=True,
    mixing=0.0,
    tangent="network",
    predict="data",
    time_scale=1.0,
    alpha_slope=6.0,
    alpha_cutoff=0.0,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=2500, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)

# Not tuned. The settings are those of `meanflow` on this data set, but alpha as on the toys.
_DIGITS = AlphaFlowConfig(
    net=UNetConfig(kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1),
    sigma_data=0.75,
    time_mean=0.0,
    time_std=1.6,
    mixing=0.0,
    tangent="network",
    predict="data",
    time_scale=1.0,
    alpha_slope=6.0,
    alpha_cutoff=0.0,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
# The paper's settings of B/2 with guidance, for latents of ImageNet-256; it has none for CIFAR-10.
# Its c is .001 for the mean over elements, and ours is for the sum. There a network has one scale,
# which is an input here, and targets are clipped, which they are not here.
_CIFAR10 = AlphaFlowConfig(
    net=published.CIFAR10.model_copy(update={"arch": "ddpmpp"}),
    same_time=0.25,
    floor=3.072,
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=1_200_000, batch=256, lr=1e-4, optimizer="adam", betas=(0.9, 0.95), ema=0.9999,
    ema_ramp=False, checkpoint_every=5000,
)  # fmt: skip


@register
class AlphaFlow(MeanFlow):
    """MeanFlow whose target is a step of length alpha (t - r) and the rest of the way."""

    name = "alpha-flow"
    summary = "alpha-Flow: MeanFlow by steps that shrink, guided in training, 1-2 steps (2025)"
    config_type = AlphaFlowConfig
    config: AlphaFlowConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            # One seed. Exact CFG has .006 / .27 / .45 / .61.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".21 / 1.2 / 2.7 / 3.9",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".06 / .15 / .28 / .39",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            # One seed. Exact CFG has .017 / .24 / .41 / .55.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".24 / 1.2 / 2.2 / 3.0",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".08 / .27 / .61 / .87",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            # One seed, 300 images, after 800 iterations.
            expected={
                "fd at g = 1 / 4 / 8 / 13, 1 step": "95 / 47 / 86 / 90",
                "fd at g = 1 / 4 / 8 / 13, 2 steps": "12 / 47 / 75 / 79",
                "precision at g = 1 / 4 / 8 / 13, 2 steps": ".80 / .79 / .63 / .63",
                "recall at g = 1 / 4 / 8 / 13, 2 steps": ".78 / .27 / .07 / .04",
            },
        ),
        "cifar10": image_preset(CIFAR10, _CIFAR10, _CIFAR10_TRAIN, full_size=True, steps=(1, 2)),
    }

    def _target(
        self,
        u: MeanVelocity,
        z: Tensor,
        r: Tensor,
        t: Tensor,
        v: Tensor,
        along: Tensor,
        progress: Progress,
    ) -> Tensor:
        """The target at the current alpha; at 0 it is MeanFlow's."""
        alpha = self.config.alpha(progress)
        if alpha == 0:
            return mean_target(u, z, r, t, v, along)
        return stepped_target(u, z, r, t, v, alpha)

    def _weight(self, apart: Tensor, progress: Progress) -> Tensor:
        """alpha^(2 p - 1) where r < t: alpha with the published power p = 1 of the adaptive weight.

        Errors of targets are proportional to alpha. With any p this gives rows the pull that they
        have in MeanFlow.
        """
        alpha = self.config.alpha(progress) or 1.0
        weight = alpha ** (2 * self.config.power - 1)
        return torch.where(apart, weight, 1.0)
