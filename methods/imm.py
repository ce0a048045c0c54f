"""Inductive moment matching: learn the map between two noise levels from samples of both ways.

Source: Zhou, Ermon, Song (2025), "Inductive Moment Matching" (arXiv 2503.07565). Their released
code has networks and sampler only. How training draws times and compares samples follows other
implementations.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.consistency import per_sample
from methods.denoiser import DenoiserMethod
from methods.guidance import Guidance
from methods.mean_velocity import interval_features
from methods.nets import published
from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.precond import ConsistencyPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.rules.base import Networks, Rule
from methods.samplers import Sampler
from methods.settings import CIFAR10, Preset, Settings, TrainSettings, image_preset
from methods.warm_start import denoiser_weights


class IMMConfig(Settings):
    """Settings of the network, the times, the loss, and the sampler.

    t = sigma / (sigma + sigma_data) is the time of the straight path from data to noise.
    """

    net: NetConfig
    time_dim: int = Field(64, ge=4, multiple_of=2, description="number of features of the end s")
    sigma_data: float = Field(0.5, gt=0)
    group: int = Field(
        4, ge=1, description="rows with the same times; those with equal labels are compared"
    )
    gap: float = Field(
        15.0, ge=0, description="k: r is below t by 2^-k of the range of noise levels"
    )
    weight_bias: float | None = Field(
        5.0, description="b of the weight of t, sigmoid(b - ln SNR); None: equal weights"
    )
    label_dropout: float = Field(0.1, gt=0, lt=1)
    middle_sigma: float = Field(
        0.7, gt=0, description="noise level between two steps; other numbers have even times t"
    )


def level(t: Tensor, sigma_data: float) -> Tensor:
    """The noise level at the time t of the straight path: sigma_data t / (1 - t)."""
    return sigma_data * t / (1 - t)


def output_scale(s: Tensor, t: Tensor, sigma_data: float) -> Tensor:
    """How far the network can move a sample at s < t: sd ((1-s) t - (1-t) s) / sqrt((1-t)^2 + t^2).

    This is |c_out| of the map, in units of (1 - s) x0 + s sd n.
    """
    return sigma_data * ((1 - s) * t - (1 - t) * s) / ((1 - t) ** 2 + t**2).sqrt()


def time_weight(t: Tensor, bias: float | None) -> Tensor:
    """sigmoid(b - lambda) (-dlambda/dt) (1 - t) / (2 ((1-t)^2 + t^2)), lambda = 2 ln((1-t) / t).

    (B,) => (B,). The published weight of times, with a = 1. Without `bias` it is 1.
    """
    if bias is None:
        return torch.ones_like(t)
    snr = 2 * ((1 - t) / t).log()
    return torch.sigmoid(bias - snr) / (t * ((1 - t) ** 2 + t**2))


def laplace(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """exp(-|a_j - b_k| / (width D)) of all pairs of a group, (G, M, D) twice => (G, M, M).

    `width` is (G,). Distances are at least 1e-8.
    """
    apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=1e-8)
    return torch.exp(-apart / (width[:, None, None] * a.shape[2]))


def moment_distance(a: Tensor, b: Tensor, labels: Tensor, width: Tensor, group: int) -> Tensor:
    """The squared MMD of the rows of `a` and `b` (B, ...) in each group, as a term per row (B,).

    A group is `group` rows, the last one may be smaller, and `width` (B,) is equal in a group. Only
    rows with equal `labels` (B, K) are compared, since the distribution of each class has to match.
    The mean of the terms of such rows is their V-statistic with the kernel of `laplace`.
    """
    rows, groups = len(a), -(-len(a) // group)
    filled = torch.arange(groups * group, device=a.device)
    index = filled.clamp(max=rows - 1)
    a, b = (x.flatten(1)[index].reshape(groups, group, -1) for x in (a, b))
    of = labels[index].reshape(groups, group, -1)
    same = (of[:, :, None] == of[:, None, :]).all(3) & (filled < rows).reshape(groups, 1, group)
    width = width[index].reshape(groups, group)[:, 0]
    pairs = laplace(a, a, width) + laplace(b, b, width) - 2 * laplace(a, b, width)
    terms = (pairs * same).sum(2) / same.sum(2).clamp(min=1)
    return terms.flatten()[:rows]


# A group of 4 and gaps of 6 or 10 change W1 at g = 1 in one and two steps by less than .03.
_TOY = IMMConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3),
    time_dim=32,
    sigma_data=2.01,
    group=16,
    gap=8.0,
    weight_bias=None,
    middle_sigma=2.8,
)
_TOY_TRAIN = TrainSettings(
    iterations=3000, batch=512, lr=2e-3, decay_from=0.0, final_lr=0.1, checkpoint_every=500
)
# Not tuned.
_DIGITS = IMMConfig(
    net=UNetConfig(
        kind="unet", arch="ddpmpp", channels=24, channel_mult=(1, 2), num_blocks=1, dropout=0.05
    ),
    sigma_data=0.75,
    gap=8.0,
    weight_bias=None,
    middle_sigma=1.05,
)
_DIGITS_TRAIN = TrainSettings(
    iterations=400, batch=64, lr=1e-3, betas=(0.9, 0.99), warmup=100, decay_from=0.7, final_lr=0.01
)
# Network, dropout, times, group and weight are the paper's for CIFAR-10, where it is unconditional.
# Optimiser, batch and EMA were not found in its code and may differ.
_CIFAR10 = IMMConfig(
    net=published.CIFAR10.model_copy(update={"arch": "ddpmpp", "dropout": 0.2}), time_dim=256
)
_CIFAR10_TRAIN = TrainSettings(
    iterations=400_000, batch=4096, lr=1e-4, ema=0.9999, ema_ramp=False, checkpoint_every=1000
)


@register
class IMM(DenoiserMethod[IMMConfig]):
    """The map from sigma to a lower level s, as a step of DDIM with a denoiser that knows s.

    D(x; sigma, s) has EDM's preconditioning, and x_s = D + (s / sigma) (x - D). In units of the
    path this is the published map of the form `simple_edm`. It is linear in D, so guided outputs
    D_null + g (D_c - D_null) are guided maps f_null + g (f_c - f_null), and every rule that
    combines outputs at one (x, sigma) applies to maps.
    """

    name = "imm"
    summary = "inductive moment matching, few steps, CFG or a rule at sampling (Zhou 2025)"
    config_type = IMMConfig
    takes_samplers: ClassVar[bool] = False
    sampler = Sampler(solver="euler")
    sigma_min: ClassVar[float] = 0.003
    presets: ClassVar[Mapping[str, Preset]] = {
        "modes1d": Preset(
            dataset="modes1d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2, 8),
            # One seed. In one step the exact map under CFG has 0 / 6 / 14 / 24: 2 (g - 1), because
            # the unconditional map sends half of the noise of a class to the other.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".09 / 6.0 / 14 / 24",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".03 / .75 / 1.7 / 3.3",
                "w1 at g = 1 / 4 / 8 / 13, 8 steps": ".04 / .20 / .46 / 1.1",
            },
        ),
        "modes2d": Preset(
            dataset="modes2d",
            config=_TOY,
            train=_TOY_TRAIN,
            steps=(1, 2, 8),
            # One seed.
            expected={
                "w1 at g = 1 / 4 / 8 / 13, 1 step": ".07 / 5.8 / 14 / 23",
                "w1 at g = 1 / 4 / 8 / 13, 2 steps": ".05 / .97 / 3.0 / 5.6",
                "w1 at g = 1 / 4 / 8 / 13, 8 steps": ".04 / .16 / .40 / 2.0",
            },
        ),
        "digits": Preset(
            dataset="digits",
            config=_DIGITS,
            train=_DIGITS_TRAIN,
            steps=(1, 2, 8),
            # One seed, 300 images, after 800 iterations.
            expected={
                "fd at g = 1 / 4 / 8 / 13, 1 step": "27 / 101 / 143 / 166",
                "fd at g = 1 / 4 / 8 / 13, 2 steps": "22 / 67 / 139 / 169",
                "fd at g = 1 / 4 / 8 / 13, 8 steps": "8.1 / 64 / 123 / 164",
                "precision at g = 1 / 4 / 8 / 13, 8 steps": ".73 / .53 / .25 / .16",
                "recall at g = 1 / 4 / 8 / 13, 8 steps": ".87 / .19 / .02 / .01",
            },
        ),
        "cifar10": image_preset(
            CIFAR10,
            _CIFAR10,
            _CIFAR10_TRAIN,
            full_size=True,
            steps=(1, 2),
            expected={"published FID, unconditional, 1 / 2 steps": "3.20 / 1.98"},
        ),
    }

    levels: Tensor | None = None
    """The descending levels of a trajectory, whose steps `denoise` then maps."""

    def build(self) -> nn.Module:
        """The network, which takes features of s, under `model`; "train" has EDM's coefficients."""
        c = self.config
        net = build_net(c.net, self.data, guidance_dim=c.time_dim)
        return ConsistencyPrecond(net, sigma_data=c.sigma_data, sigma_min=self.sigma_min)

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an edm run, with an input for s that starts at zero, or of an own run."""
        return denoiser_weights(source, self.build, "model")

    def _time(self, sigma: Tensor) -> Tensor:
        return sigma / (sigma + self.config.sigma_data)

    def _features(self, s: Tensor) -> Tensor:
        """The network's input for the end s (B,) of a step, as a time; (B, time_dim)."""
        lowest = self.sigma_min / (self.sigma_min + self.config.sigma_data)
        return interval_features(s.clamp(min=lowest), self.config.time_dim).float()

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Squared MMD at s of samples mapped from t and, without gradient, from r between s and t.

        The rows of a group share t and s, uniform in time. x_t and x_r of a row have the same x0
        and noise. Both calls share the dropout mask. Groups are formed within a process and a
        micro-batch, whose sizes should be multiples of `group`.
        """
        c = self.config
        x0 = batch.x0.to(torch.promote_types(batch.x0.dtype, torch.float32))
        first = torch.arange(len(x0), device=x0.device) // c.group * c.group
        low, high = (v / (v + c.sigma_data) for v in (self.sigma_min, self.sigma_max))
        t = low + (high - low) * rng.rand()[first].to(x0)
        s = low + (t - low) * rng.rand()[first].to(x0)
        sigma_t, sigma_s = level(t, c.sigma_data), level(s, c.sigma_data)
        step = (self.sigma_max - self.sigma_min) / 2**c.gap
        sigma_r = torch.maximum(sigma_s, sigma_t - step)
        keep = (rng.rand(1) >= c.label_dropout).to(batch.labels)
        labels, eps = batch.labels * keep, rng.randn(*x0.shape[1:]).to(x0)
        features = self._features(s)

        def at_s(sigma: Tensor) -> Tensor:
            x = x0 + per_sample(sigma, x0) * eps
            d = nets(x, sigma, labels, features, form="train", dropout=rng.dropout("denoiser"))
            share = per_sample(sigma_s / sigma, x0)
            # In units of the path, where noise at s has the standard deviation s sigma_data.
            return cast(Tensor, per_sample(1 - s, x0) * (d + share * (x - d)))

        with torch.no_grad():
            target = at_s(sigma_r)
        # A width of 0, where rounding makes s = t, would have gradients 0 times infinity.
        width = output_scale(s, t, c.sigma_data).clamp(min=1e-6)
        distance = moment_distance(at_s(sigma_t), target, labels, width, c.group)
        return {"moments": time_weight(t, c.weight_bias) * distance}

    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, s): s is the end of the step from sigma or, outside a trajectory, sigma.

        For levels between those of the trajectory it is the end of the step from the next lower.
        """
        end = sigma
        if self.levels is not None:
            levels = self.levels.to(sigma)
            above = (levels > sigma.reshape(-1, 1)).sum(1)
            end = levels[(above + 1).clamp(max=len(levels) - 1)]
        features = self._features(self._time(end).expand(len(x)))
        return cast(Tensor, nets(x, sigma, labels, features, form="train"))

    def grid(self, steps: int) -> Tensor:
        """Even times from sigma_max to 0; for two steps the middle level of the settings."""
        c, highest = self.config, self.sigma_max / (self.sigma_max + self.config.sigma_data)
        sigmas = level(torch.linspace(highest, 0, steps + 1, dtype=torch.float64), c.sigma_data)
        sigmas[0] = self.sigma_max
        if steps == 2:
            sigmas[1] = c.middle_sigma
        return sigmas

    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """`denoise` with and without labels; rules may change the inner network."""
        inner = cast("nn.Module | None", getattr(nets, "model", None))
        return replace(super().networks(nets, labels), module=inner)

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """One map per step from sigma_max to 0, without new noise ("pushforward"), guided at each.

        Samples (B, *shape); images are clipped to [-1, 1].
        """
        stepping = copy.copy(self)
        stepping.levels = self.grid(steps)
        return super(IMM, stepping).sample(nets, labels, guidance, steps, rng)

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Rules that combine outputs at one x and level, since no other map was trained."""
        if not self.config.middle_sigma < self.sigma_max:
            return f"middle_sigma must be below {self.sigma_max:g}"
        own = [p for p in guidance.rule.parts() if (type(p).step, type(p).run) != _USUAL]
        if guidance.acts and own:
            return (
                f"{own[0].name} takes steps of its own, and the network of imm maps from each "
                "level of the sampler to the next only"
            )
        return super().supports(guidance, steps)


_USUAL = (Rule.step, Rule.run)
