"""Base of the diffusion models that take the guidance scale as a network input.

One evaluation gives the guided denoiser D(x; sigma, c, g) at any scale, so that sampling costs half
of classifier-free guidance. Subclasses add the loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Self, TypeVar, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Inverts, Method
from methods.consistency import per_sample
from methods.guidance import OFF, Denoise, Guidance
from methods.nets.config import NetConfig, UNetConfig, build_net
from methods.precond import ConsistencyPrecond
from methods.rng import BatchRNG, SampleRNG
from methods.samplers import invert_heun, karras_sigmas, sample_heun
from methods.settings import Settings, ascending
from methods.warm_start import denoiser_weights

EDIT_STEPS = 18
"""Number of noise levels in the grid of inversion (ascending) and editing (descending)."""


class EmbeddedDiffusionConfig(Settings):
    """Settings as EDM's: network, training noise levels, label dropout, sampler's grid."""

    net: NetConfig
    guidance_dim: int = Field(256, ge=4, multiple_of=2)
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    rho: float = Field(7.0, gt=0)
    p_mean: float = -1.2
    p_std: float = Field(1.2, gt=0)
    label_dropout: float = Field(0.1, gt=0, lt=1)
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        if isinstance(self.net, UNetConfig) and not self.net.conditional:
            raise ValueError("guidance needs a network with classes: net.conditional must be true")
        return self


ConfigT = TypeVar("ConfigT", bound=EmbeddedDiffusionConfig)


class Noised:
    """The noisy images of one training step, their labels after dropout, and the loss weights.

    `x` (B, ...) is x0 + sigma eps, with `sigma` (B,). `labels` (B, K) are zeros where `keep` (B,)
    is 0. `weight` (B,) is EDM's lambda(sigma) = 1 / c_out^2.
    """

    def __init__(self, config: EmbeddedDiffusionConfig, batch: Batch, rng: BatchRNG) -> None:
        self.sigma = torch.exp(config.p_mean + config.p_std * rng.randn())
        eps = rng.randn(*batch.x0.shape[1:])
        self.keep = (rng.rand() >= config.label_dropout).to(batch.labels)
        self.x = batch.x0 + per_sample(self.sigma, eps) * eps
        self.labels = batch.labels * self.keep[:, None]
        self.weight = (self.sigma**2 + config.sigma_data**2) / (self.sigma * config.sigma_data) ** 2


class EmbeddedDiffusion(Method[ConfigT], Inverts):
    """EDM's preconditioning and Heun sampler around a network that takes the guidance scale.

    A subclass defines the loss, the embedding of the scale, and the largest trained scale.
    """

    @abstractmethod
    def _features(self, guidance: Guidance, rows: int, device: torch.device) -> Tensor:
        """The embedding of a guidance scale, (rows, guidance_dim)."""

    @abstractmethod
    def _top(self) -> float:
        """The largest guidance scale in training; may be infinite."""

    def build(self) -> nn.Module:
        """The guided network under `model`. Its form "train" has EDM's coefficients."""
        c = self.config
        net = build_net(c.net, self.data, guidance_dim=c.guidance_dim)
        return ConsistencyPrecond(net, sigma_data=c.sigma_data, sigma_min=c.sigma_min)

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an edm run, with a guidance input that starts at zero, or of an own run."""
        return denoiser_weights(source, self.build, "model")

    def _guided(self, nets: nn.Module, labels: Tensor, guidance: Guidance) -> Denoise:
        features = self._features(guidance, len(labels), labels.device)
        return lambda x, sigma: cast(Tensor, nets(x, sigma, labels, features, form="train"))

    def _grid(self, steps: int) -> Tensor:
        c = self.config
        return karras_sigmas(steps, c.sigma_min, c.sigma_max, c.rho)

    def _integrate(
        self, nets: nn.Module, x: Tensor, labels: Tensor, guidance: Guidance, steps: int
    ) -> Tensor:
        out = sample_heun(self._guided(nets, labels, guidance), x, self._grid(steps))
        out = out.to(torch.float32)
        return out.clamp(-1, 1) if self.config.clamp else out

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Heun's method from sigma_max, state in float64 (EDM, algorithm 1)."""
        x = self.config.sigma_max * rng.randn(self.data.shape, labels.device)
        return self._integrate(nets, x, labels, guidance, steps)

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """2 steps - 1 calls, because the last step is Euler's; the same with guidance."""
        return 2 * steps - 1

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance scales within the range of training."""
        top = self._top()
        if 1.0 <= guidance.scale <= top:
            return None
        trained = "1 and above" if top == float("inf") else f"1 to {top:g}"
        return f"trained for guidance {trained}, not {guidance.scale:g}"

    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """Follow the sampler's grid upwards without guidance: 17 Heun steps, 34 NFE."""
        latent = invert_heun(self._guided(nets, labels, OFF), x0, self._grid(EDIT_STEPS))
        return latent.to(torch.float32)

    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """18 Heun steps from the latent."""
        return self._integrate(nets, latent, labels, guidance, EDIT_STEPS)

    def latent_sigma(self) -> float:
        """sigma_max, the highest level of the grid."""
        return self.config.sigma_max

    def inversion_nfe(self) -> int:
        """Two calls per Heun step; the step between 0 and sigma_min is skipped."""
        return 2 * (EDIT_STEPS - 1)

    def edit_nfe(self, guidance: Guidance) -> int:
        """The NFE of 18 sampling steps."""
        return self.nfe(guidance, EDIT_STEPS)
