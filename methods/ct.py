"""Consistency training without guidance: the baseline that shows what guidance adds.

Source: Geng et al. (2024), "Consistency Models Made Easy" (ECT). The two noise levels of a pair
approach each other in stages, and the network provides its own target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Method, Progress
from methods.consistency import (
    consistency_target,
    per_sample,
    pseudo_huber,
    smaller_sigma,
    stage_at,
    training_sigma,
)
from methods.guidance import Guidance
from methods.nets import published
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.precond import ConsistencyPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.samplers import sample_consistency
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
from methods.warm_start import denoiser_weights


class CTConfig(Settings):
    """Settings of the network, the noise levels, the stages of r(t), and the sampler."""

    net: NetConfig
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.003, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    p_mean: float = -1.1
    p_std: float = Field(2.0, gt=0)
    q: float = Field(2.0, gt=1)
    k: float = Field(8.0, ge=0)
    b: float = Field(1.0, gt=0)
    first_stage: int = Field(0, ge=0)
    last_stage: int = Field(7, ge=0)
    c_h: float = Field(0.0, ge=0, description="pseudo-Huber constant; 0 is the plain norm")
    middle_sigma: tuple[float, ...] = Field((0.821,), description="noise levels after the first")
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")
    clamp_between: bool = Field(
        False, description="clip before the noise of the next step is added too; ECT does not"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("stages", self.first_stage, self.last_stage, strict=False)
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
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


@register
class CT(Method[CTConfig]):
    """Conditional consistency training with ECT's schedule; takes no guidance."""

    name = "ct"
    summary = "consistency training, class-conditional, no guidance (ECT, Geng 2024)"
    guidance = "none"
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
        "cifar10": image_preset(
            CIFAR10, _CIFAR10, _CIFAR10_TRAIN, full_size=True, steps=(1, 2), init_from="edm"
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

    def build(self) -> nn.Module:
        """`ConsistencyPrecond` with its network under `model`."""
        net = build_net(self.config.net, self.data)
        return ConsistencyPrecond(
            net, sigma_data=self.config.sigma_data, sigma_min=self.config.sigma_min
        )

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights of a denoiser, except the input for augmentation labels."""
        return denoiser_weights(source, self.build, "model")

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Pseudo-Huber distance between the denoiser at t and at r < t, divided by t - r (ECT).

        The two calls share eps and the dropout mask. At r = 0 the target is the clean sample.
        """
        c = self.config
        x0 = batch.x0
        t = training_sigma(rng.randn(), c.p_mean, c.p_std, c.sigma_max)
        stage = stage_at(progress, c.first_stage, c.last_stage)
        r = smaller_sigma(t, stage + 1, c.q, c.k, c.b)
        eps = rng.randn(*x0.shape[1:])

        def denoise(sigma: Tensor) -> Tensor:
            x = x0 + per_sample(sigma, x0) * eps
            out: Tensor = nets(
                x, sigma, batch.labels, form="train", dropout=rng.dropout("denoiser")
            )
            return out

        target = consistency_target(lambda: denoise(r), r, x0)
        return {"consistency": pseudo_huber(denoise(t) - target, c.c_h) / (t - r)}

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """One call at sigma_max, then one at each middle level after adding fresh noise."""
        c = self.config
        return sample_consistency(
            lambda x, sigma: nets(x, sigma, labels, form="eval"),
            (c.sigma_max, *c.middle_sigma[: steps - 1]),
            lambda: rng.randn(self.data.shape, labels.device),
            clamp=c.clamp,
            between=c.clamp_between,
        )

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """One evaluation per step."""
        return steps

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """No guidance, and at most one step per configured noise level."""
        return super().supports(guidance, steps) or step_limit(steps, self.config.middle_sigma)


def step_limit(steps: int, middle_sigma: tuple[float, ...]) -> str | None:
    """None if the configuration has a noise level for every step, otherwise the reason."""
    most = len(middle_sigma) + 1
    if 1 <= steps <= most:
        return None
    return f"middle_sigma gives levels for 1 to {most} steps, not {steps}"
