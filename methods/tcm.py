"""Truncated consistency training: a second stage that learns the upper noise levels only.

Source: Lee et al. (2024), "Truncated Consistency Models" (arXiv 2410.14895). The first stage is a
run of `ct`. Its frozen network gives the targets below the dividing level, so that all capacity of
the second network serves the levels above, where one-step generation starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from scipy.special import stdtr, stdtrit
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import per_sample, pseudo_huber, smaller_sigma, stage_at
from methods.consistency_model import ConsistencyModel
from methods.ct import ECTConfig
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.registry import register
from methods.rng import BatchRNG
from methods.settings import CIFAR10, Preset, TrainSettings, ascending, image_preset

R_MIN = 1e-6
"""The smallest r of a pair."""


class TCMConfig(ECTConfig):
    """Adds the dividing level, its share of the batch, and the tail of the noise levels.

    The defaults are the paper's for CIFAR-10.
    """

    p_mean: float = 0.0
    p_std: float = Field(0.2, gt=0)
    tail: float = Field(
        0.01, gt=0, description="degrees of freedom of Student's t of (ln(sigma) - p_mean) / p_std"
    )
    limit: float = Field(0.999, gt=0, lt=1, description="upper bound of 1 - q^-(stage + 1)")
    dividing_sigma: float = Field(
        1.0, gt=0, description="noise level below which the first stage is used"
    )
    boundary_share: float = Field(
        0.25, gt=0, lt=1, description="share of the batch at the dividing level"
    )
    boundary_weight: float = Field(0.1, gt=0, description="weight of their mean loss")
    middle_sigma: tuple[float, ...] = Field((1.0,), description="noise levels after the first")

    @model_validator(mode="after")
    def _levels_are_trained(self) -> Self:
        ascending("dividing_sigma and sigma_max", self.dividing_sigma, self.sigma_max)
        if any(level < self.dividing_sigma for level in self.middle_sigma):
            raise ValueError(
                f"middle_sigma {list(self.middle_sigma)} must be at least dividing_sigma "
                f"{self.dividing_sigma:g}: the network is not trained below"
            )
        return self


# All noise levels are larger than the paper's by the ratio of sigma_data to .5.
_TOY = TCMConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    sigma_data=2.01,
    sigma_min=0.002,
    p_mean=math.log(4),
    dividing_sigma=4.0,
    middle_sigma=(4.0,),
    c_h=0.3,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=1500, batch=256, lr=1e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = TCMConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    sigma_data=0.75,
    p_mean=math.log(1.5),
    dividing_sigma=1.5,
    middle_sigma=(1.5,),
    first_stage=2,
    last_stage=5,
    c_h=0.06,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=5e-4, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
# The second stage. A new stage of r(t) every 25,000 steps.
_CIFAR10 = TCMConfig(
    net=published.CIFAR10_EDM.model_copy(update={"dropout": 0.2}), last_stage=11, c_h=1e-8
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=300_000, batch=1024, lr=5e-5, ema=0.9999, ema_ramp=False, checkpoint_every=1000
)


@register
class TCM(ConsistencyModel[TCMConfig]):
    """The second stage of truncated consistency training, after a run of `ct`; no guidance.

    Sampling uses no level below the dividing one, so a run has the weights of one network. Unlike
    the authors' first-stage network, that of the run has no dropout while it gives targets.
    """

    name = "tcm"
    summary = "truncated consistency training after a ct run, no guidance (Lee 2024)"
    config_type = TCMConfig
    wants_teacher = "ct"
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="ct",
            # One training seed, whose first stage has .131 / .042 and .966 / .968.
            expected={"w1, 1 / 2 steps": ".105 / .031", "within3, 1 / 2 steps": ".985 / .971"},
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="ct",
            # One training seed, whose first stage has .165 / .054 and .71 / .91.
            expected={"w1, 1 / 2 steps": ".090 / .034", "within3, 1 / 2 steps": ".987 / .942"},
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            init_from="ct",
            # 300 samples; after a ct run of 900 iterations, which has 6.4 / .78 / .90 in one step.
            expected={
                "fd, 1 / 2 steps": "7.1 / 7.2",
                "precision, 1 / 2 steps": ".79 / .80",
                "recall, 1 / 2 steps": ".88 / .83",
            },
        ),
        "cifar10": image_preset(
            CIFAR10,
            _CIFAR10,
            _CIFAR10_TRAIN,
            full_size=True,
            steps=(1, 2),
            init_from="ct",
            expected={"published FID without classes, 1 / 2 steps": "2.46 / 2.05"},
        ),
    }

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Pseudo-Huber distance between the denoiser at t and a target at r < t, over t - r.

        The target is the first stage where r is below the dividing level, and the network itself
        above. "boundary" are the rows whose t is the dividing level: their target is always the
        first stage. The loss is mean("consistency" rows) + boundary_weight mean("boundary" rows).
        """
        if batch.teacher is None:
            raise ValueError("tcm needs a teacher")
        c = self.config
        x0, labels = batch.x0, batch.labels
        at_boundary, count = boundary_rows(rng, c.boundary_share)
        t = self.levels(rng.rand())
        t = torch.where(at_boundary, torch.full_like(t, c.dividing_sigma), t)
        stage = stage_at(progress, c.first_stage, c.last_stage)
        exponent = min(stage + 1, -math.log(1 - c.limit, c.q))
        r = smaller_sigma(t, exponent, c.q, c.k, c.b).clamp(min=R_MIN)
        eps = rng.randn(*x0.shape[1:])

        def noisy(sigma: Tensor) -> Tensor:
            return x0 + per_sample(sigma, x0) * eps

        def denoise(sigma: Tensor) -> Tensor:
            out: Tensor = nets(
                noisy(sigma), sigma, labels, form="train", dropout=rng.dropout("denoiser")
            )
            return out

        with torch.no_grad():
            below = r < c.dividing_sigma
            target = x0 if bool(below.all()) else denoise(r)
            if bool(below.any()):
                first = batch.teacher(noisy(r)[below], r[below], labels[below])
                target = target.clone()
                target[below] = first.to(target)
        distance = pseudo_huber(denoise(t) - target, c.c_h) / (t - r)
        # Each mean is over its own rows of the whole batch, and the training loss divides by all.
        boundary = distance * (c.boundary_weight * rng.total / max(count, 1))
        other = distance * (rng.total / (rng.total - count))
        return {
            "consistency": torch.where(at_boundary, 0.0, other),
            "boundary": torch.where(at_boundary, boundary, 0.0),
        }

    def levels(self, u: Tensor) -> Tensor:
        """Noise levels (B,) for u in [0, 1): ln(sigma) is Student's t, from the dividing level up.

        Its few degrees of freedom make the density of ln(sigma) fall as 1 / ln(sigma).
        """
        c = self.config
        ends = torch.tensor([c.dividing_sigma, c.sigma_max], dtype=torch.float64)
        low, high = stdtr(c.tail, ((ends.log() - c.p_mean) / c.p_std).numpy())
        normed = stdtrit(c.tail, low + u.double().cpu().numpy() * (high - low))
        sigma = torch.exp(c.p_mean + c.p_std * torch.from_numpy(normed)).to(u)
        return sigma.clamp(c.dividing_sigma, c.sigma_max)


def boundary_rows(rng: BatchRNG, share: float) -> tuple[Tensor, int]:
    """Which rows are at the dividing level, (B,) bool, and their number in the whole batch.

    They are spread evenly, so that all processes and slices have about as many.
    """
    count = int(share * rng.total)
    row = torch.arange(rng.start, rng.stop, device=rng.device)
    return (row + 1) * count // rng.total > row * count // rng.total, count
