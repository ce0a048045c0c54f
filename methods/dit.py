"""DiT, which predicts noise, and SiT, which predicts a velocity: transformers trained elsewhere.

Sources: Peebles & Xie (2023, DiT), Ma et al. (2024, SiT), Yu et al. (2025, REPA). `x` here is
x0 + sigma eps; the networks get it in their own scaling and time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.conversions import from_eps, from_flow, table_time
from methods.guidance import Guidance
from methods.nets.dit import DiT as Transformer
from methods.pretrained import Pretrained, PretrainedConfig, guide_first
from methods.registry import register
from methods.settings import Preset, Settings
from methods.spec import DataSpec

TIMES = 1000
FLOW_START = 1e6
"""The level that replaces the infinite one of a flow's first time."""
Positive = Annotated[int, Field(ge=1, le=1 << 16)]


class DiTNet(Settings):
    """The transformer; the defaults are XL/2's."""

    patch: Positive = 2
    width: Positive = 1152
    depth: int = Field(28, ge=1, le=1000)
    heads: Positive = 16
    variance: bool = Field(
        True, description="whether it has as many outputs again, for a variance that is not used"
    )


class DiTConfig(PretrainedConfig):
    """DiT's network, its noise levels, and the channels that are guided."""

    net: DiTNet
    channels: Literal[3, "all"] = Field(
        3, description="guided channels: the first 3, as published, or all"
    )
    times: Literal["grid", "own"] = Field(
        "grid", description="own: the model's evenly spaced times instead of --grid, as published"
    )
    sigma_min: float = Field(0.01001, gt=0)
    sigma_max: float = Field(157.4, gt=0)

    @model_validator(mode="after")
    def _in_table(self) -> Self:
        low, high = (float(vp_sigmas()[i]) for i in (0, -1))
        if not low <= self.sigma_min < self.sigma_max <= high:
            raise ValueError(
                f"DiT knows noise levels from {low:.6f} to {high:.4f}, got sigma_min "
                f"{self.sigma_min:g} and sigma_max {self.sigma_max:g}"
            )
        return self


class SiTConfig(PretrainedConfig):
    """SiT's network, its direction of time, and the channels that are guided."""

    net: DiTNet
    time: Literal["sit", "repa"] = Field(
        description="sit: time 0 is noise and 1 data; repa: the other way round"
    )
    channels: Literal[3, "all"] = Field(
        3, description="guided channels: the first 3, as SiT, or all, as REPA"
    )
    times: Literal["grid", "own"] = Field(
        "grid", description="own: the model's evenly spaced times instead of --grid, as published"
    )


@cache
def vp_sigmas() -> Tensor:
    """The levels (1000,) of DiT's times, ascending, float64: betas from 1e-4 to .02, linear."""
    with torch.inference_mode(False):  # kept for later calls in any mode
        alpha_bar = (1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64)).cumprod(0)
        return ((1 - alpha_bar) / alpha_bar).sqrt()


def vp_time(sigma: Tensor) -> Tensor:
    """DiT's time of `sigma` (B,), interpolated in ln sigma and limited to 0 ... 999, float64."""
    return table_time(sigma.double(), vp_sigmas().to(sigma.device))


class Timed(Pretrained[Any]):
    """A network with times of its own, and with channels that may stay unguided."""

    def limited(self, guidance: Guidance) -> Guidance:
        """Guidance of the first channels, if there are more."""
        count = self.config.channels
        if count == "all" or self.data.shape[0] <= count:
            return guidance
        return guide_first(guidance, count)

    def grid(self, steps: int) -> Tensor:
        """The levels of the model's own times or, by default, those of the sampler."""
        if self.config.times == "grid":
            return super().grid(steps)
        return torch.cat([self.own_levels(steps), torch.zeros(1, dtype=torch.float64)])

    @abstractmethod
    def own_levels(self, steps: int) -> Tensor:
        """Levels (steps,) of evenly spaced times, without the final 0."""

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """A grid has one owner."""
        if self.config.times == "own" and self.sampler.grid != "edm":
            return f"its times are its own (times = own), not those of --grid {self.sampler.grid}"
        return super().supports(guidance, steps)


class _Transformer(Timed):
    """The network of both."""

    presets: ClassVar[Mapping[str, Preset]] = {}

    @staticmethod
    def network(config: Any, data: DataSpec) -> nn.Module:
        """The transformer for square images."""
        net: DiTNet = config.net
        if not data.is_image or data.shape[1] != data.shape[2]:
            raise ValueError(f"the transformer models square images (C, H, H), not {data.shape}")
        channels = data.shape[0]
        return Transformer(
            resolution=data.shape[1],
            image_channels=channels,
            out_channels=channels * (2 if net.variance else 1),
            num_classes=data.num_classes,
            **net.model_dump(exclude={"variance"}),
        )


@register
class DiT(_Transformer):
    """An imported DiT: eps(x_t, t) at the 1000 times of DDPM's linear schedule.

    D = x - sigma eps(x / sqrt(1 + sigma^2), t). Levels between two times get a fractional time.
    """

    name = "dit"
    summary = "imported DiT, noise prediction, Heun sampler (Peebles 2023)"
    config_type = DiTConfig

    def own_levels(self, steps: int) -> Tensor:
        """Those of times round(j 999 / (steps - 1)), from the last, as the authors space them."""
        # Their rounding of accumulated floats gives the same times as half to even.
        times = torch.linspace(0, TIMES - 1, steps, dtype=torch.float64).round().long()
        return vp_sigmas()[times if steps > 1 else times + TIMES - 1].flip(0)

    def denoised(
        self, config: DiTConfig, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """D from the noise prediction; the variance is dropped."""

        def eps(y: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            out: Tensor = net(y, vp_time(sigma), labels)
            return out[:, : y.shape[1]].to(y)

        return from_eps(eps)(x, sigma.to(x).reshape(-1).expand(len(x)), labels)


@register
class SiT(_Transformer):
    """An imported SiT on the linear path: a velocity at x_t = t x0 + (1 - t) eps.

    With t = 1 / (1 + sigma) and y = x / (1 + sigma), D = y + (1 - t) v(y, t). In REPA's networks
    time and velocity have the opposite direction: D = y - (1 - t) v(y, 1 - t).
    """

    name = "sit"
    summary = "imported SiT or REPA, velocity prediction, Heun sampler (Ma 2024, Yu 2025)"
    config_type = SiTConfig

    def own_levels(self, steps: int) -> Tensor:
        """Those of times j / steps, from j = 0, whose level is 1e6 instead of infinity."""
        t = torch.arange(steps, dtype=torch.float64) / steps
        return ((1 - t) / t).clamp(max=FLOW_START)

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Heun's average of two slopes fails over a step from 1e6."""
        if self.config.times == "own" and self.sampler.solver != "euler":
            return (
                "with times = own the first level is nearly infinite, which only Euler's steps "
                "can start from: add --sampler euler"
            )
        return super().supports(guidance, steps)

    def denoised(
        self, config: SiTConfig, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """D from the velocity; further outputs are dropped."""

        def velocity(y: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            out: Tensor = net(y, t, labels)
            return out[:, : y.shape[1]].to(y)

        flow = from_flow(velocity, noise_at=0 if config.time == "sit" else 1)
        return flow(x, sigma.to(x).reshape(-1).expand(len(x)), labels)
