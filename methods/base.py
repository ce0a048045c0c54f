"""The interface of a method: everything a plugin author needs to read."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, Self, TypeVar

from torch import Tensor, nn

from methods.guidance import Guidance
from methods.rng import BatchRNG, SampleRNG
from methods.rules.base import Branch
from methods.samplers import USUAL, Sampler
from methods.settings import Preset, Settings
from methods.spec import DataSpec

GuidanceKind = Literal["none", "sampling", "embedded"]
ConfigT = TypeVar("ConfigT", bound=Settings)
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,), labels (B, K), zeros for null) -> denoised (B, ...)."""


@dataclass(frozen=True)
class Batch:
    """One batch of training data.

    `x0` (B, *shape): clean samples, images in [-1, 1]. `labels` (B, K): one-hot, float.
    `decoupled` (B, *shape): independently drawn samples, only if `Method.wants_decoupled`.
    `teacher`: the frozen denoiser of a trained model, only if `Method.wants_teacher`.
    """

    x0: Tensor
    labels: Tensor
    decoupled: Tensor | None = None
    teacher: Denoiser | None = None


@dataclass(frozen=True)
class Progress:
    """The current training step: `step` counts from 0 to `total` - 1."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of training that is done, in [0, 1)."""
        return self.step / self.total


class Method(ABC, Generic[ConfigT]):
    """A generative model with its training loss and its sampler.

    A method is stateless: its weights live in the module that `build` returns, and every call
    receives that module. If a method cannot do something, `supports` returns the reason. It is
    reported as a skip, never as a crash.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    guidance: ClassVar[GuidanceKind]
    config_type: ClassVar[type[Settings]]
    presets: ClassVar[Mapping[str, Preset]]
    trains: ClassVar[bool] = True
    takes_rules: ClassVar[bool] = False
    """Whether the method applies `Guidance.rule`. If so, it samples with `sample_guided`."""
    takes_samplers: ClassVar[bool] = False
    """Whether the method integrates a trajectory, and so follows any `sampler`."""
    sampler: Sampler = USUAL
    wants_decoupled: ClassVar[bool] = False
    wants_teacher: ClassVar[str | None] = None
    """Name of the method whose trained run this one distils. That method implements `Teaches`."""

    def __init__(self, config: ConfigT, data: DataSpec) -> None:
        self.config = config
        self.data = data

    def with_sampler(self, sampler: Sampler) -> Self:
        """A copy of this method that samples so. Raises ValueError if it cannot."""
        if not (self.takes_samplers or sampler.is_usual):
            raise ValueError(f"{self.name} has its own sampler")
        other = copy.copy(self)
        other.sampler = sampler
        return other

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the networks, initialised from torch's global generator."""

    @abstractmethod
    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Named loss terms (B,), already weighted and not reduced over the batch.

        The training loss is their sum, averaged over the batch.
        """

    @abstractmethod
    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Samples (B, *shape) for one-hot `labels` (B, K); images in [-1, 1].

        All randomness comes from `rng`, which has one stream per sample.
        """

    @abstractmethod
    def nfe(self, guidance: Guidance, steps: int) -> int:
        """Network evaluations per sample, counting all branches."""

    def nfe_weighted(self, guidance: Guidance, steps: int) -> float:
        """`nfe` weighted by the size of each evaluated network; the method's own counts 1."""
        return float(self.nfe(guidance, steps))

    def costs(self) -> Mapping[Branch, float]:
        """The size of the network of each branch, if it is not the method's own, which counts 1."""
        return {}

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """None if the method can do this, otherwise the reason."""
        if self.guidance == "none" and not guidance.is_off:
            return f"{self.name} takes no guidance"
        return None

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the weights of another run to the parameter names of this method.

        Called by `--init-from`. Parameters that are not returned keep their initial values.
        """
        return dict(source)


class Inverts(ABC):
    """Additional interface of methods that can invert images to latents.

    Neither direction draws random numbers. Scales that `supports` refuses are not used for edits.
    """

    @abstractmethod
    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """Invert `x0` (B, *shape), images in [-1, 1], to latents (B, *shape) at sigma_max."""

    @abstractmethod
    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """Decode `latent` (B, *shape) to samples (B, *shape) of the classes `labels` (B, K).

        With the labels of the source and g = 1 this reconstructs the source.
        """

    @abstractmethod
    def latent_sigma(self) -> float:
        """Noise level of latents: a perfect inversion gives N(0, latent_sigma^2)."""

    @abstractmethod
    def inversion_nfe(self) -> int:
        """Network evaluations of `invert` per image."""

    @abstractmethod
    def edit_nfe(self, guidance: Guidance) -> int:
        """Network evaluations of `edit` per image, counting all branches."""


class Teaches(ABC):
    """Additional interface of methods that can be distilled."""

    @abstractmethod
    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels) without guidance, same shape as x (B, ...).

        `sigma` is (B,) or scalar; `labels` (B, K) are one-hot, zeros for null.
        """

    @abstractmethod
    def cannot_teach(self) -> str | None:
        """None if the network knows all labels that its student needs, otherwise the reason."""
