"""MeanFlow with guidance in training: the average velocity of a guided flow, one step.

Sources: Geng, Deng, Bai, Kolter, He (2025), "Mean Flows for One-step Generative Modeling" (arXiv
2505.13447), for the loss; Geng et al. (2025), "Improved Mean Flows" (arXiv 2512.02012), for the
guidance scale as an input of the network.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods.base import Batch, Method, Progress
from methods.consistency import per_sample
from methods.guidance import Guidance
from methods.guidance_embedding import embed_guidance
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.settings import Preset, Settings, TrainSettings

T_FLOOR = 0.05
"""Smallest t by which a network that predicts data is divided: its error would grow with 1 / t."""

MeanVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z (B, ...), r (B,), t (B,)) -> average velocity over [r, t], the shape of z."""


class MeanFlowConfig(Settings):
    """Network, the draws of times and scales, and the weight of the loss.

    Defaults of times, of the share of r != t and of the weight are the paper's for ImageNet.
    """

    net: NetConfig
    guidance_dim: int = Field(
        64, ge=4, multiple_of=2, description="features of g, and as many of t - r"
    )
    guidance_scale: float = Field(1.0, gt=0, description="factor of w before its embedding")
    sigma_data: float = Field(0.5, gt=0, description="data are divided by it")
    time_mean: float = Field(-0.4, description="mean of logit(t)")
    time_std: float = Field(1.0, gt=0, description="standard deviation of logit(t)")
    same_time: float = Field(0.75, ge=0, lt=1, description="probability that r = t")
    g_max: float = Field(15.0, gt=1, description="training draws ln g from [0, ln g_max]")
    label_dropout: float = Field(0.1, gt=0, lt=1)
    power: float = Field(1.0, ge=0, le=1, description="p of the adaptive weight; 0 weighs alike")
    floor: float = Field(1e-3, gt=0, description="c of the adaptive weight")
    per_scale: bool = Field(False, description="divide errors by g, the size of guided velocities")
    mixing: float = Field(
        1.0, ge=0, le=1, description="guided target: 1 is iMF's, 0 MeanFlow's g v + (1 - g) u_null"
    )
    tangent: Literal["sample", "network"] = Field(
        "sample", description="dz/dt of the derivative: the sample's velocity, or iMF's own u(t, t)"
    )
    predict: Literal["velocity", "data"] = Field(
        "velocity", description="the network's output: u, or z - t u"
    )
    time_scale: float = Field(
        2.7, gt=0, description="factor of t in the network's input: less is smoother"
    )
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")

    @model_validator(mode="after")
    def _deterministic(self) -> Self:
        # The derivative along the flow is that of one function: masks would make it another one.
        if self.net.dropout:
            raise ValueError(f"meanflow trains without dropout, got net.dropout {self.net.dropout}")
        return self


