"""A method by its denoiser: sampler, guidance rules and the count of evaluations come with it."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import ConfigT
from methods.guided import GuidedMethod
from methods.latents import LatentSpec
from methods.nets.attention import attention_blocks
from methods.nets.skipping import skippable_blocks
from methods.rules.base import Branch, Networks

OUTSIDE = 50.0
"""Magnitude of denoised images, which are in [-1, 1], that means another range, such as 0..255."""


class DenoiserMethod(GuidedMethod[ConfigT]):
    """A method that is sampled from `sigma_max` down by its denoiser, under any rule and sampler.

    A subclass implements `build`, `loss` and `denoise`, and is trained with null labels (zeros)
    too. The levels are those of EDM.
    """

    sigma_min: ClassVar[float] = 0.002
    sigma_max: ClassVar[float] = 80.0
    rho: ClassVar[float] = 7.0

    @abstractmethod
    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels): the mean of clean samples given x = x0 + sigma * noise.

        `x` (B, *shape) and `sigma` (B,) are float32; `labels` (B, K) are one-hot, zeros for null.
        Returns floats (B, *shape); images are in [-1, 1].
        """

    def networks(self, nets: nn.Module, labels: Tensor) -> Networks:
        """`denoise` with the labels and with none.

        ValueError when it is called if its output is not as documented.
        """
        first = True

        def main(x: Tensor, sigma: Tensor, c: Tensor) -> Tensor:
            nonlocal first
            x = x.to(torch.float32)
            found = self.denoise(nets, x, sigma.to(x).expand(len(x)), c.to(x))
            self._check(found, x, ranges=first)
            first = False
            return found

        return Networks(
            main=main,
            null=lambda x, sigma: main(x, sigma, labels.new_zeros(len(x), labels.shape[1])),
            module=nets,
            shared=True,
        )

    def _check(self, found: object, x: Tensor, *, ranges: bool) -> None:
        if not isinstance(found, Tensor):
            got = f"a {type(found).__name__}"
        elif found.shape != x.shape or not found.is_floating_point():
            got = f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
        # Only once, because it waits for the device.
        elif ranges and self._has_range and float(found.detach().abs().max()) > OUTSIDE:
            low, high = found.detach().aminmax()
            got = f"values from {low:.3g} to {high:.3g}"
        else:
            return
        images = " in [-1, 1]" if self._has_range else ""
        raise ValueError(
            f"denoise of {self.name} returned {got}; it should return floats {tuple(x.shape)}"
            f"{images}, the denoised x"
        )

    def finished(self, samples: Tensor) -> Tensor:
        """Images are clipped; vectors and latents have no fixed range."""
        return samples.clamp(-1, 1) if self._has_range else samples

    @property
    def _has_range(self) -> bool:
        return self.data.is_image and not isinstance(self.data, LatentSpec)

    def lacks(self, branch: Branch) -> str:
        """It has no second network, and perhaps not the layers that a rule changes."""
        if branch == "weak":
            return "it has no weaker network"
        if branch == "attention" and not attention_blocks(self._network):
            return "the network has no attention of methods.nets"
        if branch == "blocks" and not skippable_blocks(self._network):
            return "the network has no residual blocks of methods.nets"
        return ""

    def grid(self, steps: int) -> Tensor:
        """The levels of the sampler between `sigma_min` and `sigma_max`."""
        return self.sampler.sigmas(steps, self.sigma_min, self.sigma_max, self.rho)

    @cached_property
    def _network(self) -> nn.Module:
        """The networks without memory for their parameters."""
        with torch.device("meta"):
            return self.build()
