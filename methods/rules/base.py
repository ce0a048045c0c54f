"""The interface of a guidance rule: everything the author of one needs to read.

A rule turns the outputs of a conditional and of a reference branch into one guided denoiser. All
formulas act on denoiser outputs, D(x; sigma, labels), with the scale g of the field, where
D_g = D_ref + g (D_c - D_ref) and g = 1 is off. Most rules override one of the hooks of `Rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from torch import Tensor, nn

from methods.rng import SampleRNG
from methods.settings import Settings
from methods.spec import DataSpec

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Branch = Literal["null", "main", "weak", "attention"]
"""What a reference is taken from: the unconditional branch, the network itself with other inputs,
a weaker network, or the network itself with its self-attention changed."""

Weight = float | Tensor
"""A guidance scale: one for all, or (B,) one a sample."""


class NoKnobs(Settings):
    """Of a rule that has nothing to set."""


K = TypeVar("K", bound=Settings)


@dataclass(frozen=True)
class Between:
    """A knob's search range, both ends included; `log` spaces it by ratio."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """A knob's possible values for the tuner."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Point:
    """Where in a trajectory a denoiser is called.

    `step` counts from 0 to `steps` - 1; `stage` is 0 for the predictor and 1 for Heun's corrector.
    `sigma` is the level of this call, `start` and `end` are those of the step, alike in both
    stages: a decision that both stages shall share looks at these or at `step`. `levels` are those
    of the whole trajectory, `steps` + 1 of them, descending.
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
        """Share of the steps still to do, 1 at the first step: t with 1 = noise."""
        return 1.0 - self.step / self.steps


@dataclass(frozen=True)
class Networks:
    """What a rule may evaluate: denoisers (x (B, ...), sigma, labels (B, K)) -> (B, ...).

    `null` has its own labels; `module` is the network behind `main`, for rules that change its
    attention.
    """

    main: Denoiser
    null: Callable[[Tensor, Tensor], Tensor] | None = None
    weak: Denoiser | None = None
    module: nn.Module | None = None


@dataclass
class Call:
    """One call of the guided denoiser, as a rule sees it.

    `x` (B, ...) in the dtype of the state, `sigma` a scalar tensor, `labels` (B, K) one-hot, `g`
    the scale asked for. `state` lives as long as the trajectory; keys carry the rule's name, and
    tensors in it have the batch first. Random numbers come from `rng`, one stream a sample.
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
        """D(x; sigma, labels) of the network itself, with these inputs or the call's own."""
        sigma = self.sigma if sigma is None else sigma
        return self.networks.main(self.x, sigma, self.labels if labels is None else labels).to(
            self.x
        )

    def null(self) -> Tensor:
        """D(x; sigma, null), of the unconditional branch."""
        assert self.networks.null is not None
        return self.networks.null(self.x, self.sigma).to(self.x)

    def weak(self, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma, labels) of the weaker network."""
        assert self.networks.weak is not None
        labels = self.labels if labels is None else labels
        return self.networks.weak(self.x, self.sigma, labels).to(self.x)


class Rule(Generic[K]):
    """Classifier-free guidance, of which every rule overrides a part.

    The hooks in their order: `scale` before anything is evaluated (1 leaves the reference branch
    out), `condition`, `reference`, `weigh`, `combine`, `finish`; then the sampler steps, and
    `after_step` sees it. Rules are stateless; what a trajectory must remember is in `call.state`.
    At g = 1 none of this happens: the sampler integrates D_c.

    `neutral` are the knobs at which the rule is CFG, and `search` is what the tuner may try.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    knobs_type: ClassVar[type[Settings]] = NoKnobs
    neutral: ClassVar[Mapping[str, Any]] = {}
    search: ClassVar[Mapping[str, Between | OneOf]] = {}
    first_order: ClassVar[bool] = False
    """Whether the sampler takes Euler steps, one call each, instead of Heun's."""

    def __init__(self, knobs: K | None = None) -> None:
        self.knobs: K = cast(K, self.knobs_type()) if knobs is None else knobs

    def scale(self, g: float, at: Point) -> float:
        """The scale at this point, before anything is evaluated; 1 skips the reference."""
        return g

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """The labels (B, K) that the conditional branch sees."""
        return labels

    def branch(self) -> Branch:
        """What `reference` evaluates, with these knobs."""
        return "null"

    def reference(self, call: Call) -> Tensor:
        """The output that guidance leads away from, in one evaluation of `branch`."""
        return call.null()

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The scale once both outputs are known."""
        return g

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The guided output, D_ref + g (D_c - D_ref)."""
        return d_ref + spread(g, d_cond) * (d_cond - d_ref)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The guided output after a correction."""
        return guided

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """The denoised image from which the noise of the next level is taken; first order only."""
        return guided

    def after_step(self, x: Tensor, x_next: Tensor, call: Call) -> None:
        """Look at a step from `x` to `x_next`; `call` is that of its first stage."""

    def unsuited(self, data: DataSpec) -> str | None:
        """None if the rule makes sense on such data, otherwise why not."""
        return None

    def settings(self) -> dict[str, Any]:
        """All knobs by name, "rule.knob": what a row records."""
        return {f"{self.name}.{k}": v for k, v in self.knobs.model_dump(mode="json").items()}

    def parts(self) -> tuple[Rule[Any], ...]:
        """The rules that this one is made of."""
        return (self,)


def spread(g: Weight, like: Tensor) -> Weight:
    """A weight that broadcasts over the samples of `like`: (B,) => (B, 1, ..., 1)."""
    if not isinstance(g, Tensor):
        return g
    return g.to(like).reshape(-1, *[1] * (like.ndim - 1))
