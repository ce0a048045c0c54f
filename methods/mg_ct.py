"""Guided consistency training: consistency training along a model's guided step.

Sources: Tang et al. (2025), "Diffusion Models without Classifier-free Guidance" (model guidance),
for adding the difference of a model's two branches to a target from the data; Geng et al. (2024)
for consistency training; Hsu, Kao, Balestriero (2025, iGCT) for guiding its step. The combination
is this project's own. It separates two parts of iGCT: guiding consistency training at all, and
estimating both branches from single images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import (
    consistency_target,
    per_sample,
    pseudo_huber,
    smaller_sigma,
    stage_at,
    training_sigma,
)
from methods.consistency_model import GuidedConsistencyConfig, GuidedConsistencyModel
from methods.ct import ECTConfig
from methods.igct_loss import GuidedDraws
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.registry import register
from methods.rng import BatchRNG
from methods.settings import CIFAR16, Preset, TrainSettings, ascending, image_preset

Estimate = Literal["teacher", "decoupled"]


class MGCTConfig(ECTConfig, GuidedConsistencyConfig):
    """The settings of `ct`, plus the source of guidance and the noise levels that it acts on."""

    estimate: Estimate = Field(
        "teacher",
        description="source of both branches: the teacher, or iGCT's pair of single images",
    )
    interval: tuple[float, float] | None = Field(
        None, description="sigma range of guided steps; None: all"
    )
    window: float = Field(11.0, ge=0, description="sigma above which 'decoupled' guides steps")

    @model_validator(mode="after")
    def _interval_ordered(self) -> Self:
        if self.interval is not None:
            ascending("interval", *self.interval)
        return self

    def guided_at(self, t: Tensor) -> Tensor:
        """Whether the step from each noise level is guided: (B,) => (B,) bool."""
        low, high = self.interval or (0.0, float("inf"))
        inside = (low <= t) & (t <= high)
        return inside & (t > self.window) if self.estimate == "decoupled" else inside


@dataclass(frozen=True)
class GuidedPair:
    """Both ends of a guided step, and the clean target for steps to r = 0; all (B, ...)."""

    x_t: Tensor
    x_r: Tensor
    clean: Tensor


def guided_target(batch: Batch, draws: GuidedDraws, estimate: Estimate) -> GuidedPair:
    """One Euler step of the guided ODE from t to r, with samples in place of denoiser outputs.

    The slope under CFG is (x - D_c - w (D_c - D_null)) / t with w = g - 1.

    "teacher": x_t = x0 + t eps. x0 replaces the first D_c, which is its mean given x_t:
    x_r = x_t + (r - t) [eps - w (D_c - D_null) / t]. Both D are the teacher's at x_t, from one
    call on a doubled batch. At r = 0 the step ends at the clean target x0 + w (D_c - D_null).

    "decoupled": iGCT's estimate (its section 3). Guided rows start from an independent image y_d,
    which replaces D_null, and x0 replaces D_c: x_r = x_t + (r - t) [eps - (1 + w) (x0 - y_d) / t].
    The clean target is y_d.

    Unguided rows are those of plain consistency training. Raises ValueError if the batch has no
    teacher or no decoupled images and the estimate needs them.
    """
    x0, eps = batch.x0, draws.eps
    t, r, w = (per_sample(v, x0) for v in (draws.t, draws.r, draws.w))
    guided = per_sample(draws.guided, x0)
    if estimate == "teacher":
        if batch.teacher is None:
            raise ValueError("mg-ct needs a teacher")
        start = x0
        x_t = start + t * eps
        both = torch.cat([batch.labels, torch.zeros_like(batch.labels)])
        with torch.no_grad():
            d_c, d_null = batch.teacher(
                torch.cat([x_t, x_t]), torch.cat([draws.t, draws.t]), both
            ).chunk(2)
        shift = torch.where(guided, w * (d_c - d_null), 0.0)
        clean = start + shift
    else:
        if batch.decoupled is None:
            raise ValueError("mg-ct with estimate 'decoupled' needs decoupled images")
        start = torch.where(guided, batch.decoupled, x0)
        x_t = start + t * eps
        shift = (1.0 + w) * (x0 - start)
        clean = start
    # x_t + (r - t) (eps - shift / t), without the rounding error of t eps - t eps at large t.
    return GuidedPair(x_t, start + r * eps + (1.0 - r / t) * shift, clean)


_TOY = MGCTConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    guidance_scale=1.0,
    sigma_data=2.01,
    sigma_min=0.002,
    last_stage=6,
    c_h=0.3,
    middle_sigma=(0.8,),
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=8000, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = MGCTConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    guidance_dim=64,
    guidance_scale=1.0,
    sigma_data=0.75,
    p_mean=-0.4,
    p_std=1.6,
    first_stage=2,
    last_stage=5,
    c_h=0.06,
    window=4.0,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
_TINY = MGCTConfig(
    net=published.TINY, guidance_scale=1.0, first_stage=2, last_stage=5, c_h=0.03, window=4.0
)
_TINY_TRAIN = TrainSettings(
    iterations=1500, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7,
    final_lr=0.01, checkpoint_every=200,
)  # fmt: skip


@register
class MGCT(GuidedConsistencyModel[MGCTConfig]):
    """Consistency training for a range of scales, guided by a diffusion model or by data.

    The estimate "decoupled" does not call the teacher.
    """

    name = "mg-ct"
    summary = "guided consistency training, an edm run as guide, 1-2 steps (after Tang 2025)"
    config_type = MGCTConfig
    wants_decoupled: ClassVar[bool] = True
    wants_teacher = "edm"
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="edm",
            # The teacher has .01 / .29 / .74 / 1.5. The student is worse at g = 1, near the teacher
            # at g = 4 in one step, and overshoots at g = 14.
            expected={
                "w1 at g = 1 / 4 / 8 / 14, 1 step": ".17 / .30 / .58 / 2.6",
                "w1 at g = 1 / 4 / 8 / 14, 2 steps": ".13 / .17 / .30 / 2.0",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d", config=_TOY, train=_TOY_TRAIN, steps=(1, 2), init_from="edm"
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1,),
            init_from="edm",
            # After 900 iterations, as in the suite "reference". With the estimate "decoupled", fd
            # is 13 to 14 at all of these scales.
            expected={
                "fd at g = 1 / 4 / 8 / 14": "15 / 45 / 57 / 53",
                "precision at g = 1 / 4 / 8 / 14": ".87 / .78 / .70 / .65",
                "recall at g = 1 / 4 / 8 / 14": ".42 / .11 / .09 / .04",
            },
        ),
        "cifar16": image_preset(CIFAR16, _TINY, _TINY_TRAIN, steps=(1, 2), init_from="edm"),
    }

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Pseudo-Huber distance of the denoiser at both ends of a guided step, over t - r (ECT).

        Noise levels and stages are those of `ct`. Both calls share w and the dropout mask. Where
        r = 0 the target is the clean target of `guided_target`.
        """
        c = self.config
        t = training_sigma(rng.randn(), c.p_mean, c.p_std, c.sigma_max)
        stage = stage_at(progress, c.first_stage, c.last_stage)
        r = smaller_sigma(t, stage + 1, c.q, c.k, c.b)
        eps, w = rng.randn(*batch.x0.shape[1:]), c.w_max * rng.rand()
        pair = guided_target(batch, GuidedDraws(t, r, w, c.guided_at(t), eps), c.estimate)

        def student(x: Tensor, sigma: Tensor) -> Tensor:
            out: Tensor = nets(
                x,
                sigma,
                batch.labels,
                self.embed(w),
                form="train",
                dropout=rng.dropout("denoiser"),
            )
            return out

        target = consistency_target(lambda: student(pair.x_r, r), r, pair.clean)
        return {"guided": pseudo_huber(student(pair.x_t, t) - target, c.c_h) / (t - r)}
