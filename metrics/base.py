"""The interfaces of an extractor and a metric: everything a plugin author needs to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from metrics.about import About

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["lower", "higher", "none"]
Need = Literal["moments", "features", "logits", "pixels"]
Domain = Literal["image", "vector", "any"]
Array = npt.NDArray[np.float64]
T = TypeVar("T")
ARROWS: dict[Direction, str] = {"lower": "↓", "higher": "↑", "none": ""}


class Extracted(NamedTuple):
    """Output of an extractor for one batch: features (B, D) float32, logits (B, K) or None."""

    features: Tensor
    logits: Tensor | None


class Extractor(ABC):
    """Maps samples to features: uint8 images (B, C, H, W), or float32 vectors (B, D).

    `hash` covers weights and preprocessing: extractors with equal hashes give equal features.
    `label_logits`: the logits are over the classes of the data set itself.
    """

    name: str
    dim: int
    hash: str
    has_logits: bool = False
    label_logits: bool = False
    domain: ClassVar[Domain] = "image"

    @abstractmethod
    def __call__(self, samples: Tensor) -> Extracted:
        """Features of one batch; those of a sample do not depend on the rest of the batch."""


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of n samples, in float64."""

    n: int
    mean: Array
    cov: Array


@dataclass(frozen=True)
class PixelStats:
    """Pixel statistics of a set of images, (n,) in [0, 1] each.

    `at_ends` is the share of an image's values at 0 or 255; `contrast` the standard deviation of
    its values; `chroma` the mean over pixels of the largest minus the smallest channel, which is 0
    for grey images. The last two are in units of 255.
    """

    at_ends: Array
    contrast: Array
    chroma: Array


@dataclass(frozen=True)
class ExactMixture:
    """Exact density of toy data: Gaussians around `means[k]` (modes, D) of class k, equal `std`."""

    means: tuple[Array, ...]
    std: float


@dataclass(frozen=True)
class SampleSet:
    """The statistics of one pass over a set of samples, by extractor name.

    `labels` (n,) int64 are the requested classes (generated) or the given ones (real).
    `exact` is set on the real side if the density is known.
    """

    n: int
    labels: npt.NDArray[np.int64]
    features: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    logits: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    pixels: PixelStats | None = None
    exact: ExactMixture | None = None


def look_up(held: Mapping[str, T], extractor: str, what: str) -> T:
    """`held[extractor]`; the ValueError for a missing one lists what the sample set holds."""
    if extractor not in held:
        has = ", ".join(sorted(held)) or "none"
        raise ValueError(f"the sample set has no {what} of extractor {extractor!r}; it has: {has}")
    return held[extractor]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and the method of that error.

    `se_method` is 'jackknife', 'wilson', 'hajek', ..., or '' if there is no error (`se` is None).
    `low` and `high` bound the 95% interval, by default value -+ 1.96 se. `replicates` are the
    values with one group of samples left out each (`metrics.errors.jackknife_groups`). Two methods
    that share noise and labels share the groups, so the jackknife of the differences of their
    replicates is the standard error of their difference.
    """

    value: float
    se: float | None = None
    se_method: str = ""
    low: float | None = None
    high: float | None = None
    replicates: tuple[float, ...] = ()


class Unsuitable(ValueError):
    """The samples do not suffice for a metric; the message is the reason, for the user."""


class Metric(ABC):
    """A number that compares generated samples with real ones.

    `label` is its name in tables (extractor and n are added there); `direction` the better one.
    `uses_extractor` is False for metrics of the samples themselves. `default` is False for a metric
    that is computed only on request: it is costly, or needs an explanation. `minimum_n` samples are
    needed, also of real ones if any are. `needs` are the
    statistics to keep of both sets; `real_needs` the ones that `compute` requires of the real set,
    all by default: a statistics file holds moments only. `of_classes`: the value depends on the
    classes of the samples, so samples without classes are not measured. `of_sampling`: it depends
    on what the sampler did, so only the cells of a sweep have it. `about` says how a report shows
    it.
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
    of_classes: ClassVar[bool] = False
    of_sampling: ClassVar[bool] = False
    minimum_n: ClassVar[int] = 2
    default: ClassVar[bool] = True
    about: ClassVar[About] = About()

    @abstractmethod
    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float | Estimate:
        """Return the value, with its error if there is one.

        `extractor` names the features to use; '' if the metric uses none.
        """

    @classmethod
    def needs_of_real(cls) -> frozenset[Need]:
        """The statistics of the real set that `compute` requires."""
        return cls.needs if cls.real_needs is None else cls.real_needs

    @property
    def arrow(self) -> str:
        """The better direction as a character: '↓', '↑', or '' if neither is better."""
        return ARROWS[self.direction]

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """None if the metric can be computed for such data, or the reason why not.

        `domain` is that of the samples; `extractor` is None for a metric that uses none;
        `exact` is the density of the data if it is known.
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
        """None if this real set suffices, or the reason why not.

        Called right before `compute`, once the real set is known (`supports` is called without
        one): published statistics hold moments only, and a ratio may have nothing to divide by.
        """
        needs = self.needs_of_real()
        if needs and 0 < real.n < self.minimum_n:
            return f"{self.name} needs {self.minimum_n} real samples, there are {real.n}"
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
