"""Shared by the consistency models with one network: settings, network, sampler, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import GuidanceKind, Method
from methods.guidance import Guidance
from methods.guidance_embedding import embed_guidance
from methods.nets.config import NetConfig, build_net
from methods.precond import ConsistencyPrecond, Form
from methods.rng import SampleRNG
from methods.samplers import sample_consistency
from methods.settings import Settings, ascending
from methods.warm_start import denoiser_weights


class ConsistencyConfig(Settings):
    """Settings of the network and of the sampler."""

    net: NetConfig
    sigma_data: float = Field(0.5, gt=0)
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    middle_sigma: tuple[float, ...] = Field((0.821,), description="noise levels after the first")
    clamp: bool = Field(True, description="clip samples to [-1, 1]; off for vectors")
    clamp_between: bool = Field(
        False, description="clip before the noise of the next step is added too; ECT does not"
    )

    @model_validator(mode="after")
    def _levels_ordered(self) -> Self:
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        return self


class GuidedConsistencyConfig(ConsistencyConfig):
    """The same, of a network that takes the guidance scale."""

    guidance_dim: int = Field(256, ge=4, multiple_of=2)
    guidance_scale: float = Field(1000.0, gt=0, description="factor of w before its embedding")
    w_max: float = Field(14.0, gt=0, description="w = g - 1 is drawn from [0, w_max] in training")


ConsistencyT = TypeVar("ConsistencyT", bound=ConsistencyConfig)
GuidedT = TypeVar("GuidedT", bound=GuidedConsistencyConfig)


class ConsistencyModel(Method[ConsistencyT]):
    """A denoiser that jumps to clean samples from any noise level."""

    guidance: ClassVar[GuidanceKind] = "none"
    form: ClassVar[Form] = "eval"
    """Of the denoiser in sampling."""

    def build(self) -> nn.Module:
        """`ConsistencyPrecond` with its network under `model`."""
        c = self.config
        dim = c.guidance_dim if isinstance(c, GuidedConsistencyConfig) else 0
        net = build_net(c.net, self.data, guidance_dim=dim)
        return ConsistencyPrecond(net, sigma_data=c.sigma_data, sigma_min=c.sigma_min)

    def embed(self, w: Tensor) -> Tensor | None:
        """The network's input for w = g - 1: (B,) => (B, D), or None if it takes none."""
        return None

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights of a denoiser, except the input for augmentation labels.

        A guidance input that the denoiser lacks starts at zero.
        """
        return denoiser_weights(source, self.build, "model")

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """One call at sigma_max, then one at each middle level after adding fresh noise.

        A guided network receives w = g - 1 at every step.
        """
        c = self.config
        w = torch.full((len(labels),), guidance.w, device=labels.device, dtype=torch.float32)
        features = self.embed(w)
        return sample_consistency(
            lambda x, sigma: nets(x, sigma, labels, features, form=self.form),
            (c.sigma_max, *c.middle_sigma[: steps - 1]),
            lambda: rng.randn(self.data.shape, labels.device),
            clamp=c.clamp,
            between=c.clamp_between,
        )

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """One evaluation per step, with or without guidance."""
        return steps

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """No guidance, and at most one step per configured noise level."""
        return super().supports(guidance, steps) or step_limit(steps, self.config.middle_sigma)


class GuidedConsistencyModel(ConsistencyModel[GuidedT]):
    """One whose network takes the guidance scale, so that guidance costs no evaluations."""

    guidance = "embedded"

    def embed(self, w: Tensor) -> Tensor:
        """The features of w = g - 1: (B,) => (B, guidance_dim)."""
        return embed_guidance(w, self.config.guidance_dim, self.config.guidance_scale)

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance scales within the range of training, and one configured level per step."""
        top = Guidance.from_w(self.config.w_max).scale
        if not 1.0 <= guidance.scale <= top:
            return f"trained for guidance 1 to {top:g}, not {guidance.scale:g}"
        return step_limit(steps, self.config.middle_sigma)


def step_limit(steps: int, middle_sigma: tuple[float, ...]) -> str | None:
    """None if the configuration has a noise level for every step, otherwise the reason."""
    most = len(middle_sigma) + 1
    if 1 <= steps <= most:
        return None
    return f"middle_sigma gives levels for 1 to {most} steps, not {steps}"
