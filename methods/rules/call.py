"""What a rule is given: its position in a trajectory, and the networks, which count their use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from methods.rng import SampleRNG

if TYPE_CHECKING:
    from methods.rules.trajectory import Trajectory

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Branch = Literal["null", "main", "weak", "attention", "blocks"]
"""What a rule evaluates: the unconditional branch, the same network with other inputs, a weaker
network, or the same network with changed self-attention or with changed blocks."""

Within = Callable[[nn.Module], AbstractContextManager[None]]
"""Changes a network, such as its attention, for the time of one evaluation."""


@dataclass(frozen=True)
class Point:
    """The position of a denoiser call in a trajectory.

    `step` counts from 0 to `steps` - 1. `stage` is 0 for the predictor and 1 for Heun's corrector.
    `sigma` is the noise level of this call. `start` and `end` are the levels of the step and are
    equal in both stages: if both stages must decide alike, use these or `step`. `levels` are the
    `steps` + 1 descending levels of the whole trajectory.
    """

    step: int
    steps: int
    stage: int
    sigma: float
    start: float
    end: float
    sigma_max: float
    levels: tuple[float, ...] = ()

    @property
    def time(self) -> float:
        """Share of the steps that remain, t = 1 (noise) at the first step."""
        return 1.0 - self.step / self.steps


@dataclass(frozen=True)
class Networks:
    """The denoisers that a rule may evaluate, (x (B, ...), sigma, labels (B, K)) -> (B, ...).

    They take any number of rows. `null` is called without labels; None: the model has no
    unconditional branch. `module` is the network of `main`, for rules that change its blocks.
    `shared` is whether `null` is `main` with zero labels, so that one call can evaluate both.
    """

    main: Denoiser
    null: Callable[[Tensor, Tensor], Tensor] | None = None
    weak: Denoiser | None = None
    module: nn.Module | None = None
    shared: bool = False

    def both(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """D(x; sigma, labels) and D(x; sigma, null), from one call of a shared network."""
        labels = torch.cat([labels, torch.zeros_like(labels)])
        out = self.main(torch.cat([x, x]), sigma, labels)
        return out[: len(x)], out[len(x) :]

    def vjp(
        self, x: Tensor, sigma: Tensor, labels: Tensor, v: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """D(x; sigma, labels) and the product of `v` (B, ...), by default ones, with dD/dx."""
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors made in inference mode cannot be differentiated; copies made here can.
            x, sigma, labels = x.clone().requires_grad_(), sigma.clone(), labels.clone()
            out = self.main(x, sigma, labels).to(x)
            weights = torch.ones_like(out) if v is None else v.clone()
            (slope,) = torch.autograd.grad(out, x, weights)
        return out.detach(), slope


@dataclass
class Call:
    """One call of the guided denoiser, and a rule's only way to the networks.

    `x` (B, ...) has the dtype of the state, `sigma` is a scalar tensor, `labels` (B, K) are
    one-hot, and `g` is the requested scale. `state` is kept for the whole trajectory. Its keys
    contain the name of the rule, and its tensors have the batch as first dimension. Random numbers
    come from `rng`, with one stream per sample.

    Every evaluation is counted, for each row of x as its share of a sample's values. `cond` is D_c
    and `unconditional` D_null of this call, once they are evaluated.
    """

    x: Tensor
    sigma: Tensor
    at: Point
    labels: Tensor
    g: float
    networks: Networks
    rng: SampleRNG
    state: dict[str, Any] = field(default_factory=dict)
    trajectory: Trajectory | None = None
    cond: Tensor | None = field(default=None, init=False)
    unconditional: Tensor | None = field(default=None, init=False)

    def denoise(
        self,
        labels: Tensor | None = None,
        sigma: Tensor | None = None,
        *,
        within: Within | None = None,
    ) -> Tensor:
        """D(x; sigma, labels) of the network. Missing inputs are those of this call.

        `within(network)` is a context that changes the network for this evaluation, such as
        `skipped_blocks`. A closed-form denoiser has no network and ignores it.
        """
        module = None if self.dry else self.networks.module
        with nullcontext() if within is None or module is None else within(module):
            found = self.networks.main(
                self.x,
                self.sigma if sigma is None else sigma,
                self.labels if labels is None else labels,
            ).to(self.x)
        if self.cond is None and labels is None and sigma is None and within is None:
            self.cond = found
        return found

    def null(self) -> Tensor:
        """D(x; sigma, null) of the unconditional branch."""
        assert self.networks.null is not None
        self.unconditional = self.networks.null(self.x, self.sigma).to(self.x)
        return self.unconditional

    def both(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """D(x; sigma, labels) and D(x; sigma, null), from one call of a shared network."""
        d_cond, d_null = self.networks.both(self.x, self.sigma, labels)
        self.unconditional = d_null.to(self.x)
        return d_cond.to(self.x), self.unconditional

    def weak(self, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma, labels) of the weaker network."""
        assert self.networks.weak is not None
        labels = self.labels if labels is None else labels
        return self.networks.weak(self.x, self.sigma, labels).to(self.x)

    def vjp(self, v: Tensor | None = None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """D(x; sigma, labels) and v^T dD/dx, (B, ...) each; `v` (B, ...) is 1 by default.

        It counts as two evaluations.
        """
        labels = self.labels if labels is None else labels
        out, slope = self.networks.vjp(self.x, self.sigma, labels, v)
        return out.to(self.x), slope.to(self.x)

    def to(self, x: Tensor, sigma: float | None = None, end: float | None = None) -> Call:
        """The call at another state (B, ...), and at another level or end of its step."""
        start = float(self.at.sigma if sigma is None else sigma)
        at = replace(self.at, sigma=start, start=start, end=self.at.end if end is None else end)
        return replace(self, x=x, sigma=self.sigma if sigma is None else x.new_tensor(start), at=at)

    def part(self, rows: Tensor) -> Call:
        """The call for some rows, a mask (B,) or indices; it has no state and draws nothing."""
        return replace(self, x=self.x[rows], labels=self.labels[rows], state={})

    def guided(self) -> Tensor:
        """The guided output at this x and sigma, by the hooks of all composed rules."""
        return self._trajectory.guided(self)

    def advance(self) -> Tensor:
        """The state after a step of the sampler from this x and sigma to `at.end`."""
        return self._trajectory.advance(self)

    @property
    def scale(self) -> float:
        """The scale of all composed rules at this point."""
        return self._trajectory.rule.scale(self.g, self.at)

    @property
    def dry(self) -> bool:
        """Whether this is a dry run, which counts the most evaluations that a rule may need."""
        return self.trajectory is not None and self.trajectory.dry

    @property
    def _trajectory(self) -> Trajectory:
        assert self.trajectory is not None, "this call belongs to no trajectory"
        return self.trajectory
