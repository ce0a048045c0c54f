"""Sliced Wasserstein distance of features, which needs no Gaussian fit and no kernel."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metrics.about import About
from metrics.base import Array, Estimate, Metric, SampleSet, look_up
from metrics.errors import GROUPS, Groups, jackknife, jackknife_groups
from metrics.registry import register

PROJECTIONS = 1000
SEED = 2020
AT_ONCE = 64

Features = npt.NDArray[np.floating]


class SlicedDistance(NamedTuple):
    """D times the mean squared W2 over directions, and its two errors, to be added in squares.

    `projection_se` is due to the finite number of directions, which all sets of a seed share;
    `sampling_se`, with `replicates` (G,), to the finite number of generated samples.
    """

    value: float
    projection_se: float
    sampling_se: float
    replicates: Array


class _Pieces(NamedTuple):
    """Pieces of [0, 1] on which two step functions are constant: widths, indices of the steps."""

    widths: Array
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]


def _pieces(n: int, m: int) -> _Pieces:
    # In units of 1 / (n m) all edges are whole numbers and therefore exact.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    starts = edges[:-1]
    return _Pieces(np.diff(edges) / (n * m), starts // m, starts // n)


def _squared_w2(x: Array, y: Array, pieces: _Pieces) -> Array:
    """Squared W2 (P,) of sorted rows (P, n) and (P, m): the integral over quantiles, exactly."""
    steps = x[:, pieces.first] - y[:, pieces.second]
    distance: Array = (steps * steps) @ pieces.widths
    return distance


def directions(dim: int, count: int = PROJECTIONS, seed: int = SEED) -> Array:
    """Uniform unit vectors (count, dim), the same for every set."""
    # The stream of the legacy generator is frozen: every version of numpy draws the same.
    drawn = np.random.RandomState(seed).normal(size=(count, dim))
    unit: Array = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def sliced_distance(
    real: Features, fake: Features, groups: Groups, projections: int = PROJECTIONS, seed: int = SEED
) -> SlicedDistance:
    """D times the mean over random directions of the squared 1-D Wasserstein-2 distance.

    Bonneel et al. (2015), eq. 8, of features (n, D) and (m, D). With the factor D a pure shift by s
    gives |s|^2, as for the Frechet distance; the MIND of torch-fidelity's development version is
    three times this. Equal distributions give about 1/n. It costs one sort per set and direction.

    ValueError if dimensions differ, there are fewer than 3 generated samples, or values are not
    finite.
    """
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:] or groups.shape != fake.shape[:1]:
        raise ValueError(f"features of shapes {real.shape} and {fake.shape} do not compare")
    if len(real) < 1 or len(fake) < 3 or projections < 2:
        raise ValueError("at least 1 real, 3 generated samples and 2 projections are needed")
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise ValueError("the features hold NaN or infinity")
    n, m, dim = len(real), len(fake), real.shape[1]
    sizes = np.bincount(groups)
    whole = _pieces(n, m)
    without = {int(size): _pieces(n, m - int(size)) for size in np.unique(sizes)}
    # A common shift does not change distances; rounding in float32 grows with the norms.
    centre = real.mean(axis=0, dtype=np.float64)
    x, y = ((part - centre).astype(np.float32) for part in (real, fake))
    unit = directions(dim, projections, seed).astype(np.float32)
    found = np.empty((len(sizes) + 1, projections))
    for start in range(0, projections, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        sorted_x = np.sort((unit[some] @ x.T).astype(np.float64), axis=1)
        projected = (unit[some] @ y.T).astype(np.float64)
        order = np.argsort(projected, axis=1)
        sorted_y = np.take_along_axis(projected, order, axis=1)
        found[0, some] = _squared_w2(sorted_x, sorted_y, whole)
        member = groups[order]
        for group, size in enumerate(sizes):
            # The rest of a sorted row is sorted.
            rest = sorted_y[member != group].reshape(len(order), m - size)
            found[group + 1, some] = _squared_w2(sorted_x, rest, without[int(size)])
    found *= dim
    means = found.mean(axis=1)
    return SlicedDistance(
        float(means[0]),
        float(found[0].std(ddof=1)) / math.sqrt(projections),
        jackknife(means[1:], float(means[0]), sizes).se,
        means[1:],
    )


@register
class SlicedWasserstein(Metric):
    """D times sliced W2 squared over 1000 directions, >= 0; compare values at equal n only.

    The error covers the sampling of generated samples and of directions. The replicates share the
    directions, so a difference of methods has no error from these.
    """

    name = "mind"
    label = "MIND (D x sliced W2²)"
    summary = "sliced Wasserstein distance over 1000 random directions, times the dimension"
    about = About(low=0.0, ratios=True)
    direction = "lower"
    needs = frozenset({"features"})
    default = False
    minimum_n = 3

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`sliced_distance` in squared feature units."""
        found = sliced_distance(
            look_up(real.features, extractor, "features"),
            look_up(fake.features, extractor, "features"),
            jackknife_groups(fake.labels),
        )
        return Estimate(
            found.value,
            math.hypot(found.sampling_se, found.projection_se),
            f"jackknife, {GROUPS} groups, and {PROJECTIONS} directions",
            replicates=tuple(found.replicates.tolist()),
        )
