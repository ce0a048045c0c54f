"""The interface of a method: everything a plugin author needs to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from methods.guidance import Guidance
from methods.rng import BatchRNG, SampleRNG
from methods.settings import Preset, Settings
from methods.spec import DataSpec

GuidanceKind = Literal["none", "sampling", "embedded"]
ConfigT = TypeVar("ConfigT", bound=Settings)
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,), labels (B, K), zeros for null) -> denoised (B, ...)."""


@dataclass(frozen=True)
class Batch:
    """One batch of training data.

    `x0` (B, *shape) clean samples, images in [-1, 1]; `labels` (B, K) one-hot float;
    `decoupled` (B, *shape) an independent draw of samples, for methods that ask for it; `teacher`
    the frozen denoiser of a trained model, for methods that distil one.
    """

    x0: Tensor
    labels: Tensor
    decoupled: Tensor | None = None
    teacher: Denoiser | None = None


@dataclass(frozen=True)
class Progress:
    """Where training stands: `step` counts from 0 to `total` - 1."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of training that is done, in [0, 1)."""
        return self.step / self.total


class Method(ABC, Generic[ConfigT]):
    """A generative model with its training loss and its sampler.

    A method is stateless: weights live in the module that `build` returns and are handed back to
    every call. What a method cannot do it states through `supports`; that becomes a skip with
    its reason, never a crash.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    guidance: ClassVar[GuidanceKind]
    config_type: ClassVar[type[Settings]]
    presets: ClassVar[Mapping[str, Preset]]
    trains: ClassVar[bool] = True
    takes_rules: ClassVar[bool] = False
    """Whether `Guidance.rule` decides how it is guided; it samples with `sample_guided` then."""
    wants_decoupled: ClassVar[bool] = False
    wants_teacher: ClassVar[str | None] = None
    """The method whose trained run this one distils; it offers `Teaches`."""

    def __init__(self, config: ConfigT, data: DataSpec) -> None:
        self.config = config
        self.data = data

    @abstractmethod
    def build(self) -> nn.Module:
        """The networks, freshly initialised from torch's global generator."""

    @abstractmethod
    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Named loss terms, weights included, each (B,) and unreduced.

        The training loss is the mean over the batch of their sum.
        """

    @abstractmethod
    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Samples (B, *shape) for one-hot `labels` (B, K); images in [-1, 1].

        All randomness comes from `rng`, whose length is B.
        """

    @abstractmethod
    def nfe(self, guidance: Guidance, steps: int) -> int:
        """Network evaluations for one sample, all branches counted."""

    def nfe_weighted(self, guidance: Guidance, steps: int) -> float:
        """`nfe`, each weighted by its network's parameters in units of the method's own network."""
        return float(self.nfe(guidance, steps))

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """None if the method can do this, otherwise the reason why not."""
        if self.guidance == "none" and not guidance.is_off:
            return f"{self.name} takes no guidance"
        return None

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of another run, by their names there, under the names they have here.

        Called by `--init-from`. What is not returned keeps its initial value.
        """
        return dict(source)


class Inverts(ABC):
    """What a method offers in addition if it maps images to latents.

    Neither direction draws random numbers. A scale that `supports` refuses is not edited with.
    """

    @abstractmethod
    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """Latent (B, *shape) at sigma_max of `x0` (B, *shape), images in [-1, 1]."""

    @abstractmethod
    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """Samples (B, *shape) of `labels` (B, K) from `latent`.

        With the source's own labels and g = 1 this reconstructs the source.
        """

    @abstractmethod
    def latent_sigma(self) -> float:
        """Noise level of latents: those of a perfect inversion are N(0, latent_sigma^2)."""

    @abstractmethod
    def inversion_nfe(self) -> int:
        """Network evaluations of `invert` for one image."""

    @abstractmethod
    def edit_nfe(self, guidance: Guidance) -> int:
        """Network evaluations of `edit` for one image, all branches counted."""


class Teaches(ABC):
    """What a method offers in addition if others can distil it."""

    @abstractmethod
    def denoise(self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels) without guidance, the shape of x (B, ...).

        `sigma` (B,) or scalar; `labels` (B, K), zeros for null.
        """

    @abstractmethod
    def cannot_teach(self) -> str | None:
        """None if null labels are among what it was trained on, otherwise the reason why not."""
