"""EDM with classifier-free guidance: the diffusion baseline.

Sources: Karras et al. (2022), "Elucidating the Design Space of Diffusion-Based Generative Models";
Ho & Salimans (2022) for guidance with label dropout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.augment import AUGMENT_LABELS, augment_images
from methods.base import Batch, Inverts, Progress, Teaches
from methods.consistency import per_sample
from methods.guidance import Guidance
from methods.guided import PairedMethod
from methods.nets import published
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.precond import EDMPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.rules.base import Branch
from methods.samplers import Churn, invert_heun, karras_sigmas
from methods.settings import (
    CIFAR10,
    CIFAR16,
    IMAGENET64,
    Preset,
    Settings,
    TrainSettings,
    ascending,
    image_preset,
)
from methods.spec import DataSpec

EDIT_STEPS = 18
"""Number of noise levels in the grid of inversion (ascending) and editing (descending)."""


class EDMConfig(Settings):
    """Settings of the network, training noise levels, label dropout, and the sampler's grid."""

    net: NetConfig
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    rho: float = 7.0
    p_mean: float = -1.2
    p_std: float = Field(1.2, gt=0)
    label_dropout: float = Field(0.1, ge=0, lt=1)
    null_label: bool = Field(
        True, description="whether a zero label means no class; False if labels were never dropped"
    )
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")
    s_churn: float = Field(
        0.0, ge=0, description="noise added in sampling; 0: deterministic; EDM's ImageNet-64: 40"
    )
    s_min: float = Field(0.0, ge=0, description="lowest level with added noise; there .05")
    s_max: float | None = Field(
        None, gt=0, description="highest level with added noise, None: no limit; there 50"
    )
    s_noise: float = Field(1.0, gt=0, description="standard deviation of that noise; there 1.003")
    augment: float = Field(
        0.0, ge=0, le=1, description="probability of each geometric change of a training image, "
        "whose parameters are inputs of the network; EDM's CIFAR-10: .12",
    )  # fmt: skip

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        if self.s_max is not None:
            ascending("s_min and s_max", self.s_min, self.s_max)
        if self.augment and getattr(self.net, "augment_dim", 0) != AUGMENT_LABELS:
            raise ValueError(f"augment needs a network with augment_dim = {AUGMENT_LABELS}")
        return self

    @property
    def churn(self) -> Churn | None:
        """The stochastic part of the sampler; None: deterministic."""
        if self.s_churn == 0:
            return None
        high = math.inf if self.s_max is None else self.s_max
        return Churn(self.s_churn, self.s_min, high, self.s_noise)


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
    iterations=500, batch=64, lr=2e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)

# Karras et al. (2022), tables 1 and 7. Differences: labels are dropped, so that there is a null
# label to guide with; augmentation interpolates bicubically instead of with a wavelet filter; a
# gradient that is not finite stops training instead of being replaced by numbers.
_CIFAR10 = EDMConfig(
    net=published.CIFAR10_EDM.model_copy(update={"dropout": 0.13, "augment_dim": AUGMENT_LABELS}),
    augment=0.12,
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=390_625,  # 200M images
    batch=512,
    lr=1e-3,
    optimizer="adam",
    warmup=19_531,  # 10M images
    ema=0.99929,  # half-life of 500,000 images
    ema_share=0.05,
    checkpoint_every=2000,
)
_IMAGENET64 = EDMConfig(net=published.IMAGENET64.model_copy(update={"dropout": 0.1}))
_IMAGENET64_TRAIN = TrainSettings(
    iterations=610_352,  # 2,500M images
    batch=4096,
    lr=1e-4,
    optimizer="adam",
    warmup=2441,  # 10M images
    ema=0.9999432,  # half-life of 50M images
    ema_share=0.05,
    checkpoint_every=1000,
)
_SMALL = EDMConfig(net=published.SMALL)
# About four minutes on one H100 in bf16, estimated and not measured.
_SMALL_TRAIN = TrainSettings(
    iterations=4000, batch=512, lr=1e-3, optimizer="adam", warmup=200, decay_from=0.7,
    final_lr=0.01, checkpoint_every=500,
)  # fmt: skip

_TINY = EDMConfig(net=published.TINY)
_TINY_TRAIN = TrainSettings(
    iterations=4000, batch=64, lr=2e-3, warmup=100, decay_from=0.7, final_lr=0.01,
    checkpoint_every=200,
)  # fmt: skip


