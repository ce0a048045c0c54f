"""Metrics against a known density: a mixture of equal round Gaussians per class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from metrics.about import About
from metrics.base import (
    Array,
    Domain,
    Estimate,
    ExactMixture,
    Extractor,
    Metric,
    SampleSet,
    look_up,
)
from metrics.errors import jackknife_estimate, jackknife_groups, share_estimate
from metrics.registry import register

Labels = npt.NDArray[np.int64]
BISECTIONS = 64
"""Halvings of a bracket a few standard deviations wide, down to float64 precision."""


def mixture_w1(x: Array, modes: Array, std: float) -> float:
    """Exact Wasserstein-1 distance between samples (n,) and a mixture of N(mode, std^2).

    `modes` (M,) have equal weights. W1 = int |F_n - F| dx (Vallender 1974): between neighbouring
    samples F_n is constant and F crosses it at most once, so each piece has a closed form.
    """
    if x.ndim != 1 or len(x) == 0 or std <= 0:
        raise ValueError(f"need samples (n,) and std > 0, got {x.shape} and {std}")
    x = np.sort(x)
    left, right = x[:-1], x[1:]
    level = np.arange(1, len(x)) / len(x)
    crossing = np.clip(_quantile(level, modes, std), left, right)
    area = [_area_below(points, modes, std) for points in (left, crossing, right)]
    inner = (level * (crossing - left) - (area[1] - area[0]) + (area[2] - area[1])) - level * (
        right - crossing
    )
    # The right tail of F is the left tail of the mirrored mixture.
    tails = _area_below(x[:1], modes, std) + _area_below(-x[-1:], -modes, std)
    return float(inner.sum() + tails[0])


def _area_below(x: Array, modes: Array, std: float) -> Array:
    """Integral of the mixture's distribution function from -inf to x."""
    z = (x[:, None] - modes) / std
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    area: Array = std * (z * ndtr(z) + density).mean(axis=1)
    return area


def _quantile(level: Array, modes: Array, std: float) -> Array:
    offset = std * ndtri(level)
    low, high = modes.min() + offset, modes.max() + offset
    if len(modes) == 1:
        return np.asarray(low, dtype=np.float64)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = ndtr((middle[:, None] - modes) / std).mean(axis=1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(0.5 * (low + high), dtype=np.float64)


def class_w1(x: Array, labels: Labels, exact: ExactMixture) -> float:
    """W1 to the density of each class, averaged over coordinates, then over the classes present.

    x (n, D); each coordinate's marginal is a 1-D mixture, compared by `mixture_w1`.
    """
    distances = [
        [mixture_w1(part[:, d], modes[:, d], exact.std) for d in range(x.shape[1])]
        for part, modes in by_class(x, labels, exact)
    ]
    return float(np.mean(distances))


def class_shift(x: Array, labels: Labels, exact: ExactMixture) -> float:
    """Displacement of each class mean away from the origin in units of std, averaged.

    The sample mean of a class minus its exact mean, projected on the direction of the exact mean.
    Classes centred at the origin have no outward direction and are skipped.
    """
    shifts = []
    for part, modes in by_class(x, labels, exact):
        mean = modes.mean(axis=0)
        if not _is_centred(modes, exact.std):
            outward = mean / np.linalg.norm(mean)
            shifts.append((part.mean(axis=0) - mean) @ outward / exact.std)
    if not shifts:
        raise ValueError("every class is centred at the origin: no direction is outward")
    return float(np.mean(shifts))


def _is_centred(modes: Array, std: float) -> bool:
    return bool(np.linalg.norm(modes.mean(axis=0)) <= 1e-6 * std)


def is_within(
    x: Array, labels: Labels, exact: ExactMixture, radius: float = 3.0
) -> npt.NDArray[np.bool_]:
    """Whether samples (n, D) are within `radius` std of the nearest mode of their class.

    At radius 3 the exact density itself gives a share of 0.9973 in one dimension, 0.9889 in two.
    """
    inside = np.zeros(len(x), bool)
    for label, (part, modes) in zip(np.unique(labels), by_class(x, labels, exact), strict=True):
        distance = np.linalg.norm(part[:, None, :] - modes, axis=2).min(axis=1)
        inside[labels == label] = distance <= radius * exact.std
    return inside


def by_class(x: Array, labels: Labels, exact: ExactMixture) -> list[tuple[Array, Array]]:
    """Samples (n_k, D) and modes (M, D) of each class that has samples, in order of class."""
    dim = exact.means[0].shape[1]
    if x.ndim != 2 or x.shape[1] != dim or labels.shape != x.shape[:1] or len(x) == 0:
        raise ValueError(
            f"samples {x.shape} with labels {labels.shape} do not fit a density of dimension {dim}"
        )
    if labels.min() < 0 or labels.max() >= len(exact.means):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {len(exact.means)} classes"
        )
    return [(x[labels == k], exact.means[int(k)]) for k in np.unique(labels)]


