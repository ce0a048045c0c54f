"""Guidance-free training: a diffusion model whose guided output is part of its likelihood.

Source: Chen et al. (2025), "Visual Generation Without Guidance" (arXiv 2501.15420).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import per_sample
from methods.embedded_diffusion import EmbeddedDiffusion, EmbeddedDiffusionConfig, Noised
from methods.guidance import Guidance
from methods.guidance_embedding import embed_guidance
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.registry import register
from methods.rng import BatchRNG
from methods.settings import CIFAR10, Preset, TrainSettings, image_preset


class GFTConfig(EmbeddedDiffusionConfig):
    """EDM's settings and the embedding of the temperature beta = 1/g, drawn from (0, 1]."""

    guidance_scale: float = Field(1000.0, gt=0, description="factor of beta before its embedding")


_TOY = GFTConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    guidance_scale=14.0,
    sigma_data=2.01,
    p_mean=0.2,
    p_std=1.2,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=4000, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = GFTConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    guidance_dim=64,
    guidance_scale=14.0,
    sigma_data=0.75,
    p_mean=-0.8,
    p_std=1.2,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=500, batch=64, lr=2e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
_SMALL = GFTConfig(net=published.SMALL)
# About six minutes on one H100 in bf16, estimated and not measured.
_SMALL_TRAIN = TrainSettings(
    iterations=4000, batch=512, lr=1e-3, optimizer="adam", warmup=200, decay_from=0.7,
    final_lr=0.01, checkpoint_every=500,
)  # fmt: skip


@register
class GFT(EmbeddedDiffusion[GFTConfig]):
    """Minimise || beta D(x; c, beta) + (1 - beta) D(x; null, 1) - y ||^2, null under stop-gradient.

    At the optimum the mixture is D_c = E[y | x, c], so that D(x; c, beta) is
    D_null + (D_c - D_null) / beta: classifier-free guidance at g = 1/beta.

    With beta uniform on (0, 1], a share 1/g of the draws has a scale above g, and each row pulls
    D(x; c, beta) to its optimum with weight beta^2. We keep that weight: the noise of y acts on
    D(x; c, beta) multiplied by 1/beta, so without the weight, scales far above those that are
    sampled would dominate training.
    """

    name = "gft"
    summary = "guidance-free training: temperature as an input, one branch (Chen 2025)"
    guidance = "embedded"
    config_type = GFTConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(18,),
            # Exact CFG: -.03 / 1.2 / 2.0 / 2.9.
            expected={
                "w1 at g = 1": ".02",
                "shift at g = 1 / 4 / 8": "-.04 / 1.3 / 2.2",
                "shift at g = 14": "2.0 to 2.7, by seed",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(18,),
            # Exact CFG: -.04 / 1.7 / 2.9 / 4.1. One seed. High scales are not learnt.
            expected={
                "w1 at g = 1": ".02",
                "shift at g = 1 / 4 / 8 / 14": ".03 / 1.4 / 1.4 / .8",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(18,),
            # After 1000 iterations, as in the suite "reference".
            expected={
                "fd at g = 1 / 4 / 8 / 14": "2.5 / 50 / 84 / 100",
                "precision at g = 1 / 4 / 8 / 14": ".79 / .78 / .63 / .52",
                "recall at g = 1 / 4 / 8 / 14": ".89 / .17 / .02 / .02",
            },
        ),
        "digits-demo": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN.model_copy(update={"iterations": 450}),
            steps=(18,),
        ),
        "cifar10-small": image_preset(CIFAR10, _SMALL, _SMALL_TRAIN, steps=(18,)),
    }

    def _embed(self, beta: Tensor) -> Tensor:
        return embed_guidance(beta, self.config.guidance_dim, self.config.guidance_scale)

    def _features(self, guidance: Guidance, rows: int, device: torch.device) -> Tensor:
        return self._embed(torch.full((rows,), 1 / guidance.scale, device=device))

    def _top(self) -> float:
        return math.inf

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """EDM's weighted denoising error of the mixture of both branches.

        Rows with a dropped label have beta = 1 and train the null branch. Inside the mixture the
        null branch is evaluated without dropout.
        """
        c = self.config
        at = Noised(c, batch, rng)
        # In (0, 1]: a row with beta = 0 would have no gradient.
        drawn = 1 - rng.rand()
        beta = torch.where(at.keep > 0, drawn, torch.ones_like(drawn))
        denoised = nets(
            at.x,
            at.sigma,
            at.labels,
            self._embed(beta),
            form="train",
            dropout=rng.dropout("denoiser"),
        )
        with torch.no_grad():
            null = torch.zeros_like(at.labels), self._embed(torch.ones_like(beta))
            d_null = nets(at.x, at.sigma, *null, form="train")
        share = per_sample(beta, denoised)
        error = share * denoised + (1 - share) * d_null - batch.x0
        return {"denoise": at.weight * error.square().flatten(1).sum(1)}
