"""A method by its denoiser: sampler, guidance rules and the count of evaluations come with it."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from methods.base import ConfigT, GuidanceKind, Method
from methods.guidance import Guidance
from methods.nets.attention import attention_blocks
from methods.nets.skipping import skippable_blocks
from methods.rng import SampleRNG
from methods.rules.base import Branch, Networks
from methods.rules.dry_run import evaluations
from methods.rules.needs import cannot_follow, lacking, needs
from methods.rules.trajectory import sample_guided

OUTSIDE = 50.0
"""Magnitude of denoised images, which are in [-1, 1], that means another range, such as 0..255."""


class DenoiserMethod(Method[ConfigT]):
    """A method that is sampled from `sigma_max` down by its denoiser, under any rule and sampler.

    A subclass implements `build`, `loss` and `denoise`, and is trained with null labels (zeros)
    too. The levels are those of EDM.
    """

    guidance: ClassVar[GuidanceKind] = "sampling"
    takes_rules: ClassVar[bool] = True
    takes_samplers: ClassVar[bool] = True
    sigma_min: ClassVar[float] = 0.002
    sigma_max: ClassVar[float] = 80.0
    rho: ClassVar[float] = 7.0

    @abstractmethod
    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels): the mean of clean samples given x = x0 + sigma * noise.

        `x` (B, *shape) and `sigma` (B,) are float32; `labels` (B, K) are one-hot, zeros for null.
        Returns floats (B, *shape); images are in [-1, 1].
        """

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Samples (B, *shape) under the rule of `guidance`; images are clipped to [-1, 1].

        ValueError if the output of `denoise` is not as documented.
        """
        first = True

        def main(x: Tensor, sigma: Tensor, c: Tensor) -> Tensor:
            nonlocal first
            x = x.to(torch.float32)
            found = self.denoise(nets, x, sigma.to(x).expand(len(x)), c.to(x))
            self._check(found, x, ranges=first)
            first = False
            return found

        networks = Networks(
            main=main,
            null=lambda x, sigma: main(x, sigma, labels.new_zeros(len(x), labels.shape[1])),
            module=nets,
            shared=True,
        )
        x = self.sigma_max * rng.randn(self.data.shape, labels.device)
        out = sample_guided(
            networks, x, self._levels(steps), labels, guidance, rng, solver=self.sampler.solver
        )
        return (out.clamp(-1, 1) if self.data.is_image else out).to(torch.float32)

    def _check(self, found: object, x: Tensor, *, ranges: bool) -> None:
        if not isinstance(found, Tensor):
            got = f"a {type(found).__name__}"
        elif found.shape != x.shape or not found.is_floating_point():
            got = f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
        # Only once, because it waits for the device.
        elif ranges and self.data.is_image and float(found.detach().abs().max()) > OUTSIDE:
            low, high = found.detach().aminmax()
            got = f"values from {low:.3g} to {high:.3g}"
        else:
            return
        images = " in [-1, 1]" if self.data.is_image else ""
        raise ValueError(
            f"denoise of {self.name} returned {got}; it should return floats {tuple(x.shape)}"
            f"{images}, the denoised x"
        )

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """The calls of the denoiser under the rule, for both branches."""
        counts = evaluations(
            guidance.rule, guidance, self._levels(steps), data=self.data, solver=self.sampler.solver
        )
        return math.ceil(sum(counts.values()))

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """All rules except those that need a second network, or layers that this one lacks."""
        if not guidance.acts:
            return None
        rule, branches = guidance.rule, needs(guidance)
        offers: dict[Branch, str] = dict.fromkeys(get_args(Branch), "")
        offers["weak"] = "it has no weaker network"
        if "attention" in branches and not attention_blocks(self._network):
            offers["attention"] = "the network has no attention of methods.nets"
        if "blocks" in branches and not skippable_blocks(self._network):
            offers["blocks"] = "the network has no residual blocks of methods.nets"
        return (
            rule.unsuited(self.data)
            or cannot_follow(rule, guidance, self.sampler)
            or lacking(rule, guidance, offers)
        )

    @cached_property
    def _network(self) -> nn.Module:
        """The networks without memory for their parameters."""
        with torch.device("meta"):
            return self.build()

    def _levels(self, steps: int) -> Tensor:
        return self.sampler.sigmas(steps, self.sigma_min, self.sigma_max, self.rho)
