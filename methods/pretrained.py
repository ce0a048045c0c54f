"""Denoisers that were trained elsewhere, sampled and guided as `edm` is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Progress
from methods.guidance import Guidance
from methods.guided import PairedMethod
from methods.rng import BatchRNG
from methods.rules.base import Branch, Call, Rule
from methods.rules.compose import Composite
from methods.settings import Settings, ascending


class PretrainedConfig(Settings):
    """Settings of sampling with a network that was trained elsewhere."""

    net: Settings
    sigma_min: float = Field(0.002, gt=0, description="lowest level of the sampler before 0")
    sigma_max: float = Field(80.0, gt=0, description="level at which sampling starts")
    rho: float = 7.0
    null_label: bool = Field(True, description="whether a zero label means no class")
    clamp: bool = Field(True, description="clip samples to [-1, 1]")
    decoder: str = Field(
        "", description="what makes pixels of samples that are latents; '': they are pixels"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("sigma_min and sigma_max", self.sigma_min, self.sigma_max)
        return self


C = TypeVar("C", bound=PretrainedConfig)


class Pretrained(PairedMethod[C]):
    """A denoiser whose weights come from `bench import`, with the sampler and rules of `edm`.

    Its module holds the network under its published names.
    """

    usual_steps: ClassVar[int] = 32

    @staticmethod
    def is_conditional(config: Any) -> bool:
        """Whether the network takes class labels."""
        return bool(getattr(config.net, "conditional", True))

    def knows_null(self) -> bool:
        """As its settings say."""
        return self.config.null_label

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Not available: raises TypeError."""
        raise TypeError(f"{self.name} is not trained here; its weights come from bench import")

    def lacks(self, branch: Branch) -> str:
        """The layers of its network cannot be changed, besides what other networks are for."""
        if branch in ("attention", "blocks"):
            return f"the {branch} of {self.name} cannot be changed"
        return super().lacks(branch)


class FirstChannels(Rule[Any]):
    """A part of a rule that leaves all channels from `count` on unguided."""

    name = "channels"
    summary = "guidance of the first channels only"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The guided output (B, C, H, W), with the later channels of `d_cond`."""
        return torch.cat([guided[:, : self.count], d_cond[:, self.count :]], 1)


def guide_first(guidance: Guidance, count: int) -> Guidance:
    """The same guidance of the first `count` channels; the others stay those of D_c."""
    return replace(guidance, rule=Composite((*guidance.rule.parts(), FirstChannels(count))))
