"""The interfaces of an extractor and a metric: everything a plugin author needs to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metrics.about import About

Direction = Literal["lower", "higher", "none"]
Need = Literal["moments", "features", "logits", "pixels"]
Domain = Literal["image", "vector", "any"]
Array = npt.NDArray[np.float64]
T = TypeVar("T")
ARROWS: dict[Direction, str] = {"lower": "↓", "higher": "↑", "none": ""}


class Extracted(NamedTuple):
    """One batch seen by an extractor: features (B, D) float32, logits (B, K) or None."""

    features: Tensor
    logits: Tensor | None


class Extractor(ABC):
    """Maps samples to features: uint8 images (B, C, H, W), or float32 vectors (B, D).

    `hash` covers the weights and the preprocessing: two extractors with one hash give one result.
    `label_logits` says that the logits are over the classes of the data set itself.
    """

    name: str
    dim: int
    hash: str
    has_logits: bool = False
    label_logits: bool = False
    domain: ClassVar[Domain] = "image"

    @abstractmethod
    def __call__(self, samples: Tensor) -> Extracted:
        """Features of one batch, independent of the batch they come in."""


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of n samples, in float64."""

    n: int
    mean: Array
    cov: Array


@dataclass(frozen=True)
class PixelStats:
    """What the saturation metrics need of a set of images: one number (n,) each, in [0, 1].

    `at_ends` is the share of an image's values at 0 or 255; `contrast` the standard deviation of
    its values; `chroma` the mean over pixels of the largest less the smallest channel, in units of
    255, which is 0 for grey images.
    """

    at_ends: Array
    contrast: Array
    chroma: Array


@dataclass(frozen=True)
class ExactMixture:
    """Exact density of toy data: `means[k]` (modes, D) of class k, one `std` for all."""

    means: tuple[Array, ...]
    std: float


@dataclass(frozen=True)
class SampleSet:
    """What one pass over a set of samples leaves behind, by extractor name.

    `labels` (n,) int64 are the classes asked for (generated) or given (real).
    `exact` is set on the real side when the density is known.
    """

    n: int
    labels: npt.NDArray[np.int64]
    features: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    logits: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    pixels: PixelStats | None = None
    exact: ExactMixture | None = None


def look_up(held: Mapping[str, T], extractor: str, what: str) -> T:
    """`held[extractor]`, or a ValueError that says what the sample set holds instead."""
    if extractor not in held:
        has = ", ".join(sorted(held)) or "none"
        raise ValueError(f"the sample set has no {what} of extractor {extractor!r}; it has: {has}")
    return held[extractor]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and how that was obtained.

    `se_method` names it: 'jackknife', 'wilson', 'hajek', ...; '' with `se` None where there is
    none. `low` and `high` bound the 95% interval, by default value -+ 1.96 se. `replicates` are the
    values without one group of samples each (`metrics.errors.jackknife_groups`): two methods that
    share noise and labels share the groups, so the standard error of their difference is the
    jackknife's of the differences of replicates.
    """

    value: float
    se: float | None = None
    se_method: str = ""
    low: float | None = None
    high: float | None = None
    replicates: tuple[float, ...] = ()


class Metric(ABC):
    """A number that compares generated samples with real ones.

    `label` is what a table shows (the extractor and n are added there); `uses_extractor` is False
    for metrics of the samples themselves. `lower`/`higher` is the better direction.
    `default` is False for one that is computed only when asked for: it costs much, or needs an
    explanation beside it. `needs` is what is kept of both sides, `real_needs` what of that
    `compute` cannot do without on the real side, by default all of it: a statistics file holds no
    more than moments. `about` says how a report shows it.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    direction: ClassVar[Direction]
    needs: ClassVar[frozenset[Need]] = frozenset()
    real_needs: ClassVar[frozenset[Need] | None] = None
    domain: ClassVar[Domain] = "any"
    uses_extractor: ClassVar[bool] = True
    exact_only: ClassVar[bool] = False
    minimum_n: ClassVar[int] = 2
    default: ClassVar[bool] = True
    about: ClassVar[About] = About()

    @abstractmethod
    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float | Estimate:
        """Return the value, with its error where one is known.

        `extractor` names the features to use, or is '' where none are used.
        """

    @classmethod
    def needs_of_real(cls) -> frozenset[Need]:
        """What it cannot do without of the real set."""
        return cls.needs if cls.real_needs is None else cls.real_needs

    @property
    def arrow(self) -> str:
        """The better direction as a character: '↓', '↑', or '' where neither is better."""
        return ARROWS[self.direction]

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """None if the metric can be computed for such data, else the reason why not.

        `domain` is what the samples are; `extractor` is None for a metric that uses none;
        `exact` is the density of the data where it is known.
        """
        if self.domain not in ("any", domain):
            return f"{self.name} is for {self.domain} data, not {domain} data"
        if self.exact_only and exact is None:
            return f"{self.name} needs data whose exact density is known"
        if not self.uses_extractor:
            return None
        if extractor is None:
            return f"{self.name} needs an extractor"
        if extractor.domain not in ("any", domain):
            return f"extractor {extractor.name} is for {extractor.domain} data, not {domain} data"
        if "logits" in self.needs and not extractor.has_logits:
            return f"extractor {extractor.name} gives no logits, which {self.name} needs"
        return None

    def refuses(self, *, real: SampleSet, extractor: str) -> str | None:
        """None if this real side will do, else the reason why not.

        Asked before `compute`, where `supports` was asked before there was a real side: published
        statistics hold moments alone, and real samples may lack what a ratio divides by.
        """
        needs = self.needs_of_real()
        if "pixels" in needs and real.pixels is None:
            return f"{self.name} needs the pixels of real images, which the reference lacks"
        if not extractor:
            return None
        held = {"moments": {*real.moments}, "features": {*real.features}, "logits": {*real.logits}}
        missing = sorted(n for n, names in held.items() if n in needs and extractor not in names)
        if missing:
            return (
                f"{self.name} needs the {' and '.join(missing)} of real samples by extractor "
                f"{extractor}, which the reference lacks"
            )
        return None
