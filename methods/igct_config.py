"""Settings and presets of iGCT; see `methods.igct`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from methods.nets import published
from methods.nets.config import MLPConfig, NetConfig, UNetConfig
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


class IGCTConfig(Settings):
    """Settings of the networks, noise levels, guided window, loss weights, and the sampler.

    The defaults are the authors' for CIFAR-10. For small data P_mean, c_h, the window and the scale
    of the guidance embedding must be rescaled.
    """

    net: NetConfig
    guidance_dim: int = Field(256, ge=4, multiple_of=2)
    guidance_scale: float = Field(1000.0, gt=0, description="factor of w before its embedding")
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    p_mean: float = -1.1
    p_std: float = Field(2.0, gt=0)
    inverse_p_mean: float | None = Field(None, description="p_mean of the noiser; None: same")
    inverse_p_std: float | None = Field(None, description="p_std of the noiser; None: same")
    q: float = Field(2.0, gt=1)
    k: float = Field(8.0, ge=0)
    b: float = Field(1.0, gt=0)
    first_stage: int = Field(0, ge=0)
    last_stage: int = Field(8, ge=0)
    stage_iterations: int | None = Field(
        None, ge=1, description="steps per stage; the last is open-ended; None: equally long stages"
    )
    c_h: float = Field(0.03, gt=0)
    w_max: float = Field(14.0, gt=0, description="w = g - 1 is drawn from [0, w_max] in training")
    window: tuple[float, float] = Field(
        (11.0, 14.3), description="sigma range of the guidance ramp"
    )
    window_power: float = 2.0
    p_max: float = Field(0.9, ge=0, le=1)
    reconstruction_weight: float = Field(2e-5, ge=0)
    reconstruction_schedule: tuple[tuple[int, float], ...] | None = Field(
        None, description="ascending (step, weight) pairs; each weight holds from its step on"
    )
    reconstruction_every: int = Field(10, ge=1)
    noiser_form: Literal["train", "eval"] = Field(
        "eval", description="form of the noiser at inference; the authors drop the skip: 'eval'"
    )
    middle_sigma: tuple[float, ...] = Field((0.821,), description="noise levels after the first")
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")
    clamp_between: bool = Field(
        True, description="clip before the noise of the next step is added too, as iGCT does"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("stages", self.first_stage, self.last_stage, strict=False)
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        ascending("window", *self.window)
        changes = self.reconstruction_schedule or ()
        for (step, _), (later, _) in pairwise(changes):
            ascending("steps of reconstruction_schedule", step, later)
        if any(step < 0 or weight < 0 for step, weight in changes):
            raise ValueError("steps and weights of reconstruction_schedule must not be negative")
        return self

    def reconstruction_at(self, step: int) -> float:
        """The weight of the reconstruction loss at step `step`."""
        weight = self.reconstruction_weight
        for start, value in self.reconstruction_schedule or ():
            if step >= start:
                weight = value
        return weight


_TOY = IGCTConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    guidance_scale=1.0,
    sigma_data=2.01,
    last_stage=6,
    c_h=0.3,
    reconstruction_weight=1e-2,
    middle_sigma=(0.8,),
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=3000, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = IGCTConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    guidance_dim=64,
    guidance_scale=1.0,
    sigma_data=0.75,
    p_mean=-0.4,
    p_std=1.6,
    inverse_p_mean=-0.4,
    inverse_p_std=1.8,
    first_stage=2,
    last_stage=5,
    c_h=0.06,
    window=(4.0, 6.0),
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)

_CIFAR10 = IGCTConfig(
    net=published.CIFAR10.model_copy(update={"dropout": 0.2}), stage_iterations=40_000
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=360_000,  # 368.64M images
    batch=1024,
    lr=1e-4,
    ema=0.9999,
    ema_ramp=False,
    checkpoint_every=1000,
)
_IMAGENET64 = IGCTConfig(
    net=published.IMAGENET64_NARROW.model_copy(update={"dropout": 0.3}),
    last_stage=6,
    stage_iterations=40_000,
    c_h=0.06,
    reconstruction_schedule=((180_000, 4e-5), (200_000, 6e-5)),
)
_IMAGENET64_TRAIN = _CIFAR10_TRAIN.model_copy(update={"iterations": 260_000})  # 266.24M images
# A denoiser that starts from EDM's weights can skip the stages that teach denoising. At half the
# paper's batch, the paper's window would leave 15 guided rows per step. A lower window that rejects
# no rows gives 23. It takes more contrast from the images: docs/findings/narrowing.md.
_SMALL = IGCTConfig(net=published.SMALL, first_stage=2, last_stage=8, window=(8.0, 11.0), p_max=1.0)
# About six minutes on one H100 in bf16, estimated and not measured.
_SMALL_TRAIN = TrainSettings(
    iterations=1800, batch=512, lr=3e-4, warmup=200, decay_from=0.7, final_lr=0.1,
    checkpoint_every=500,
)  # fmt: skip
# The published window: a lower one takes contrast from the images, at g = 1 too. The factor 1 makes
# the curves of the toys smooth. See docs/findings.
_TINY = IGCTConfig(net=published.TINY, guidance_scale=1.0, first_stage=2, last_stage=5)
_TINY_TRAIN = TrainSettings(
    iterations=1500, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7,
    final_lr=0.01, checkpoint_every=200,
)  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    "modes1d": Preset(
        dataset="modes1d",
        config=_TOY,
        train=_TOY_TRAIN,
        steps=(1, 2),
        expected={
            "abs(mean - 2), 2 steps, every g": "<= .05",
            "w1, 2 steps, every g": "<= .04",
            "within3, 2 steps, every g": ">= .98",
        },
    ),
    "modes2d": Preset(
        dataset="modes2d",
        config=_TOY,
        train=_TOY_TRAIN,
        steps=(1, 2),
        expected={"w1, 2 steps, g = 14": ".015"},
    ),
    "digits": Preset(
        dataset="digits",
        config=_DIGITS,
        train=_DIGITS_TRAIN,
        steps=(1,),
        init_from="edm",
        expected={"fd, 1 step, every g": "<= 20", "class_accuracy": ">= .93"},
    ),
    "digits-demo": Preset(
        dataset="digits",
        config=_DIGITS,
        train=_DIGITS_TRAIN.model_copy(update={"iterations": 320}),
        steps=(1,),
        init_from="edm",
    ),
    "cifar10": image_preset(
        CIFAR10,
        _CIFAR10,
        _CIFAR10_TRAIN,
        full_size=True,
        steps=(1, 2),
        expected={
            "published FID at g = 1 / 7 / 13, 1 step": "4.09 / 10.05 / 14.04",
            "published precision / recall at g = 13.5": ".803 / .289",
        },
    ),
    "cifar10-small": image_preset(CIFAR10, _SMALL, _SMALL_TRAIN, steps=(1, 2), init_from="edm"),
    "cifar16": image_preset(CIFAR16, _TINY, _TINY_TRAIN, steps=(1, 2), init_from="edm"),
    "imagenet64": image_preset(
        IMAGENET64, _IMAGENET64, _IMAGENET64_TRAIN, full_size=True, steps=(1, 2)
    ),
}
