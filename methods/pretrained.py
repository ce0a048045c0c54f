"""Denoisers that were trained elsewhere, sampled and guided as `edm` is."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Batch, Method, Progress
from methods.guidance import Guidance
from methods.rng import BatchRNG, SampleRNG
from methods.rules.base import Branch, Call, Networks, Rule
from methods.rules.compose import Composite
from methods.rules.dry_run import evaluations
from methods.rules.needs import cannot_follow, lacking, weighted
from methods.rules.trajectory import sample_guided
from methods.settings import Settings, ascending
from methods.spec import DataSpec


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


class Pretrained(Method[C]):
    """A denoiser whose weights come from `bench import`, with the sampler and rules of `edm`.

    Its module holds the network under its published names. The networks of other branches are its
    children `null` and `weak`.
    """

    guidance = "sampling"
    takes_rules: ClassVar[bool] = True
    takes_samplers: ClassVar[bool] = True
    usual_steps: ClassVar[int] = 32
    null: C | None = None
    """Settings of a second network for the unconditional branch, if there is one."""
    weak: C | None = None
    """Settings of a weaker network for rules that need one, if there is one."""

    @staticmethod
    @abstractmethod
    def network(config: Any, data: DataSpec) -> nn.Module:
        """The network of `config`. Raises ValueError if it does not fit the data."""

    @abstractmethod
    def denoised(
        self, config: C, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """D(x; sigma, labels) of the network `net` of `config`, like x (B, C, H, W).

        `sigma` is (B,) or scalar, `labels` (B, K) one-hot, zeros for null.
        """

    @staticmethod
    def is_conditional(config: Any) -> bool:
        """Whether the network takes class labels."""
        return bool(getattr(config.net, "conditional", True))

    def with_null(self, null: C) -> Self:
        """A copy that samples with the network of `null` as unconditional branch.

        Raises ValueError if that network has no unconditional output.
        """
        if self.is_conditional(null) and not null.null_label:
            raise ValueError("it was always trained with labels and has no unconditional output")
        paired = copy.copy(self)
        paired.null = null
        return paired

    def with_weak(self, weak: C) -> Self:
        """A copy that has the network of `weak` as its weaker network.

        Raises ValueError if that network takes no classes.
        """
        if not self.is_conditional(weak):
            raise ValueError(
                "it takes no classes, so it cannot be a weaker version of a network that does: "
                "use it as the unconditional branch with --null-checkpoint"
            )
        paired = copy.copy(self)
        paired.weak = weak
        return paired

    def build(self) -> nn.Module:
        """The network, with those of other branches under `null` and `weak`."""
        nets = self.network(self.config, self.data)
        for name, config in (("null", self.null), ("weak", self.weak)):
            if config is not None:
                setattr(nets, name, self.network(config, self.data))
        return nets

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Not available: raises TypeError."""
        raise TypeError(f"{self.name} is not trained here; its weights come from bench import")

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """From the first level of the grid, guided at every call, state in float64."""
        classes = labels.shape[1]

        def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return self.denoised(self.config, nets, x, sigma, labels)

        def unconditional(x: Tensor, sigma: Tensor) -> Tensor:
            config, net = self.config, nets
            if self.null is not None:
                config, net = self.null, cast(nn.Module, nets.null)
            return self.denoised(config, net, x, sigma, labels.new_zeros(len(x), classes))

        def weaker(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            assert self.weak is not None
            return self.denoised(self.weak, cast(nn.Module, nets.weak), x, sigma, labels)

        networks = Networks(
            main=denoise,
            null=None if self._no_null() else unconditional,
            weak=None if self.weak is None else weaker,
            shared=self.null is None and not self._no_null(),
        )
        sigmas = self.grid(steps)
        x = float(sigmas[0]) * rng.randn(self.data.shape, labels.device)
        out = sample_guided(
            networks, x, sigmas, labels, self.limited(guidance), rng, solver=self.sampler.solver
        )
        return (out.clamp(-1, 1) if self.config.clamp else out).to(torch.float32)

    def limited(self, guidance: Guidance) -> Guidance:
        """The guidance that is applied; a method may restrict the requested one."""
        return guidance

    def grid(self, steps: int) -> Tensor:
        """The noise levels (steps + 1,) of the sampler, down to 0."""
        c = self.config
        return self.sampler.sigmas(steps, c.sigma_min, c.sigma_max, c.rho)

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """2 steps - 1 calls, since the last step is Euler's, or `steps`; twice that with CFG."""
        return math.ceil(sum(self._evaluations(guidance, steps).values()))

    def nfe_weighted(self, guidance: Guidance, steps: int) -> float:
        """`nfe` with the evaluations of other networks weighted by their parameter counts."""
        return weighted(self._evaluations(guidance, steps), self.costs())

    def _evaluations(self, guidance: Guidance, steps: int) -> dict[Branch, float]:
        grid, solver = self.grid(steps), self.sampler.solver
        return evaluations(guidance.rule, guidance, grid, data=self.data, solver=solver)

    def costs(self) -> dict[Branch, float]:
        """The parameters of the other networks over those of the own one."""
        others: dict[Branch, C | None] = {"null": self.null, "weak": self.weak}
        return {
            branch: _parameters(type(self), config, self.data)
            / _parameters(type(self), self.config, self.data)
            for branch, config in others.items()
            if config is not None
        }

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance needs a network with classes, and the reference branch of the rule."""
        if self.config.decoder:
            return (
                f"the samples of {self.name} are latents here, and pixels need the decoder "
                f"{self.config.decoder!r} of the run's card, which cannot be loaded yet"
            )
        if not guidance.acts:
            return None
        if not guidance.is_off and not self.is_conditional(self.config):
            return "an unconditional network takes no guidance"
        offers: dict[Branch, str] = {
            "main": "", "null": "", "weak": "",
            "attention": f"the attention of {self.name} cannot be changed",
            "blocks": f"the blocks of {self.name} cannot be changed",
        }  # fmt: skip
        if self._no_null():
            offers["null"] = (
                "always trained with labels, so it has no unconditional branch: name a network "
                "for that branch with --null-checkpoint"
            )
        if self.weak is None:
            offers["weak"] = "no weaker network: name one with --weak-checkpoint"
        rule = guidance.rule
        return (
            rule.unsuited(self.data)
            or cannot_follow(rule, guidance, self.sampler)
            or lacking(rule, guidance, offers)
        )

    def _no_null(self) -> bool:
        return self.null is None and not self.config.null_label


@cache
def _parameters(cls: type[Pretrained[Any]], config: PretrainedConfig, data: DataSpec) -> int:
    """The number of parameters of a network, which is counted without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in cls.network(config, data).parameters())


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
