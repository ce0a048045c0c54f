"""Invertible guided consistency training: guidance in one step, without a diffusion model.

Source: Hsu, Kao, Balestriero, "Beyond and Free from Diffusion: Invertible Guided Consistency
Training" (arXiv 2502.05391).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Inverts, Method, Progress
from methods.consistency import smaller_sigma, stage_at, training_sigma
from methods.ct import step_limit
from methods.guidance import Guidance
from methods.guidance_embedding import embed_guidance
from methods.igct_loss import (
    GuidedDraws,
    guided_consistency_loss,
    guided_probability,
    inverse_consistency_loss,
    reconstruction_loss,
)
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.precond import IGCTPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.samplers import sample_consistency
from methods.settings import Preset, Settings, TrainSettings, ascending


class IGCTConfig(Settings):
    """Networks, noise levels, guided window, loss weights and the sampler.

    The defaults are the authors' for CIFAR-10. P_mean, c_h, the window and the scale of the
    guidance embedding do not carry over to small data unscaled.
    """

    net: NetConfig
    guidance_dim: int = Field(256, ge=4, multiple_of=2)
    guidance_scale: float = Field(1000.0, gt=0, description="factor of w before its embedding")
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    p_mean: float = -1.1
    p_std: float = Field(2.0, gt=0)
    inverse_p_mean: float | None = Field(None, description="of the noiser; None: p_mean")
    inverse_p_std: float | None = Field(None, description="of the noiser; None: p_std")
    q: float = Field(2.0, gt=1)
    k: float = Field(8.0, ge=0)
    b: float = Field(1.0, gt=0)
    first_stage: int = Field(0, ge=0)
    last_stage: int = Field(8, ge=0)
    c_h: float = Field(0.03, gt=0)
    w_max: float = Field(14.0, gt=0, description="w = g - 1 is drawn from [0, w_max] in training")
    window: tuple[float, float] = Field((11.0, 14.3), description="sigma where guidance sets in")
    window_power: float = 2.0
    p_max: float = Field(0.9, ge=0, le=1)
    reconstruction_weight: float = Field(2e-5, ge=0)
    reconstruction_every: int = Field(10, ge=1)
    noiser_form: Literal["train", "eval"] = Field(
        "eval", description="noiser at inference; the authors drop its skip there: 'eval'"
    )
    middle_sigma: tuple[float, ...] = Field((0.821,), description="levels after the first step")
    clamp: bool = Field(True, description="clip every sample to [-1, 1]; off for vectors")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("stages", self.first_stage, self.last_stage, strict=False)
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        ascending("window", *self.window)
        return self


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
    iterations=900, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)


@register
class IGCT(Method[IGCTConfig], Inverts):
    """A guided one-step denoiser and a one-step noiser, trained from data alone."""

    name = "igct"
    summary = "invertible guided consistency training, 1-2 steps (Hsu, Kao, Balestriero 2025)"
    guidance = "embedded"
    config_type = IGCTConfig
    wants_decoupled = True
    presets: ClassVar[Mapping[str, Preset]] = {
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
    }

    def build(self) -> nn.Module:
        """`IGCTPrecond`: the noiser under `enc`, the denoiser under `dec`."""
        c = self.config
        return IGCTPrecond(
            build_net(c.net, self.data),
            build_net(c.net, self.data, guidance_dim=c.guidance_dim),
            sigma_data=c.sigma_data,
            sigma_min=c.sigma_min,
            sigma_max=c.sigma_max,
        )

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A single network's weights become the denoiser's, blind to guidance at first.

        The guidance embedding's own layer is absent there and starts at zero. Another iGCT run is
        taken whole.
        """
        if not any(name.startswith("model.") for name in source):
            return dict(source)
        weights = {
            f"dec.{name.removeprefix('model.')}": value
            for name, value in source.items()
            if name.startswith("model.")
        }
        for name, value in self.build().state_dict().items():
            if name.startswith("dec.map_w_embed."):
                weights.setdefault(name, torch.zeros_like(value))
        return weights

    def _embed(self, w: Tensor) -> Tensor:
        return embed_guidance(w, self.config.guidance_dim, self.config.guidance_scale)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Guided, inverse and (every tenth step) reconstruction loss; see `igct_loss`."""
        if batch.decoupled is None:
            raise ValueError("igct needs decoupled images beside the labelled ones")
        c = self.config
        pair = cast(IGCTPrecond, nets)
        x0, labels = batch.x0, batch.labels
        n, eps, u = rng.randn(), rng.randn(*x0.shape[1:]), rng.rand()
        stage = stage_at(progress, c.first_stage, c.last_stage)
        t = training_sigma(n, c.p_mean, c.p_std, c.sigma_max)
        guided = rng.rand() < guided_probability(t, c.window, c.window_power, c.p_max)
        draws = GuidedDraws(
            t=t,
            r=smaller_sigma(t, stage, c.q, c.k, c.b),
            w=c.w_max * u,
            guided=guided,
            eps=eps,
        )

        def denoise(x: Tensor, sigma: Tensor, labels: Tensor, w: Tensor) -> Tensor:
            return pair.denoise(
                x, sigma, labels, self._embed(w), form="train", dropout=rng.dropout("denoiser")
            )

        def noise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return pair.noise(x, sigma, labels, form="train", dropout=rng.dropout("noiser"))

        t_inv = training_sigma(
            n,
            c.p_mean if c.inverse_p_mean is None else c.inverse_p_mean,
            c.p_std if c.inverse_p_std is None else c.inverse_p_std,
            c.sigma_max,
        )
        r_inv = smaller_sigma(t_inv, stage, c.q, c.k, c.b)
        terms = {
            "guided": guided_consistency_loss(denoise, x0, labels, batch.decoupled, draws, c.c_h),
            "inverse": inverse_consistency_loss(
                noise,
                x0,
                labels,
                r_inv.clamp(min=c.sigma_min),
                t_inv.clamp(min=c.sigma_min),
                eps,
                c.c_h,
                c.sigma_data / c.sigma_max,
            ),
        }
        if progress.step % c.reconstruction_every == 0:
            fresh = rng.randn(*x0.shape[1:])
            terms["reconstruction"] = c.reconstruction_weight * reconstruction_loss(
                denoise, noise, x0, labels, fresh, c.c_h, c.sigma_min, c.sigma_max
            )
        return terms

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """One call at sigma_max, then one at each middle level after adding fresh noise.

        The network is fed w = g - 1 at every step.
        """
        c = self.config
        return sample_consistency(
            lambda x, sigma: self._denoise(nets, x, sigma, labels, guidance),
            (c.sigma_max, *c.middle_sigma[: steps - 1]),
            lambda: rng.randn(self.data.shape, labels.device),
            clamp=c.clamp,
        )

    def _denoise(
        self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor, guidance: Guidance
    ) -> Tensor:
        w = torch.full((len(x),), guidance.w, device=x.device, dtype=torch.float32)
        return cast(IGCTPrecond, nets).denoise(x, sigma, labels, self._embed(w), form="eval")

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """One evaluation a step, guided or not."""
        return steps

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance within what training drew, steps within the levels of the configuration."""
        top = Guidance.from_w(self.config.w_max).scale
        if not 1.0 <= guidance.scale <= top:
            return f"trained for guidance 1 to {top:g}, not {guidance.scale:g}"
        return step_limit(steps, self.config.middle_sigma)

    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """The noiser at sigma_min: 1 NFE."""
        c = self.config
        sigma = torch.full((len(x0),), c.sigma_min, device=x0.device)
        return cast(IGCTPrecond, nets).noise(x0, sigma, labels, form=c.noiser_form)

    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """The denoiser at sigma_max: 1 NFE."""
        c = self.config
        sigma = torch.full((len(latent),), c.sigma_max, device=latent.device)
        out = self._denoise(nets, latent, sigma, labels, guidance)
        return out.clamp(-1, 1) if c.clamp else out

    def latent_sigma(self) -> float:
        """sigma_max, where the noiser ends."""
        return self.config.sigma_max

    def inversion_nfe(self) -> int:
        """One call of the noiser."""
        return 1

    def edit_nfe(self, guidance: Guidance) -> int:
        """One call of the denoiser, guided or not."""
        return 1
