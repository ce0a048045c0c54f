"""Methods that integrate a denoiser under any guidance rule and sampler."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from functools import cache
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from methods.base import ConfigT, GuidanceKind, Method
from methods.guidance import Guidance
from methods.rng import SampleRNG
from methods.rules.base import Branch, Networks
from methods.rules.dry_run import evaluations
from methods.rules.needs import cannot_follow, needs, weighted
from methods.rules.trajectory import sample_guided
from methods.samplers import Churn
from methods.spec import DataSpec


class GuidedMethod(Method[ConfigT]):
    """A method that integrates a denoiser from the highest noise level down, guided at every call.

    A subclass has its branches (`networks`) and the reasons for those that it lacks (`lacks`), and
    its settings have `sigma_min`, `sigma_max` and `rho`, or it has its own `grid`. Sampling and the
    count of evaluations follow from these.
    """

    guidance: ClassVar[GuidanceKind] = "sampling"
    takes_rules: ClassVar[bool] = True
    takes_samplers: ClassVar[bool] = True

    @abstractmethod
    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """The denoiser and its other branches for samples of `labels` (B, K)."""

    @abstractmethod
    def lacks(self, branch: Branch) -> str:
        """Why rules cannot have this branch, '' if they can."""

    def grid(self, steps: int) -> Tensor:
        """The noise levels (steps + 1,) of the sampler, descending, the last 0."""
        c: Any = self.config
        return self.sampler.sigmas(steps, c.sigma_min, c.sigma_max, c.rho)

    @property
    def space(self) -> DataSpec:
        """The data as the denoiser sees them."""
        return self.data

    @property
    def churn(self) -> Churn | None:
        """Noise that is added before each step, if any."""
        return None

    def limited(self, guidance: Guidance) -> Guidance:
        """The guidance that is applied; a method may restrict the requested one."""
        return guidance

    def finished(self, samples: Tensor) -> Tensor:
        """Samples of the data from those (B, *shape) of the sampler: images are clipped."""
        return samples.clamp(-1, 1) if self.data.is_image else samples

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """From the first level of the grid, guided at every call, state in float64."""
        x = float(self.grid(steps)[0]) * rng.randn(self.space.shape, labels.device)
        return self.integrate(nets, x, labels, guidance, steps, rng, self.churn)

    def integrate(
        self,
        nets: nn.Module,
        x: Tensor,
        labels: Tensor,
        guidance: Guidance,
        steps: int,
        rng: SampleRNG,
        churn: Churn | None = None,
    ) -> Tensor:
        """Samples (B, *shape) float32 from `x` (B, *shape) at the first level of the grid."""
        out = sample_guided(
            self.networks(nets, labels), x, self.grid(steps), labels, self.limited(guidance), rng,
            churn=churn, solver=self.sampler.solver,
        )  # fmt: skip
        return self.finished(out.to(torch.float32))

    def evaluations(
        self, guidance: Guidance, steps: int, churn: Churn | None
    ) -> dict[Branch, float]:
        """The evaluations per sample of each branch."""
        grid, solver = self.grid(steps), self.sampler.solver
        return evaluations(guidance.rule, guidance, grid, churn, self.space, solver)

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """2 steps - 1 calls, since the last step is Euler's, or `steps`; twice that with CFG."""
        return math.ceil(sum(self.evaluations(guidance, steps, self.churn).values()))

    def nfe_weighted(self, guidance: Guidance, steps: int) -> float:
        """`nfe` with the evaluations of other networks weighted by `costs`."""
        return weighted(self.evaluations(guidance, steps, self.churn), self.costs())

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """All rules whose branches the method has."""
        if not guidance.acts:
            return None
        return (
            guidance.rule.unsuited(self.space)
            or cannot_follow(guidance.rule, guidance, self.sampler)
            or next(filter(None, map(self.lacks, needs(guidance))), None)
        )


class PairedMethod(GuidedMethod[ConfigT]):
    """A guided method whose unconditional and weaker branches can be networks of other runs.

    `build` holds these as the children `null` and `weak` of the own network.
    """

    null: Any = None
    """Settings of a second network for the unconditional branch, if there is one."""
    weak: Any = None
    """Settings of a weaker network for rules that need one, if there is one."""

    @staticmethod
    @abstractmethod
    def network(config: Any, data: DataSpec) -> nn.Module:
        """The network of `config`. Raises ValueError if it does not fit the data."""

    @abstractmethod
    def denoised(
        self, config: Any, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """D(x; sigma, labels) of the network `net` of `config`, like x (B, *shape).

        `sigma` is (B,) or scalar, `labels` (B, K) one-hot, zeros for null.
        """

    @staticmethod
    @abstractmethod
    def is_conditional(config: Any) -> bool:
        """Whether the network takes class labels."""

    @abstractmethod
    def knows_null(self) -> bool:
        """Whether the own network was trained with null labels too."""

    def finished(self, samples: Tensor) -> Tensor:
        """Samples in [-1, 1] if the settings say that they are clipped."""
        clamp: bool = cast(Any, self.config).clamp
        return samples.clamp(-1, 1) if clamp else samples

    def module(self, nets: nn.Module) -> nn.Module | None:
        """The network for rules that change its layers, if they can."""
        return None

    def with_null(self, null: ConfigT) -> Self:
        """A copy that samples with the network of `null` as unconditional branch.

        Raises ValueError if that network has no unconditional output.
        """
        if self.is_conditional(null) and not getattr(null, "null_label", True):
            raise ValueError("it was always trained with labels and has no unconditional output")
        paired = copy.copy(self)
        paired.null = null
        return paired

    def with_weak(self, weak: ConfigT) -> Self:
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

    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """The own network, and those of `null` and `weak`."""

        def unconditional(x: Tensor, sigma: Tensor) -> Tensor:
            config, net = self.config, nets
            if self.null is not None:
                config, net = self.null, cast(nn.Module, nets.null)
            return self.denoised(config, net, x, sigma, labels.new_zeros(len(x), labels.shape[1]))

        def weaker(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return self.denoised(self.weak, cast(nn.Module, nets.weak), x, sigma, labels)

        return Networks(
            main=lambda x, sigma, c: self.denoised(self.config, nets, x, sigma, c),
            null=None if self.lacks("null") else unconditional,
            weak=None if self.lacks("weak") else weaker,
            module=self.module(nets),
            shared=self.null is None and self.knows_null(),
        )

    def costs(self) -> dict[Branch, float]:
        """The parameters of the other networks over those of the own one."""
        others: dict[Branch, Any] = {"null": self.null, "weak": self.weak}
        return {
            branch: _parameters(type(self), config, self.data)
            / _parameters(type(self), self.config, self.data)
            for branch, config in others.items()
            if config is not None
        }

    def lacks(self, branch: Branch) -> str:
        """Without another network there may be no unconditional and there is no weaker branch."""
        if branch == "null" and self.null is None and not self.knows_null():
            return (
                "always trained with labels, so it has no unconditional branch: name a network "
                "for that branch with --null-checkpoint"
            )
        if branch == "weak" and self.weak is None:
            return "no weaker network: name one with --weak-checkpoint"
        return ""

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance needs a network with classes, and the branches of the rule."""
        if guidance.acts and not guidance.is_off and not self.is_conditional(self.config):
            return "an unconditional network takes no guidance"
        return super().supports(guidance, steps)


@cache
def _parameters(cls: type[PairedMethod[Any]], config: Any, data: DataSpec) -> int:
    """The number of parameters of a network, which is counted without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in cls.network(config, data).parameters())
