"""sCT: consistency training in continuous time, without pairs of noise levels.

Source: Lu & Song (2024), "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models"
(arXiv 2410.11081). CIFAR-10 settings are those of NVIDIA's reproduction FastGen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import per_sample
from methods.consistency_model import ConsistencyModel
from methods.guidance import Guidance
from methods.nets import published
from methods.nets.config import MLPConfig, UNetConfig
from methods.precond import Form
from methods.registry import register
from methods.rng import BatchRNG
from methods.settings import CIFAR10, Preset, TrainSettings, image_preset
from methods.trigflow import TrigFlowConfig, tangent_loss, with_loss_weight


class SCTConfig(TrigFlowConfig):
    """The settings of `TrigFlowConfig`; training goes beyond the level where samples start."""

    train_sigma: tuple[float, float] = (0.002, 800.0)


# One or two values per sample: no normalisation, which would bias the result, and equal weights.
_TOY = SCTConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    sigma_data=2.01,
    p_mean=-0.3,
    p_std=1.8,
    tangent_warmup=1 / 3,
    tangent_floor=None,
    weight_power=0.0,
    learned_weight=False,
    middle_sigma=(0.8,),
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=2500, batch=256, lr=1e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
_DIGITS = SCTConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    sigma_data=0.75,
    p_mean=-0.6,
    p_std=1.6,
    tangent_warmup=1 / 3,
    weight_power=0.0,
    learned_weight=False,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
# The authors' network is DDPM++ without classes; ours is that of the other methods here.
_CIFAR10 = SCTConfig(
    net=published.CIFAR10_EDM.model_copy(update={"dropout": 0.2}), tangent_warmup=10 / 350
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=350_000, batch=512, lr=1e-4, betas=(0.9, 0.99), ema=0.9999, ema_ramp=False,
    checkpoint_every=1000,
)  # fmt: skip


@register
class SCT(ConsistencyModel[SCTConfig]):
    """Continuous-time consistency training, started from a diffusion model.

    It takes no guidance, as the authors say: the tangent needs the velocity of a single sample,
    whose mean is the conditional velocity. CFG needs the unconditional one too, which no sample of
    the class gives.
    """

    name = "sct"
    summary = "continuous-time consistency training, no guidance (sCM, Lu & Song 2024)"
    config_type = SCTConfig
    form: ClassVar[Form] = "train"
    presets: ClassVar[Mapping[str, Preset]] = {
        # One training seed each. `ct` has .13 / .04 on modes1d.
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="edm",
            expected={"w1, 1 / 2 steps": ".087 / .029", "within3, 1 / 2 steps": ".983 / .982"},
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            init_from="edm",
            expected={"w1, 1 / 2 steps": ".086 / .094"},
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            init_from="edm",
            # 300 samples; from an edm run of 1000 iterations.
            expected={
                "fd, 1 / 2 steps": "8.2 / 7.4",
                "precision, 1 / 2 steps": ".75 / .82",
                "recall, 1 / 2 steps": ".88 / .83",
            },
        ),
        "cifar10": image_preset(
            CIFAR10,
            _CIFAR10,
            _CIFAR10_TRAIN,
            full_size=True,
            steps=(1, 2),
            init_from="edm",
            expected={"published FID without classes, 1 / 2 steps": "2.85 / 2.06"},
        ),
    }

    def build(self) -> nn.Module:
        """`ConsistencyPrecond` with its network under `model`."""
        return with_loss_weight(super().build(), self.config)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """`tangent_loss` along the sample's own line x = x0 + sigma eps."""
        sigma = self.config.levels(rng)
        eps = rng.randn(*batch.x0.shape[1:])

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            out: Tensor = nets(
                x, sigma, batch.labels, form="train", dropout=rng.dropout("denoiser")
            )
            return out

        x = batch.x0 + per_sample(sigma, eps) * eps
        return {"tangent": tangent_loss(nets, denoise, x, sigma, eps, self.config, progress)}

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """No guidance, and at most one step per configured noise level."""
        if not guidance.is_off:
            return "sct takes no guidance: CFG needs an unconditional velocity, which samples lack"
        return super().supports(guidance, steps)