@register
class EDM(PairedMethod[EDMConfig], Inverts, Teaches):
    """Diffusion with EDM's preconditioning and its Heun sampler, CFG at sampling."""

    name = "edm"
    summary = "EDM diffusion, Heun sampler, CFG at sampling (Karras 2022, Ho & Salimans 2022)"
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
                "fd at g = 1": "7.8",
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
        "cifar10": image_preset(
            CIFAR10,
            _CIFAR10,
            _CIFAR10_TRAIN,
            full_size=True,
            steps=(18,),
            expected={
                "published FID at g = 1 / 7 / 13": "1.89 / 23.81 / 32.57",
                "FID at g = 1 after 30 / 50 / 90 / 200 M images": "2.48 / 2.19 / 1.95 / 1.86",
            },
        ),
        "cifar10-small": image_preset(CIFAR10, _SMALL, _SMALL_TRAIN, steps=(18,)),
        "cifar16": image_preset(CIFAR16, _TINY, _TINY_TRAIN, steps=(18,)),
        "imagenet64": image_preset(
            IMAGENET64, _IMAGENET64, _IMAGENET64_TRAIN, full_size=True, steps=(18,)
        ),
    }

    @staticmethod
    def network(config: EDMConfig, data: DataSpec) -> nn.Module:
        """`EDMPrecond` with its network under `model`."""
        return EDMPrecond(build_net(config.net, data), sigma_data=config.sigma_data)

    @staticmethod
    def is_conditional(config: EDMConfig) -> bool:
        """Only image networks can be without classes."""
        return not isinstance(config.net, UNetConfig) or config.net.conditional

    def knows_null(self) -> bool:
        """Whether labels were dropped in training."""
        return self.config.null_label and self.config.label_dropout > 0

    @property
    def churn(self) -> Churn | None:
        """The noise of EDM's algorithm 2, with `s_churn`."""
        return self.config.churn

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Weighted denoising error, summed over each sample; some labels are dropped to null."""
        c = self.config
        sigma = torch.exp(c.p_mean + c.p_std * rng.randn())
        eps = rng.randn(*batch.x0.shape[1:])
        keep = (rng.rand(1) >= c.label_dropout).to(batch.labels)
        x0, augment = batch.x0, None
        if c.augment:
            x0, augment = augment_images(x0, rng, c.augment)
        x = x0 + per_sample(sigma, eps) * eps
        denoised = nets(
            x, sigma, batch.labels * keep, augment=augment, dropout=rng.dropout("denoiser")
        )
        weight = (sigma**2 + c.sigma_data**2) / (sigma * c.sigma_data) ** 2
        return {"denoise": weight * (denoised - x0).square().flatten(1).sum(1)}

    def denoised(
        self, config: EDMConfig, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """The output of the network, whose sigma_data is its own."""
        return cast(Tensor, net(x, sigma, labels))

    def module(self, nets: nn.Module) -> nn.Module | None:
        """The network inside the preconditioning."""
        return cast("nn.Module | None", getattr(nets, "model", None))

    def lacks(self, branch: Branch) -> str:
        """Networks for points have no attention, besides what other networks are for."""
        if branch == "attention" and not isinstance(self.config.net, UNetConfig):
            return "the network has no attention"
        return super().lacks(branch)

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Churn belongs to Heun's steps; guidance needs classes, and the branches of the rule."""
        if self.churn is not None and self.sampler.solver != "heun":
            return f"s_churn adds noise to Heun's steps only, not to those of {self.sampler.solver}"
        return super().supports(guidance, steps)

    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """Follow the sampler's grid upwards without guidance: 17 Heun steps, 34 NFE."""
        c = self.config
        sigmas = karras_sigmas(EDIT_STEPS, c.sigma_min, c.sigma_max, c.rho)
        latent = invert_heun(lambda x, sigma: cast(Tensor, nets(x, sigma, labels)), x0, sigmas)
        return latent.to(torch.float32)

    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """18 deterministic Heun steps from the latent. A rule that draws uses seed 0."""
        rng = SampleRNG(0, range(len(latent)), "edit")
        return self.integrate(nets, latent, labels, guidance, EDIT_STEPS, rng)

    def latent_sigma(self) -> float:
        """sigma_max, the highest level of the grid."""
        return self.config.sigma_max

    def inversion_nfe(self) -> int:
        """Two denoiser calls per Heun step; the step between 0 and sigma_min is skipped."""
        return 2 * (EDIT_STEPS - 1)

    def edit_nfe(self, guidance: Guidance) -> int:
        """The NFE of 18 deterministic sampling steps."""
        return math.ceil(sum(self.evaluations(guidance, EDIT_STEPS, None).values()))

    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The output of the network."""
        return cast(Tensor, nets(x, sigma, labels))

    def cannot_teach(self) -> str | None:
        """Without label dropout the null label was not trained."""
        if self.knows_null():
            return None
        return "it was trained without label dropout, so its null label is untrained"