class ToyMetric(Metric):
    """Compares raw vectors, the features of the extractor 'identity', with an exact density."""

    needs = frozenset({"features"})
    real_needs = frozenset()
    domain = "vector"
    uses_extractor = False
    exact_only = True
    of_classes = True
    minimum_n = 2

    def inputs(self, real: SampleSet, fake: SampleSet) -> tuple[Array, Labels, ExactMixture]:
        """Samples (n, D), labels and density; ValueError if the density is not known."""
        if real.exact is None:
            raise ValueError(f"{self.name} needs real data whose exact density is known")
        x = look_up(fake.features, "identity", "features").astype(np.float64)
        return x, fake.labels, real.exact

    def jackknifed(
        self,
        statistic: Callable[[Array, Labels, ExactMixture], float],
        real: SampleSet,
        fake: SampleSet,
    ) -> Estimate:
        """A statistic of all samples, with its error if each class has at least two."""
        x, labels, exact = self.inputs(real, fake)
        value = statistic(x, labels, exact)
        # A replicate that lacks a class would be a different statistic.
        if np.unique(labels, return_counts=True)[1].min() < 2:
            return Estimate(value)
        groups = jackknife_groups(fake.labels)
        kept = [groups != group for group in range(int(groups.max()) + 1)]
        left = [statistic(x[rest], labels[rest], exact) for rest in kept]
        return jackknife_estimate(value, np.array(left), groups)


@register
class Wasserstein1(ToyMetric):
    """Wasserstein-1 distance to the exact class density, in data units, >= 0."""

    name = "w1"
    label = "W1"
    summary = "Wasserstein-1 distance to the exact density, mean over classes"
    about = About(order=90, standing="headline", lead=2, low=0.0, ratios=True, error_of="generated")
    direction = "lower"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`class_w1` of the generated samples."""
        return self.jackknifed(class_w1, real, fake)


@register
class Shift(ToyMetric):
    """Outward displacement of the class means in units of std; 0 = in place."""

    name = "shift"
    label = "Mean shift (std)"
    summary = "outward displacement of the class mean in standard deviations, 0 = in place"
    about = About(order=110, standing="shown", error_of="generated")
    direction = "none"

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """Also refuses a density whose classes are all centred at the origin."""
        reason = super().supports(domain=domain, extractor=extractor, exact=exact)
        if reason is not None or exact is None:
            return reason
        if all(_is_centred(modes, exact.std) for modes in exact.means):
            return "every class is centred at the origin: no direction is outward"
        return None

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`class_shift` of the generated samples."""
        return self.jackknifed(class_shift, real, fake)


@register
class Within3(ToyMetric):
    """Share of samples within 3 std of the nearest mode of their class, in [0, 1]."""

    name = "within3"
    label = "Within 3 std"
    summary = "share of samples within 3 standard deviations of a mode of their class"
    about = About(order=100, standing="headline", low=0.0, high=1.0, error_of="generated")
    direction = "higher"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """The share of generated samples that `is_within` accepts."""
        return share_estimate(is_within(*self.inputs(real, fake)), jackknife_groups(fake.labels))
