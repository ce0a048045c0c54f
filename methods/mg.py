"""Model guidance: a diffusion model trained towards its own guided output.

Source: Tang et al. (2025), "Diffusion Models without Classifier-free Guidance" (arXiv 2502.12154).
"""

from __future__ import annotations

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


class MGConfig(EmbeddedDiffusionConfig):
    """EDM's settings and the distribution of guidance scales in training."""

    guidance_scale: float = Field(1000.0, gt=0, description="factor of w before its embedding")
    w_max: float = Field(14.0, gt=0, description="w = g - 1 is drawn from [0, w_max] in training")


_TOY = MGConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    guidance_scale=1.0,
    sigma_data=2.01,
    p_mean=0.2,
    p_std=1.2,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=4000, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = MGConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    guidance_dim=64,
    guidance_scale=1.0,
    sigma_data=0.75,
    p_mean=-0.8,
    p_std=1.2,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=500, batch=64, lr=2e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
_SMALL = MGConfig(net=published.SMALL)
# About six minutes on one H100 in bf16, estimated and not measured.
_SMALL_TRAIN = TrainSettings(
    iterations=4000, batch=512, lr=1e-3, optimizer="adam", warmup=200, decay_from=0.7,
    final_lr=0.01, checkpoint_every=500,
)  # fmt: skip


@register
class MG(EmbeddedDiffusion[MGConfig]):
    """Regress D(x; c, g) on y + m [D(x; c, g) - D(x; null)], the bracket under stop-gradient.

    With D_c = E[y | x, c] its fixed point D = D_c + m (D - D_null) is classifier-free guidance,
    D_null + (D_c - D_null) / (1 - m), at g = 1 / (1 - m). Hence m = 1 - 1/g for a scale g.

    The paper computes the bracket with a moving average of the weights. Here the network itself is
    used, since a method has no second copy of its weights; the fixed point is the same. The
    gradient is that of regression on the amplified target D_null + g (y - D_null) with weight 1/g.
    The noise of that target grows with g, so high scales are learnt last and vary most.
    """

    name = "mg"
    summary = "model guidance: trained towards its own guided output, one branch (Tang 2025)"
    guidance = "embedded"
    config_type = MGConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(18,),
            # Exact CFG: -.03 / 1.2 / 2.0 / 2.9.
            expected={
                "w1 at g = 1": ".04 to .05",
                "shift at g = 1 / 4": ".2 / 1.5 to 1.7",
                "shift at g = 8 / 14": "3.0 to 4.1 / 5 to 7, by seed",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(18,),
            # Exact CFG: -.04 / 1.7 / 2.9 / 4.1. One seed. Guidance is not learnt.
            expected={
                "w1 at g = 1": ".16",
                "shift at g = 1 / 4 / 8 / 14": ".9 / .3 / .03 / 1.9",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(18,),
            # After 1000 iterations, as in the suite "reference".
            expected={
                "fd at g = 1 / 4 / 8 / 14": "4.5 / 53 / 88 / 111",
                "precision at g = 1 / 4 / 8 / 14": ".80 / .68 / .56 / .45",
                "recall at g = 1 / 4 / 8 / 14": ".84 / .15 / .04 / .09",
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

    def _embed(self, w: Tensor) -> Tensor:
        return embed_guidance(w, self.config.guidance_dim, self.config.guidance_scale)

    def _features(self, guidance: Guidance, rows: int, device: torch.device) -> Tensor:
        return self._embed(torch.full((rows,), guidance.w, device=device))

    def _top(self) -> float:
        return Guidance.from_w(self.config.w_max).scale

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """EDM's weighted denoising error against the target of Tang et al. (2025).

        Rows with a dropped label have g = 1 and m = 0 and train the null branch. Inside the target
        the null branch is evaluated without dropout.
        """
        c = self.config
        at = Noised(c, batch, rng)
        w = c.w_max * rng.rand() * at.keep
        denoised = nets(
            at.x, at.sigma, at.labels, self._embed(w), form="train", dropout=rng.dropout("denoiser")
        )
        with torch.no_grad():
            null = torch.zeros_like(at.labels), self._embed(torch.zeros_like(w))
            d_null = nets(at.x, at.sigma, *null, form="train")
        target = guided_target(batch.x0, denoised.detach(), d_null, w)
        return {"denoise": at.weight * (denoised - target).square().flatten(1).sum(1)}


def guided_target(y: Tensor, d_guided: Tensor, d_null: Tensor, w: Tensor) -> Tensor:
    """The target y + m (d_guided - d_null) with m = 1 - 1/g = w / (1 + w); `w` is (B,)."""
    return y + per_sample(w / (1 + w), y) * (d_guided - d_null)
