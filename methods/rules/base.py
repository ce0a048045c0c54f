"""The interface of a guidance rule; `methods/rules/call.py` has what a rule is given.

A rule combines the outputs of a conditional and a reference branch into a guided denoiser. All
formulas act on denoiser outputs D(x; sigma, labels). g is the guidance scale in
D_g = D_ref + g (D_c - D_ref), and g = 1 is off. Most rules override one hook of `Rule`. No rule
states what it costs: the networks that a call offers count their evaluations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from torch import Tensor

from methods.rules.call import Branch, Call, Denoiser, Networks, Point, Within
from methods.settings import Settings
from methods.spec import DataSpec

if TYPE_CHECKING:
    from methods.rules.trajectory import Trajectory

__all__ = ["Branch", "Call", "Denoiser", "Networks", "Point", "Within"]

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


class Rule(Generic[K]):
    """Classifier-free guidance; each rule overrides a part of it.

    For each call of the guided denoiser the hooks run in this order: `scale` before any evaluation
    (1 skips the reference branch), `condition`, `reference`, `weigh`, `combine`, `finish`. Around
    them, `step` makes the step, `after_step` follows it, and `run` samples the whole trajectory.
    Rules are stateless: store values of a trajectory in `call.state`. At g = 1 no hook is called,
    and the sampler integrates D_c, unless the rule is `free`.

    With the knobs `neutral` the rule equals CFG. `search` holds the values that the tuner may try.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    knobs_type: ClassVar[type[Settings]] = NoKnobs
    neutral: ClassVar[Mapping[str, Any]] = {}
    search: ClassVar[Mapping[str, Between | OneOf]] = {}
    first_order: ClassVar[bool] = False
    """Whether the sampler takes Euler steps with one call each instead of Heun steps."""
    free: ClassVar[bool] = False
    """Whether the rule also acts where the scale is 1, without a reference: there `finish` and
    `step` run too. At g = 1 it then differs from the conditional sampler."""
    data_dependent: ClassVar[bool] = False
    """Whether outputs decide how many evaluations follow. What is announced is then the most, which
    the rule must need where `call.dry` is true; results state the mean that was counted."""

    def __init__(self, knobs: K | None = None) -> None:
        self.knobs: K = cast(K, self.knobs_type()) if knobs is None else knobs

    @property
    def particles(self) -> int:
        """States that are sampled for each sample, which gets one of them; see `resample`."""
        return 1

    def scale(self, g: float, at: Point) -> float:
        """The scale at this point, before any evaluation; 1 skips the reference branch."""
        return g

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """The labels (B, K) of the conditional branch."""
        return labels

    def branch(self) -> Branch:
        """The branch that `reference` evaluates with these knobs."""
        return "null"

    def others(self) -> tuple[Branch, ...]:
        """Branches that are evaluated besides, such as "blocks" for a network with skipped ones."""
        return ()

    def reference(self, call: Call) -> Tensor:
        """The reference output D_ref (B, ...), from an evaluation of `branch`.

        `call.cond` is D_c. A rule that overrides this hook gets separate calls for both.
        """
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

    def step(self, call: Call) -> Tensor:
        """The state (B, ...) at `call.at.end`; by default that of the sampler's step.

        A step of its own may evaluate networks anywhere with `call.to`, get the guided output from
        `call.guided` and the sampler's step from `call.advance`. Where the scale is 1 it is not
        called, unless the rule is `free`.
        """
        return call.advance()

    def resample(self, x: Tensor, call: Call) -> Tensor | None:
        """Log-weights (B,) of the particles `x` after a step, or None to keep them.

        B are the samples times `particles`, those of a sample in a row. Particles of the same
        sample replace each other by systematic resampling, with their tensors in `call.state`.
        """
        return None

    def run(self, trajectory: Trajectory, x: Tensor) -> Tensor:
        """Samples (B, ...) from the noisy states `x` at `trajectory.sigmas[0]`.

        By default the sampler follows the levels once. A rule may call `trajectory.follow` several
        times, with other levels, scales, and states that are noised again.
        """
        return trajectory.follow(x, trajectory.sigmas)

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
