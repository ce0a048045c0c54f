"""The interface of a guidance rule: everything that the author of a rule needs to read.

A rule combines the outputs of a conditional and a reference branch into a guided denoiser. All
formulas act on denoiser outputs D(x; sigma, labels). g is the guidance scale in
D_g = D_ref + g (D_c - D_ref), and g = 1 is off. Most rules override one hook of `Rule`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from methods.rng import SampleRNG
from methods.settings import Settings
from methods.spec import DataSpec

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Branch = Literal["null", "main", "weak", "attention"]
"""The source of the reference: the unconditional branch, the same network with other inputs, a
weaker network, or the same network with changed self-attention."""

Weight = float | Tensor
"""A guidance scale: one for all samples, or (B,) with one per sample."""


class NoKnobs(Settings):
    """The settings of a rule without knobs."""


K = TypeVar("K", bound=Settings)


@dataclass(frozen=True)
class Between:
    """The search range of a knob, both ends included; `log` searches on a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """The values of a knob that the tuner may try."""

    values: tuple[Any, ...]


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

    `null` is called without labels. `module` is the network of `main`, for rules that change its
    attention. `shared` is whether `null` is `main` with zero labels, so that one call can evaluate
    both.
    """

    main: Denoiser
    null: Callable[[Tensor, Tensor], Tensor] | None = None
    weak: Denoiser | None = None
    module: nn.Module | None = None
    shared: bool = False


@dataclass
class Call:
    """One call of the guided denoiser.

    `x` (B, ...) has the dtype of the state, `sigma` is a scalar tensor, `labels` (B, K) are
    one-hot, and `g` is the requested scale. `state` is kept for the whole trajectory. Its keys
    contain the name of the rule, and its tensors have the batch as first dimension. Random numbers
    come from `rng`, with one stream per sample.
    """

    x: Tensor
    sigma: Tensor
    at: Point
    labels: Tensor
    g: float
    networks: Networks
    rng: SampleRNG
    state: dict[str, Any] = field(default_factory=dict)

    def denoise(self, labels: Tensor | None = None, sigma: Tensor | None = None) -> Tensor:
        """D(x; sigma, labels) of the network. Missing inputs are those of this call."""
        sigma = self.sigma if sigma is None else sigma
        return self.networks.main(self.x, sigma, self.labels if labels is None else labels).to(
            self.x
        )

    def null(self) -> Tensor:
        """D(x; sigma, null) of the unconditional branch."""
        assert self.networks.null is not None
        return self.networks.null(self.x, self.sigma).to(self.x)

    def both(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """D(x; sigma, labels) and D(x; sigma, null), from one call of a shared network."""
        labels = torch.cat([labels, torch.zeros_like(labels)])
        out = self.networks.main(torch.cat([self.x, self.x]), self.sigma, labels).to(self.x)
        return out[: len(self.x)], out[len(self.x) :]

    def weak(self, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma, labels) of the weaker network."""
        assert self.networks.weak is not None
        labels = self.labels if labels is None else labels
        return self.networks.weak(self.x, self.sigma, labels).to(self.x)


class Rule(Generic[K]):
    """Classifier-free guidance; each rule overrides a part of it.

    The hooks run in this order: `scale` before any evaluation (1 skips the reference branch),
    `condition`, `reference`, `weigh`, `combine`, `finish`, and `after_step` when the sampler has
    made the step. Rules are stateless: store values of a trajectory in `call.state`. At g = 1 no
    hook is called, and the sampler integrates D_c.

    With the knobs `neutral` the rule equals CFG. `search` holds the values that the tuner may try.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    knobs_type: ClassVar[type[Settings]] = NoKnobs
    neutral: ClassVar[Mapping[str, Any]] = {}
    search: ClassVar[Mapping[str, Between | OneOf]] = {}
    first_order: ClassVar[bool] = False
    """Whether the sampler takes Euler steps with one call each instead of Heun steps."""

    def __init__(self, knobs: K | None = None) -> None:
        self.knobs: K = cast(K, self.knobs_type()) if knobs is None else knobs

    def scale(self, g: float, at: Point) -> float:
        """The scale at this point, before any evaluation; 1 skips the reference branch."""
        return g

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """The labels (B, K) of the conditional branch."""
        return labels

    def branch(self) -> Branch:
        """The branch that `reference` evaluates with these knobs."""
        return "null"

    def reference(self, call: Call) -> Tensor:
        """The reference output D_ref (B, ...), from one evaluation of `branch`."""
        return call.null()

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The scale, given both outputs."""
        return g

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The guided output, D_ref + g (D_c - D_ref)."""
        return d_ref + spread(g, d_cond) * (d_cond - d_ref)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """Correct the guided output."""
        return guided

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """The denoised image that gives the noise of the next level; first order only."""
        return guided

    def after_step(self, x: Tensor, x_next: Tensor, call: Call) -> None:
        """Called after the step from `x` to `x_next`; `call` is the call of its first stage."""

    def unsuited(self, data: DataSpec) -> str | None:
        """None if the rule can be used for this data, otherwise the reason."""
        return None

    def settings(self) -> dict[str, Any]:
        """All knobs by name, "rule.knob", as stored in a row: without those that are None.

        Lists are JSON texts, which the knobs must accept.
        """
        knobs = self.knobs.model_dump(mode="json", exclude_none=True)
        return {
            f"{self.name}.{k}": json.dumps(v) if isinstance(v, list) else v
            for k, v in knobs.items()
        }

    def parts(self) -> tuple[Rule[Any], ...]:
        """The rules that this rule is composed of."""
        return (self,)


def spread(g: Weight, like: Tensor) -> Weight:
    """Make a weight broadcast over the samples of `like`: (B,) => (B, 1, ..., 1)."""
    if not isinstance(g, Tensor):
        return g
    return g.to(like).reshape(-1, *[1] * (like.ndim - 1))