# What differs from the papers' ImageNet settings on the toys, and what each did alone, in W1 of one
# step at g = 1 / 4 / 8 / 13 on one training seed of 1500 or 2000 steps:
# power 0 for 1: 5.0 / 12 / 22 / 34 to .6 / 2.3 / 3.2 / 3.7. |error|^2 of one or two values does not
#   concentrate, so that the adaptive weight may pull an average to a mode.
# time_scale 1 for 2.7: 1.3 / 3.2 / 8.4 / 15 to .5 / 1.1 / 1.4 / .7. Short periods of the time
#   features make the derivative large.
# mixing 0 for 1: 1.2 / 3.9 / 5.0 / 4.4 to 1.3 / 3.2 / 8.4 / 15, worse, though the velocity at t = 1
#   was nearer (g = 8: off by .9 for 4.4): iMF's target nears its fixed point g times as slowly.
# Near-uniform times and half of the rows with r < t, to draw intervals close to [0, 1]: worse at
#   time_scale 2.7, 2.2 / 3.5 / 3.7 / 3.1 for .6 / 2.3 / 3.2 / 3.7, and not tried alone at 1.
# The network's tangent: no better than the sample's.
# Data as output, as in neither paper, and errors divided by g: together, at 1200 steps, better at
#   g = 1 (.13 / 1.5 / 2.4 / 3.3) and worse at high scales than velocities without the division.
_TOY = MeanFlowConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    guidance_dim=32,
    sigma_data=2.01,
    time_mean=0.0,
    time_std=1.6,
    same_time=0.5,
    power=0.0,
    per_scale=True,
    mixing=0.0,
    tangent="network",
    predict="data",
    time_scale=1.0,
    clamp=False,
)
_TOY_TRAIN = TrainSettings(
    iterations=2500, batch=256, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
# Never tuned. The toys' target, tangent, output and times; the weight and the share of r != t are
# the papers', since 64 values concentrate more and rows with r < t cost most.
_DIGITS = MeanFlowConfig(
    net=UNetConfig(kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1),
    sigma_data=0.75,
    time_mean=0.0,
    time_std=1.6,
    mixing=0.0,
    tangent="network",
    predict="data",
    time_scale=1.0,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=800, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)


class MeanFlowNet(nn.Module):
    """The average velocity u(z; r, t, labels, g): the network's output F, or (z - F) / t.

    The latter leaves the 1 / t of a velocity out of what is learnt. With it, F at r = t is the
    denoised z and F at (0, 1) is the one-step sample.
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        scale: float,
        *,
        time_scale: float = 2.7,
        predicts_data: bool = False,
    ) -> None:
        super().__init__()
        self.model = net
        self.dim, self.scale, self.time_scale = dim, scale, time_scale
        self.predicts_data = predicts_data

    def forward(self, z: Tensor, r: Tensor, t: Tensor, labels: Tensor, g: Tensor) -> Tensor:
        """u, the shape of z (B, ...); r <= t in [0, 1], g >= 1, each (B,); `labels` (B, K).

        Smooth in z, r and t, along which training differentiates it.
        """
        # The range of c_noise that the networks are made for. It is linear in t because ln(sigma)
        # is infinite at t = 1, where sampling starts and training hardly draws.
        c_noise = self.time_scale * t - 1.6
        w_embed = torch.cat(
            [
                embed_guidance(g - 1.0, self.dim, self.scale).to(z),
                interval_features(t - r, self.dim),
            ],
            dim=1,
        )
        out = cast(Tensor, self.model(z, c_noise, labels, w_embed))
        if not self.predicts_data:
            return out
        return (z - out) / per_sample(t.clamp(min=T_FLOOR), out)


def interval_features(interval: Tensor, dim: int) -> Tensor:
    """[sin | cos] of t - r in [0, 1], (B,) => (B, dim), with periods from 4 down to 1/4.

    Shorter periods would only make the derivative along the flow large.
    """
    periods = torch.logspace(2.0, -2.0, dim // 2, base=2.0).to(interval)
    angle = interval[:, None] * (2 * math.pi / periods)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def guided_velocity(
    v: Tensor, u_cond: Tensor, u_null: Tensor, g: Tensor, mixing: float = 1.0
) -> Tensor:
    """W v + (1 - w - k) u_null + k u_cond with k = mixing (1 - 1/g) and w = g (1 - k).

    A sample of the guided velocity, given the network's own: `u_cond` at (labels, g) and `u_null`
    at (null, 1), both at r = t; `g` (B,). Where the network equals the mean of this, u_cond =
    g E[v | labels] - (g - 1) u_null, which is CFG, whatever the mixing. At 1 it is iMF's v +
    (1 - 1/g)(u_cond - u_null), at 0 MeanFlow's g v + (1 - g) u_null (2505.13447).
    """
    k = per_sample(mixing * (1.0 - 1.0 / g), v)
    w = per_sample(g, v) * (1.0 - k)
    return w * v + (1.0 - w - k) * u_null + k * u_cond


def total_derivative(u: MeanVelocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """du/dt along dz/dt = v with r held, the shape of z, by forward-mode differentiation."""
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    # Fused attention has no forward-mode derivative, and autocast does not see the inputs of a
    # function transform: it would round the weights alone, which convolutions refuse.
    math, exact = sdpa_kernel(SDPBackend.MATH), torch.autocast(z.device.type, enabled=False)
    with math, exact, warnings.catch_warnings():
        # At its first use torch compiles its own rules by a means that it warns others of.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        derivative = torch.func.jvp(u, (z, r, t), tangents)[1]
    return cast(Tensor, derivative)


def mean_target(
    u: MeanVelocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor, along: Tensor | None = None
) -> Tensor:
    """V - (t - r) du/dt, the shape of z, no gradient: the MeanFlow identity (2505.13447, eq. 6).

    `along` is dz/dt of the derivative, `v` if None.
    """
    with torch.no_grad():
        derivative = total_derivative(u, z, r, t, v if along is None else along)
        return v - per_sample(t - r, v) * derivative


def adaptive(error: Tensor, power: float, floor: float) -> Tensor:
    """|error|^2 / (|error|^2 + floor)^power with the weight under stop-gradient, (B, ...) => (B,).

    Source: 2505.13447, eq. 22.
    """
    squared = error.square().flatten(1).sum(1)
    return squared / (squared.detach() + floor) ** power


@register
class MeanFlow(Method[MeanFlowConfig]):
    """A network of average velocities of the flow under CFG, at every scale of a range."""

    name = "meanflow"
    summary = "MeanFlow with guidance in training, 1-2 steps (Geng 2025)"
    guidance = "embedded"
    config_type = MeanFlowConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            # Means of three training seeds; settings were compared on another one, at fewer
            # iterations. Exact CFG has .006 / .27 / .45 / .61: one step is behind it, two are not
            # but at g = 1.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".16 / 1.0 / 2.0 / 2.5",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".07 / .25 / .46 / .54",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2),
            # One seed. Exact CFG has .017 / .24 / .41 / .55.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".08 / 1.3 / 2.1 / 2.5",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".08 / .54 / 1.1 / 1.2",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2),
            # One seed, 300 images.
            expected={
                "fd at g = 1 / 4 / 8 / 13, 1 step": "64 / 69 / 140 / 152",
                "fd at g = 1 / 4 / 8 / 13, 2 steps": "8.4 / 44 / 70 / 72",
                "precision at g = 1 / 4 / 8 / 13, 2 steps": ".79 / .81 / .70 / .70",
                "recall at g = 1 / 4 / 8 / 13, 2 steps": ".81 / .18 / .05 / .04",
            },
        ),
    }

    def build(self) -> nn.Module:
        """`MeanFlowNet` with its network under `model`."""
        c = self.config
        net = build_net(c.net, self.data, guidance_dim=2 * c.guidance_dim)
        return MeanFlowNet(
            net,
            c.guidance_dim,
            c.guidance_scale,
            time_scale=c.time_scale,
            predicts_data=c.predict == "data",
        )

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Adaptively weighted distance of u to its target, on z = (1 - t) x0 / sigma_data + t eps.

        A dropped label goes with g = 1, where the target is that of the plain flow.
        """
        c = self.config
        # Mixed precision hands over rounded samples: times and noise are not rounded with them.
        y = batch.x0.to(torch.promote_types(batch.x0.dtype, torch.float32)) / c.sigma_data
        pair = torch.sigmoid(c.time_mean + c.time_std * rng.randn(2)).to(y)
        t = pair.amax(1)
        r = torch.where(rng.rand() < c.same_time, t, pair.amin(1))
        g = (c.g_max ** rng.rand()).to(y)
        dropped = rng.rand() < c.label_dropout
        g = torch.where(dropped, torch.ones_like(g), g)
        labels = torch.where(dropped[:, None], 0.0, batch.labels.to(y))
        eps = rng.randn(*y.shape[1:]).to(y)
        z = y + per_sample(t, y) * (eps - y)

        with torch.no_grad():
            # Both branches in one call.
            null, one = torch.zeros_like(labels), torch.ones_like(g)
            u_cond, u_null = nets(
                torch.cat([z, z]),
                torch.cat([t, t]),
                torch.cat([t, t]),
                torch.cat([labels, null]),
                torch.cat([g, one]),
            ).chunk(2)
            v = guided_velocity(eps - y, u_cond, u_null, g, c.mixing)
            along = v if c.tangent == "sample" else u_cond.to(v)
            target = v.clone()
            # The derivative costs most and matters only where r < t. Every process takes one row
            # at least, so that all of a distributed run call the network equally often.
            rows = (t > r).nonzero()[:, 0]
            rows = rows if len(rows) else torch.zeros_like(labels[:1, 0], dtype=torch.int64)

            def u(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
                return cast(Tensor, nets(z, r, t, labels[rows], g[rows]))

            target[rows] = mean_target(u, z[rows], r[rows], t[rows], v[rows], along[rows]).to(v)
        error = nets(z, r, t, labels, g) - target
        if c.per_scale:
            error = error / per_sample(g, error)
        return {"meanflow": adaptive(error, c.power, c.floor)}

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Noise moved by its average velocity over `steps` equal intervals from t = 1 to 0.

        Deterministic after the first draw; the network is fed g at every step.
        """
        c = self.config
        z = rng.randn(self.data.shape, labels.device)
        g = torch.full((len(z),), guidance.scale, device=z.device, dtype=z.dtype)
        for i in range(steps):
            t, r = 1.0 - i / steps, 1.0 - (i + 1) / steps
            u = nets(z, torch.full_like(g, r), torch.full_like(g, t), labels, g)
            z = z - (t - r) * u
        x = (z * c.sigma_data).float()
        return x.clamp(-1, 1) if c.clamp else x

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """One evaluation a step, guided or not."""
        return steps

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance within what training drew, any number of steps."""
        top = self.config.g_max
        if not 1.0 <= guidance.scale <= top:
            return f"trained for guidance 1 to {top:g}, not {guidance.scale:g}"
        return None
