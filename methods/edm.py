"""EDM with classifier-free guidance: the diffusion baseline.

Sources: Karras et al. (2022), "Elucidating the Design Space of Diffusion-Based Generative Models";
Ho & Salimans (2022) for guidance with label dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Inverts, Method, Progress
from methods.consistency import per_sample
from methods.guidance import Guidance, cfg
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.precond import EDMPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.samplers import invert_heun, karras_sigmas, sample_heun
from methods.settings import Preset, Settings, TrainSettings, ascending

EDIT_STEPS = 18
"""Levels of the grid that inversion climbs and an edit descends."""


class EDMConfig(Settings):
    """Network, noise levels in training, label dropout, and the sampler's grid."""

    net: NetConfig
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    rho: float = 7.0
    p_mean: float = -1.2
    p_std: float = Field(1.2, gt=0)
    label_dropout: float = Field(0.1, ge=0, lt=1)
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        return self


_TOY = EDMConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    sigma_data=2.01,
    p_mean=0.2,
    p_std=1.2,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=1500, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = EDMConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    sigma_data=0.75,
    p_mean=-0.8,
    p_std=1.2,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=1000, batch=64, lr=2e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)


@register
class EDM(Method[EDMConfig], Inverts):
    """Diffusion with EDM's preconditioning and 18-step Heun sampler, CFG at sampling."""

    name = "edm"
    summary = "EDM diffusion, Heun sampler, CFG at sampling (Karras 2022, Ho & Salimans 2022)"
    guidance = "sampling"
    config_type = EDMConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(18,),
            expected={"w1 at g = 1": ".009", "shift at g = 14": "3 to 8, by seed"},
        ),
        "modes2d": Preset(dataset="modes2d", config=_TOY, train=_TOY_TRAIN, steps=(18,)),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(18,),
            expected={
                "fd at g = 1": "3.4",
                "fd at g = 14": ">= 100",
                "precision at g = 14": "<= .4",
            },
        ),
        "digits-demo": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN.model_copy(update={"iterations": 450}),
            steps=(18,),
        ),
    }

    def build(self) -> nn.Module:
        """`EDMPrecond` with its network under `model`."""
        net = build_net(self.config.net, self.data)
        return EDMPrecond(net, sigma_data=self.config.sigma_data)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Weighted denoising error, summed over a sample, labels dropped to null."""
        c = self.config
        sigma = torch.exp(c.p_mean + c.p_std * rng.randn())
        eps = rng.randn(*batch.x0.shape[1:])
        keep = (rng.rand(1) >= c.label_dropout).to(batch.labels)
        x = batch.x0 + per_sample(sigma, eps) * eps
        denoised = nets(x, sigma, batch.labels * keep, dropout=rng.dropout("denoiser"))
        weight = (sigma**2 + c.sigma_data**2) / (sigma * c.sigma_data) ** 2
        return {"denoise": weight * (denoised - batch.x0).square().flatten(1).sum(1)}

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Heun from sigma_max, guidance at both stages, state in float64 (EDM, algorithm 1)."""
        noise = rng.randn(self.data.shape, labels.device)
        return self._integrate(nets, self.config.sigma_max * noise, labels, guidance, steps)

    def _integrate(
        self, nets: nn.Module, x: Tensor, labels: Tensor, guidance: Guidance, steps: int
    ) -> Tensor:
        c = self.config
        null = torch.zeros_like(labels)
        denoise = cfg(
            lambda x, sigma: cast(Tensor, nets(x, sigma, labels)),
            lambda x, sigma: cast(Tensor, nets(x, sigma, null)),
            guidance,
        )
        sigmas = karras_sigmas(steps, c.sigma_min, c.sigma_max, c.rho)
        out = sample_heun(denoise, x, sigmas).to(torch.float32)
        return out.clamp(-1, 1) if c.clamp else out

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """2 steps - 1 denoiser calls (the last step is Euler), twice with guidance."""
        return (2 * steps - 1) * (1 if guidance.is_off else 2)

    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """The sampler's grid ascending, without guidance: 17 Heun steps, 34 NFE."""
        c = self.config
        sigmas = karras_sigmas(EDIT_STEPS, c.sigma_min, c.sigma_max, c.rho)
        latent = invert_heun(lambda x, sigma: cast(Tensor, nets(x, sigma, labels)), x0, sigmas)
        return latent.to(torch.float32)

    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """18 Heun steps from the latent."""
        return self._integrate(nets, latent, labels, guidance, EDIT_STEPS)

    def latent_sigma(self) -> float:
        """sigma_max, where the grid ends."""
        return self.config.sigma_max

    def inversion_nfe(self) -> int:
        """Two denoiser calls a Heun step; the step between 0 and sigma_min is left out."""
        return 2 * (EDIT_STEPS - 1)

    def edit_nfe(self, guidance: Guidance) -> int:
        """That of 18 sampling steps."""
        return self.nfe(guidance, EDIT_STEPS)
