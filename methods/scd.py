"""sCD: consistency distillation in continuous time, for a range of guidance scales.

Source: Lu & Song (2024), "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models"
(arXiv 2410.11081). CIFAR-10 settings are those of NVIDIA's reproduction FastGen. The authors train
one network per guidance scale. Here the network takes the scale, as in `guided-cd`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import per_sample
from methods.consistency_model import GuidedConsistencyConfig, GuidedConsistencyModel
from methods.guided_cd import guided_teacher
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.precond import Form
from methods.registry import register
from methods.rng import BatchRNG
from methods.settings import CIFAR10, Preset, TrainSettings, image_preset
from methods.trigflow import TrigFlowConfig, tangent_loss, with_loss_weight


class SCDConfig(TrigFlowConfig, GuidedConsistencyConfig):
    """The settings of `TrigFlowConfig`, and those of the guidance scale."""


# Equal weights, as for `sct`. The tangent may be normalised, since it has no sample noise; c = 1
# limits the share of high scales. No warm-up: without the derivative the target is the teacher's
# guided denoiser, which is far outside the data at high noise and scale (here up to 30). W1 of one
# step on modes1d at g = 1 / 4 / 8 / 14, one training seed:
# warm-up, not normalised, 4000 steps: .86 / .71 / 1.8 / 3.1.
# warm-up, normalised, 3000 steps: .80 / .87 / 1.7 / 2.9.
# no warm-up, normalised, 2500 steps: .42 / .28 / .88 / 2.0.
# the same, 6000 steps at lr 2e-3: .63 / .65 / 1.4 / 3.9.
_TOY = SCDConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    guidance_scale=1.0,
    sigma_data=2.01,
    p_mean=-0.3,
    p_std=1.8,
    tangent_floor=1.0,
    weight_power=0.0,
    learned_weight=False,
    middle_sigma=(0.8,),
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=2500, batch=256, lr=1e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = SCDConfig(
    net=UNetConfig(kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1),
    guidance_dim=64,
    guidance_scale=1.0,
    sigma_data=0.75,
    p_mean=-0.6,
    p_std=1.6,
    weight_power=0.0,
    learned_weight=False,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
# The authors' network is DDPM++ without classes and guidance; ours is that of the other methods.
_CIFAR10 = SCDConfig(net=published.CIFAR10_EDM, tangent_warmup=10 / 500)
_CIFAR10_TRAIN = TrainSettings(
    iterations=500_000, batch=512, lr=1e-4, betas=(0.9, 0.99), ema=0.9999, ema_ramp=False,
    checkpoint_every=1000,
)  # fmt: skip


@register
class SCD(GuidedConsistencyModel[SCDConfig]):
    """A few-step student of a diffusion model under CFG, trained in continuous time."""

    name = "scd"
    summary = "continuous-time guided distillation of an edm run (sCM, Lu & Song 2024)"
    config_type = SCDConfig
    wants_teacher = "edm"
    form: ClassVar[Form] = "train"
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="edm",
            # One training seed. The teacher has .01 / .29 / .74 / 1.5.
            expected={
                "w1 at g = 1 / 4 / 8 / 14, 1 step": ".42 / .28 / .87 / 2.0",
                "w1 at g = 1 / 4 / 8 / 14, 2 steps": ".22 / .16 / .47 / 1.2",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="edm",
            # One training seed. In one step 12% of the samples are within 3 deviations of a mode.
            expected={
                "w1 at g = 1 / 4 / 8 / 14, 1 step": ".85 / .84 / .98 / 1.1",
                "w1 at g = 1 / 4 / 8 / 14, 2 steps": ".13 / .13 / .19 / .24",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            init_from="edm",
            # One training seed, 300 samples; from an edm run of 1000 iterations.
            expected={
                "fd at g = 1 / 4 / 8 / 14, 1 step": "22 / 46 / 63 / 66",
                "fd at g = 1 / 4 / 8 / 14, 2 steps": "16 / 42 / 62 / 68",
                "precision at g = 1 / 4 / 8 / 14, 2 steps": ".78 / .71 / .65 / .61",
                "recall at g = 1 / 4 / 8 / 14, 2 steps": ".64 / .29 / .12 / .05",
            },
        ),
        "cifar10": image_preset(
            CIFAR10,
            _CIFAR10,
            _CIFAR10_TRAIN,
            full_size=True,
            steps=(1, 2),
            init_from="edm",
            expected={"published FID without classes and guidance, 1 step": "3.66"},
        ),
    }

    def build(self) -> nn.Module:
        """`ConsistencyPrecond` with its guided network under `model`."""
        return with_loss_weight(super().build(), self.config)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """`tangent_loss` along the teacher's guided ODE, dx/dsigma = (x - D_g) / sigma.

        D_g is the teacher under CFG with w = g - 1, which is drawn from [0, w_max].
        """
        if batch.teacher is None:
            raise ValueError("scd needs a teacher")
        c, labels = self.config, batch.labels
        sigma, w = c.levels(rng), c.w_max * rng.rand()
        x = batch.x0 + per_sample(sigma, batch.x0) * rng.randn(*batch.x0.shape[1:])
        with torch.no_grad():
            guided = guided_teacher(batch.teacher, labels, w)(x, sigma)
            slope = (x - guided.to(x)) / per_sample(sigma, x)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            out: Tensor = nets(
                x, sigma, labels, self.embed(w), form="train", dropout=rng.dropout("denoiser")
            )
            return out

        return {"tangent": tangent_loss(nets, denoise, x, sigma, slope, c, progress)}
