"""Consistency training without guidance: the baseline that shows what guidance adds.

Sources: Geng et al. (2024), "Consistency Models Made Easy" (ECT); Song & Dhariwal (2023), "Improved
Techniques for Training Consistency Models" (iCT). The two noise levels of a pair approach each
other in stages, and the network provides its own target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from methods.base import Batch, Progress, Teaches
from methods.consistency import (
    consistency_target,
    per_sample,
    pseudo_huber,
    smaller_sigma,
    stage_at,
    training_sigma,
)
from methods.consistency_model import ConsistencyConfig, ConsistencyModel
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.precond import Form
from methods.registry import register
from methods.rng import BatchRNG
from methods.samplers import karras_sigmas
from methods.settings import (
    CIFAR10,
    CIFAR16,
    IMAGENET64,
    Preset,
    TrainSettings,
    ascending,
    image_preset,
)


class ECTConfig(ConsistencyConfig):
    """Adds the training noise levels, the stages of r(t), and the distance."""

    sigma_min: float = Field(0.003, gt=0)
    p_mean: float = -1.1
    p_std: float = Field(2.0, gt=0)
    q: float = Field(2.0, gt=1)
    k: float = Field(8.0, ge=0)
    b: float = Field(1.0, gt=0)
    first_stage: int = Field(0, ge=0)
    last_stage: int = Field(7, ge=0)
    c_h: float = Field(0.0, ge=0, description="pseudo-Huber constant; 0 is the plain norm")

    @model_validator(mode="after")
    def _stages_ordered(self) -> Self:
        ascending("stages", self.first_stage, self.last_stage, strict=False)
        return self


class CTConfig(ECTConfig):
    """Adds iCT's grid of noise levels, in place of ECT's stages."""

    intervals: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="intervals of iCT's grid of noise levels in the first and the last stage, "
        "doubled in between; null: ECT's stages",
    )

    @model_validator(mode="after")
    def _intervals_ordered(self) -> Self:
        if self.intervals is not None:
            ascending("intervals", *self.intervals, strict=False)
        return self


_TOY = CTConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    sigma_data=2.01,
    sigma_min=0.002,
    last_stage=6,
    c_h=0.3,
    middle_sigma=(0.8,),
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=2000, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = CTConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    sigma_data=0.75,
    p_mean=-0.4,
    p_std=1.6,
    first_stage=2,
    last_stage=5,
    c_h=0.06,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)

# Geng et al. (2024): batch 128, RAdam at 1e-4, started from EDM's weights. The network is the one
# that the other methods here use (NCSN++). Dropout and EMA are iGCT's.
_CIFAR10 = CTConfig(net=published.CIFAR10_EDM.model_copy(update={"dropout": 0.2}))
_CIFAR10_TRAIN = TrainSettings(
    iterations=400_000, batch=128, lr=1e-4, ema=0.9999, ema_ramp=False, checkpoint_every=5000
)
# Their ImageNet-64 networks are EDM2's, which are not built in. We use EDM's ADM instead, so that
# training can start from its weights. Noise levels and c are theirs, the number of stages iGCT's.
_IMAGENET64 = CTConfig(
    net=published.IMAGENET64.model_copy(update={"dropout": 0.3}),
    p_mean=-0.8,
    p_std=1.6,
    last_stage=6,
    c_h=0.06,
)
_IMAGENET64_TRAIN = _CIFAR10_TRAIN.model_copy(update={"iterations": 100_000})
_SMALL = CTConfig(net=published.SMALL, first_stage=2, c_h=0.03)
# About six minutes on one H100 in bf16, estimated and not measured.
_SMALL_TRAIN = TrainSettings(
    iterations=4500, batch=512, lr=3e-4, warmup=200, decay_from=0.7, final_lr=0.1,
    checkpoint_every=500,
)  # fmt: skip
_TINY = CTConfig(net=published.TINY, first_stage=2, c_h=0.03)
_TINY_TRAIN = TrainSettings(
    iterations=2000, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7,
    final_lr=0.01, checkpoint_every=200,
)  # fmt: skip

# Song & Dhariwal (2023): from scratch, with the noise features of scale .02. Number of iterations
# from memory.
_ICT = {"intervals": (10, 1280), "sigma_min": 0.002}
_CIFAR10_ICT = CTConfig(net=published.CIFAR10.model_copy(update={"dropout": 0.3}), c_h=0.03, **_ICT)
_CIFAR10_ICT_TRAIN = TrainSettings(
    iterations=400_000, batch=1024, lr=1e-4, ema=0.99993, ema_ramp=False, checkpoint_every=1000
)


@register
class CT(ConsistencyModel[CTConfig], Teaches):
    """Conditional consistency training with ECT's schedule, or iCT's; takes no guidance."""

    name = "ct"
    summary = "consistency training, no guidance (ECT, Geng 2024; presets -ict: Song 2023)"
    config_type = CTConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            expected={"w1, 2 steps": ".022", "within3, 2 steps": ".989"},
        ),
        "modes2d": Preset(dataset="modes2d", config=_TOY, train=_TOY_TRAIN, steps=(1, 2)),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1,),
            init_from="edm",
            expected={"fd, 1 step, after 900 iterations": "6.4"},
        ),
        "digits-demo": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN.model_copy(update={"iterations": 320}),
            steps=(1,),
            init_from="edm",
        ),
        "modes1d-ict": Preset(
            dataset="modes1d",
            config=_TOY.model_copy(update=_ICT),
            train=_TOY_TRAIN,
            steps=(1, 2),
            # One training seed.
            expected={"w1, 1 / 2 steps": ".19 / .052", "within3, 1 / 2 steps": ".84 / .96"},
        ),
        "modes2d-ict": Preset(
            dataset="modes2d",
            config=_TOY.model_copy(update=_ICT),
            train=_TOY_TRAIN,
            steps=(1, 2),
            # One training seed.
            expected={"w1, 1 / 2 steps": ".24 / .089"},
        ),
        "digits-ict": Preset(
            dataset="digits",
            config=_DIGITS.model_copy(update=_ICT),
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            # One training seed, 300 samples, after 900 iterations.
            expected={
                "fd, 1 / 2 steps": "11.3 / 8.7",
                "precision, 1 / 2 steps": ".68 / .74",
                "recall, 1 / 2 steps": ".87 / .85",
            },
        ),
        "cifar10": image_preset(
            CIFAR10, _CIFAR10, _CIFAR10_TRAIN, full_size=True, steps=(1, 2), init_from="edm"
        ),
        "cifar10-ict": image_preset(
            CIFAR10,
            _CIFAR10_ICT,
            _CIFAR10_ICT_TRAIN,
            full_size=True,
            steps=(1, 2),
            expected={"published FID without classes, 1 / 2 steps": "2.83 / 2.46"},
        ),
        "cifar10-small": image_preset(CIFAR10, _SMALL, _SMALL_TRAIN, steps=(1, 2), init_from="edm"),
        "cifar16": image_preset(CIFAR16, _TINY, _TINY_TRAIN, steps=(1, 2), init_from="edm"),
        "imagenet64": image_preset(
            IMAGENET64,
            _IMAGENET64,
            _IMAGENET64_TRAIN,
            full_size=True,
            steps=(1, 2),
            init_from="edm",
        ),
    }

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Pseudo-Huber distance between the denoiser at t and at r < t, divided by t - r.

        The two calls share eps and the dropout mask. At r = 0 the target is the clean sample. iCT
        uses the inference form of the denoiser, which is the identity at its smallest r, sigma_min.
        """
        c = self.config
        x0 = batch.x0
        t, r = noise_pair(c, progress, rng)
        eps = rng.randn(*x0.shape[1:])
        form: Form = "train" if c.intervals is None else "eval"

        def denoise(sigma: Tensor) -> Tensor:
            x = x0 + per_sample(sigma, x0) * eps
            out: Tensor = nets(x, sigma, batch.labels, form=form, dropout=rng.dropout("denoiser"))
            return out

        target = consistency_target(lambda: denoise(r), r, x0)
        return {"consistency": pseudo_huber(denoise(t) - target, c.c_h) / (t - r)}

    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The clean sample on the trajectory through x, by the form of training."""
        out: Tensor = nets(x, sigma, labels, form="train")
        return out

    def cannot_teach(self) -> str | None:
        """It can: `tcm` calls it with the labels of the data only."""
        return None


def noise_pair(c: CTConfig, progress: Progress, rng: BatchRNG) -> tuple[Tensor, Tensor]:
    """The noise levels t and r < t (B,) of a step, from one draw.

    ECT: t is lognormal, and r(t) approaches it in stages. iCT: neighbours of Karras's grid from
    sigma_min to sigma_max, drawn with the probability of a lognormal level between them.
    """
    if c.intervals is None:
        t = training_sigma(rng.randn(), c.p_mean, c.p_std, c.sigma_max)
        stage = stage_at(progress, c.first_stage, c.last_stage)
        return t, smaller_sigma(t, stage + 1, c.q, c.k, c.b)
    count = intervals_at(progress, *c.intervals)
    grid = karras_sigmas(count + 1, c.sigma_min, c.sigma_max)[:-1].flip(0)
    share = torch.special.ndtr((grid.log() - c.p_mean) / c.p_std)
    u = share[0] + rng.rand().double().cpu() * (share[-1] - share[0])
    upper = torch.searchsorted(share, u).clamp(1, count)
    return grid[upper].to(rng.device, torch.float32), grid[upper - 1].to(rng.device, torch.float32)


def intervals_at(progress: Progress, first: int, last: int) -> int:
    """Intervals of iCT's grid at a step: doubled after equal shares of training, at most `last`."""
    doublings = (last // first).bit_length() - 1
    return min(first << stage_at(progress, 0, doublings), last)
