"""The density that guidance is often said to sample from, and distances to it.

p_g(x | c) is proportional to p(x | c)^g p(x)^(1 - g): the conditional density, sharpened by the
class posterior. Classifier-free guidance follows the scores of the noised factors and does not
sample it (Bradley & Nakkiran 2024, arXiv 2408.09000; Chidambaram et al. 2024, arXiv 2409.13074).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, gammaln, logsumexp

from metrics.about import About
from metrics.base import Array, Domain, Estimate, ExactMixture, Extractor, SampleSet
from metrics.registry import register
from metrics.toy import Labels, ToyMetric, by_class

PER_STD = {1: 50, 2: 10}
"""Grid nodes per standard deviation, by dimension."""
MOST_NODES = 4_000_000
DEPTH = 40.0
"""At the border of the grid the density is exp(-DEPTH) of its maximum."""
SAME = 1e-6
"""Allowed difference of the log integrals over all nodes and over every second node."""
NEIGHBOUR = 4


@dataclass(frozen=True)
class GuidedSamples(SampleSet):
    """A sample set with its guidance scale, 1 for real samples, and the strength of guidance.

    `metered` (m,) are the indices of the samples whose `pushes` (m, 5) were measured, as in
    `metrics.strength`; `unmetered` is the reason if there are none.
    """

    guidance: float = 1.0
    metered: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pushes: Array = field(default_factory=lambda: np.zeros((0, 5)))
    unmetered: str = ""


def at_guidance(samples: SampleSet, guidance: float, **metered: Any) -> GuidedSamples:
    """The same set with its guidance scale, and the other fields of `GuidedSamples`."""
    held = {f.name: getattr(samples, f.name) for f in fields(SampleSet)}
    return GuidedSamples(**held, guidance=guidance, **metered)


@dataclass(frozen=True)
class Tilted:
    """The normalised p_g(x | c) of one class on a grid of evenly spaced `axes`, one per dimension.

    `log_density` (n_1, ..., n_D) is `log_tilt` minus `log_norm`.
    """

    axes: tuple[Array, ...]
    log_density: Array
    log_norm: float

    @cached_property
    def marginals(self) -> tuple[tuple[Array, Array], ...]:
        """Nodes (m,) and distribution function (m,), from 0 to 1, of every coordinate."""
        from scipy.integrate import cumulative_simpson  # reports import this module

        density = np.exp(self.log_density)
        found = []
        for dim, nodes in enumerate(self.axes):
            others = tuple(d for d in range(len(self.axes)) if d != dim)
            weights = density.sum(axis=others) if others else density
            below = cumulative_simpson(weights, dx=float(nodes[1] - nodes[0]), initial=0.0)
            # Simpson's parabolas may dip below 0 where the density is 0.
            below = np.maximum.accumulate(np.clip(below, 0.0, None))
            found.append((nodes, below / below[-1]))
        return tuple(found)


def log_tilt(x: Array, label: int, exact: ExactMixture, guidance: float) -> Array:
    """Log of p(x | c)^g p(x)^(1 - g) at points (..., D), not normalised; equal class weights."""
    own = _log_class(x, exact.means[label], exact.std)
    if guidance == 1:
        return own
    every = np.stack([_log_class(x, modes, exact.std) for modes in exact.means])
    mixed: Array = logsumexp(every, axis=0) - np.log(len(every))
    # Written as a difference: in the tails both logarithms are far larger than it.
    return np.asarray(own + (guidance - 1) * (own - mixed), dtype=np.float64)


def _log_class(x: Array, modes: Array, std: float) -> Array:
    dim = modes.shape[1]
    square = ((x[..., None, :] - modes) ** 2).sum(axis=-1) / (2 * std**2)
    norm = np.log(len(modes)) + dim * np.log(std * np.sqrt(2 * np.pi))
    return np.asarray(logsumexp(-square, axis=-1) - norm, dtype=np.float64)


def tilted(exact: ExactMixture, label: int, guidance: float) -> Tilted:
    """p_g(x | c) on a grid that holds and resolves it, in one or two dimensions.

    The grid grows until the density at its border is exp(-40) of the maximum, and is refined until
    every second node gives the same integral. ValueError for other dimensions, or if this takes
    more than `MOST_NODES` nodes.
    """
    dim = exact.means[label].shape[1]
    if dim not in PER_STD:
        raise ValueError(f"a tilted density needs data of 1 or 2 dimensions, not {dim}")
    reach, step = 10 * exact.std, exact.std / PER_STD[dim]
    while True:
        axes = _axes(exact, reach, step)
        if float(np.prod([float(len(axis)) for axis in axes])) > MOST_NODES:
            raise ValueError(
                f"the density tilted by g = {guidance:g} does not fit on a grid of {MOST_NODES} "
                "nodes"
            )
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        values = log_tilt(grid, label, exact, guidance)
        log_norm = _log_integral(values, step)
        coarse = _log_integral(values[(slice(None, None, 2),) * dim], 2 * step)
        if not _border(values) < values.max() - DEPTH:
            reach *= 1.5
        elif not abs(log_norm - coarse) < SAME:
            step /= 2
        else:
            return Tilted(axes, values - log_norm, log_norm)


def _axes(exact: ExactMixture, reach: float, step: float) -> tuple[Array, ...]:
    """Nodes `step` apart, from `reach` below the modes to `reach` above, one axis per dimension."""
    modes = np.concatenate(exact.means)
    ends = zip(modes.min(axis=0) - reach, modes.max(axis=0) + reach, strict=True)
    return tuple(low + step * np.arange(np.ceil((high - low) / step) + 1) for low, high in ends)


def _log_integral(values: Array, step: float) -> float:
    return float(logsumexp(values)) + values.ndim * float(np.log(step))


def _border(values: Array) -> float:
    """The largest value on the faces of a grid."""
    faces = [values.take((0, -1), axis=axis).max() for axis in range(values.ndim)]
    return float(max(faces))


def grid_w1(x: Array, nodes: Array, below: Array) -> float:
    """Wasserstein-1 distance of samples (n,) to a distribution function `below` (m,) at `nodes`.

    int |F_n - F| dx, exact for an F that is linear between nodes.
    """
    points = np.sort(np.concatenate([x, nodes]))
    level = np.searchsorted(np.sort(x), points[:-1], side="right") / len(x)
    exact = np.interp(points, nodes, below)
    return _area(np.diff(points), exact[:-1] - level, exact[1:] - level)


def tilt_distance(exact: ExactMixture, guidance: float) -> float:
    """Wasserstein-1 distance of p_g(x | c) to p(x | c), as `class_w1` averages it."""
    found = []
    for label in range(len(exact.means)):
        one, other = tilted(exact, label, 1.0), tilted(exact, label, guidance)
        for (nodes, below), (more, lower) in zip(one.marginals, other.marginals, strict=True):
            points = np.union1d(nodes, more)
            gap = np.interp(points, nodes, below) - np.interp(points, more, lower)
            found.append(_area(np.diff(points), gap[:-1], gap[1:]))
    return float(np.mean(found))


def _area(widths: Array, left: Array, right: Array) -> float:
    """Integral of the absolute value of a function that is linear over each width."""
    total = np.abs(left) + np.abs(right)
    crossing = left * right < 0
    inner = np.where(crossing, (left**2 + right**2) / np.where(total > 0, total, 1.0), total)
    return float((widths * inner).sum() / 2)


def entropy(x: Array) -> float:
    """Kozachenko and Leonenko's estimate of the differential entropy of samples (n, D), in nats.

    It uses the distance to the fourth neighbour, or to the furthest if there are fewer. ValueError
    for fewer than two samples.
    """
    n, dim = x.shape
    if n < 2:
        raise ValueError(f"an entropy needs at least 2 samples, got {n}")
    k = min(NEIGHBOUR, n - 1)
    from scipy.spatial import cKDTree

    radius = np.asarray(cKDTree(x).query(x, k=[k + 1])[0])[:, 0]
    # Samples are rounded to float32, so equal ones are not infinitely close.
    spacing = np.spacing(np.abs(x).max(axis=1).astype(np.float32)).astype(np.float64)
    ball = dim / 2 * np.log(np.pi) - gammaln(dim / 2 + 1)
    radii = np.log(np.maximum(radius, spacing))
    return float(digamma(n) - digamma(k) + ball + dim * radii.mean())


class _TiltedMetric(ToyMetric):
    """Compares samples with the tilted density of their guidance scale."""

    default = False

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """Also refuses data of more than two dimensions."""
        reason = super().supports(domain=domain, extractor=extractor, exact=exact)
        if reason is None and exact is not None and exact.means[0].shape[1] not in PER_STD:
            return f"{self.name} is for data of 1 or 2 dimensions"
        return reason

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """The distance of the samples of each class, averaged over the classes present."""
        if not isinstance(fake, GuidedSamples):
            raise ValueError(f"{self.name} needs samples whose guidance scale is known")
        _, labels, exact = self.inputs(real, fake)
        present: npt.NDArray[np.int64] = np.unique(labels)
        densities = [tilted(exact, int(label), fake.guidance) for label in present]
        # All replicates hold every class, so `densities` fits them.
        return self.jackknifed(
            lambda x, y, known: self.distance(x, y, known, densities, fake.guidance), real, fake
        )

    def distance(
        self, x: Array, y: Labels, exact: ExactMixture, densities: Sequence[Tilted], g: float
    ) -> float:
        """Mean distance to the density of each class in y."""
        raise NotImplementedError


@register
class TiltedWasserstein1(_TiltedMetric):
    """Wasserstein-1 distance to the g-tilted class density, in data units, >= 0."""

    name = "w1_tilted"
    label = "W1 to the g-tilted density"
    summary = "Wasserstein-1 distance to p(x|c)^g p(x)^(1-g), mean over classes"
    about = About(order=90, standing="shown", low=0.0, error_of="generated")
    direction = "none"

    def distance(
        self, x: Array, y: Labels, exact: ExactMixture, densities: Sequence[Tilted], g: float
    ) -> float:
        """W1 of each coordinate's marginal, averaged as by `class_w1`."""
        found = [
            [grid_w1(part[:, d], *density.marginals[d]) for d in range(x.shape[1])]
            for (part, _), density in zip(by_class(x, y, exact), densities, strict=True)
        ]
        return float(np.mean(found))


@register
class TiltedKL(_TiltedMetric):
    """Kullback-Leibler divergence of the samples from the g-tilted class density, in nats.

    The mean log ratio of the generated to the tilted density. The tilted density is exact; the
    entropy of the generated one is estimated from neighbours, so small values may be negative.
    """

    name = "kl_tilted"
    label = "KL to the g-tilted density (nats)"
    summary = "mean log ratio of the generated density to p(x|c)^g p(x)^(1-g), mean over classes"
    about = About(error_of="generated")
    direction = "none"
    minimum_n = 20

    def distance(
        self, x: Array, y: Labels, exact: ExactMixture, densities: Sequence[Tilted], g: float
    ) -> float:
        """- entropy - E log p_g."""
        classes = zip(np.unique(y), by_class(x, y, exact), densities, strict=True)
        return float(
            np.mean(
                [
                    density.log_norm - log_tilt(part, int(k), exact, g).mean() - entropy(part)
                    for k, (part, _), density in classes
                ]
            )
        )
