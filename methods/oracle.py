"""The exact denoiser of Gaussian mixtures under CFG: guidance without the error of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.guided import GuidedMethod
from methods.registry import register
from methods.rng import BatchRNG
from methods.rules.base import Branch, Networks
from methods.settings import Preset, Settings
from methods.spec import DataSpec, Mixture


class OracleConfig(Settings):
    """EDM's sampling grid, and the wider density that serves as the weaker network."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    weak_std: float = Field(
        2.0, gt=1, description="weaker network: standard deviation of its modes over the true one"
    )


def exact_denoised(x: Tensor, sigma: Tensor, labels: Tensor, mixture: Mixture) -> Tensor:
    """E[x0 | x, class] of the mixture, (B, D) float64 => (B, D).

    Each mode contributes mu + s^2 / (s^2 + sigma^2) (x - mu), weighted by its posterior
    probability. Labels are class weights and need not sum to 1; null labels (zero rows) mean that
    all classes are equally likely. Guidance rules may add noise to labels: a negative weight counts
    as 0, and a row without a positive weight as null.
    """
    counts = [len(modes) for modes in mixture.means]
    means = x.new_tensor([point for modes in mixture.means for point in modes])
    owner = torch.repeat_interleave(
        torch.arange(len(counts), device=x.device), torch.tensor(counts, device=x.device)
    )
    share = x.new_tensor([-math.log(counts[int(k)]) for k in owner])
    labels = labels.to(x).clamp(min=0)
    weights = torch.where(
        labels.sum(1, keepdim=True) > 0, labels[:, owner], torch.ones_like(labels[:, owner])
    )
    variance = mixture.std**2 + sigma.to(x).reshape(-1, 1) ** 2
    offset = x[:, None, :] - means
    log_posterior = share - offset.square().sum(-1) / (2 * variance) + weights.log()
    posterior = log_posterior.softmax(1)
    pulled = means + (mixture.std**2 / variance)[:, :, None] * offset
    return (posterior[:, :, None] * pulled).sum(1)


@register
class Oracle(GuidedMethod[OracleConfig]):
    """Exact denoiser + CFG + EDM's Heun sampler, for data of known density.

    It separates the error of a guidance rule from the error of a network.
    """

    name = "oracle"
    summary = "closed-form denoiser with CFG, for toy data; nothing to train"
    config_type = OracleConfig
    trains: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(
            dataset=name,
            config=OracleConfig(),
            train=None,
            steps=(18,),
            expected={"shift at g = 14": expected},
        )
        for name, expected in {"modes1d": "2.88 +- 0.15", "modes2d": "4.08 +- 0.2"}.items()
    }

    def __init__(self, config: OracleConfig, data: DataSpec) -> None:
        if data.mixture is None:
            raise ValueError(
                f"oracle needs data of known density; that of {data.name!r} is not known"
            )
        super().__init__(config, data)
        self.mixture = data.mixture

    def build(self) -> nn.Module:
        """An empty module, because there are no weights."""
        return nn.Module()

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Not available: raises TypeError."""
        raise TypeError("oracle has nothing to train")

    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """The exact denoisers of the mixture, and of a blurred one as weaker branch."""
        mixture = self.mixture
        blurred = replace(mixture, std=mixture.std * self.config.weak_std)
        return Networks(
            main=lambda x, sigma, c: exact_denoised(x, sigma, c, mixture),
            null=lambda x, sigma: exact_denoised(
                x, sigma, labels.new_zeros(len(x), labels.shape[1]), mixture
            ),
            weak=lambda x, sigma, c: exact_denoised(x, sigma, c, blurred),
            shared=True,
        )

    def lacks(self, branch: Branch) -> str:
        """There is no network whose layers could be changed."""
        if branch in ("attention", "blocks"):
            return f"the closed-form denoiser has no {branch}"
        return ""
