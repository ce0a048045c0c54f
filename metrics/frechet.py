"""Frechet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from metrics.about import About
from metrics.base import Array, Estimate, Metric, Moments, SampleSet, look_up
from metrics.errors import Groups, jackknife_estimate, jackknife_groups
from metrics.memo import kept, only, remember
from metrics.moments import moments_without
from metrics.registry import register

ROUNDING = 1e-8
"""A negative distance within this share of the two traces is rounding and becomes 0."""

EPS = float(np.finfo(np.float64).eps)
Features = npt.NDArray[np.floating]


def frechet_distance(
    real: Moments,
    fake: Moments,
    *,
    real_features: Features | None = None,
    fake_features: Features | None = None,
) -> float:
    """Squared Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), in float64, >= 0.

    Dowson and Landau (1982); as a metric of generated images Heusel et al. (2017), eq. 6.
    With a factor S1 = F1^T F1 the last trace is that of (F1 S2 F1^T)^1/2, by the eigenvalues of a
    symmetric matrix; with factors of both it is the nuclear norm of F1 F2^T. The error of singular
    values is of the order of machine precision, that of roots of eigenvalues of its square root.
    So the faster eigenvalues are used if `ROUNDING` bounds their error, else the norm. The factor
    of a set of n < D samples is computed from its features (n, D), if they are given; otherwise it
    is the root of the covariance, truncated to its numerical rank.

    The root of the real side is remembered. A distance at D = 2048 then costs two products and
    the eigenvalues of a D x D matrix; the norm costs three to five times that. If both n < D, these
    matrices have the size of the smaller n.

    ValueError if the dimensions differ or a moment is NaN or infinite; ArithmeticError if the
    result is negative by more than `ROUNDING` of the traces, which valid moments cannot give.
    """
    if real.mean.shape != fake.mean.shape:
        raise ValueError(
            f"real features have {len(real.mean)} dimensions, generated ones {len(fake.mean)}"
        )
    if not all(np.isfinite(part).all() for m in (real, fake) for part in (m.mean, m.cov)):
        raise ValueError("the moments hold NaN or infinity")
    overlap = _overlap(_factor(real, real_features), fake, fake_features)
    spread = float(np.trace(real.cov) + np.trace(fake.cov))
    step = real.mean - fake.mean
    value = float(step @ step) + spread - 2.0 * overlap
    if not math.isfinite(value) or value < -ROUNDING * spread:
        raise ArithmeticError(f"the Frechet distance came out as {value}: are these moments valid?")
    return max(value, 0.0)


def _overlap(factor: Array, other: Moments, features: Features | None) -> float:
    """Trace of (S1 S2)^1/2 from a factor (r, D) of S1 and the other set."""
    if factor.size == 0:
        return 0.0
    allowed = 0.1 * ROUNDING * float((factor * factor).sum() + np.trace(other.cov))
    if features is None or other.n >= len(other.mean):
        trace = _trace_of_root(factor @ other.cov @ factor.T, allowed)
        if trace is not None:
            return trace
    cross = factor @ _factor(other, features).T
    if cross.size == 0:
        return 0.0
    flat = cross if len(cross) <= cross.shape[1] else cross.T
    trace = _trace_of_root(flat @ flat.T, allowed)
    return float(np.linalg.svd(cross, compute_uv=False).sum()) if trace is None else trace


def _trace_of_root(square: Array, allowed: float) -> float | None:
    """Trace of the root of a positive matrix, or None if it may err by more than `allowed`."""
    values = np.linalg.eigvalsh(square)
    largest = float(values[-1])
    if not values[0] > EPS * len(values) * largest:
        return None
    roots = np.sqrt(values)
    # An eigenvalue's error is about eps times the largest one, its root's that over the root.
    return float(roots.sum()) if EPS * largest * float((1 / roots).sum()) <= allowed else None


def _factor(moments: Moments, features: Features | None) -> Array:
    """F (r, D) with F^T F = S."""
    if features is None or moments.n >= len(moments.mean):
        return _root(moments.cov)
    if features.shape != (moments.n, len(moments.mean)):
        raise ValueError(
            f"features of shape {features.shape} do not belong to moments of {moments.n} samples "
            f"in {len(moments.mean)} dimensions"
        )
    return _steps(features, moments.mean)


@remember(4)
def _steps(features: Features, mean: Array) -> Array:
    """Factor (n - 1, D) of a covariance: each row minus the mean of the previous ones (Helmert).

    It has full rank, whereas the n rows of centred features have a singular value of 0.
    """
    centred: Array = features.astype(np.float64) - mean
    before = np.arange(1.0, len(centred))[:, None]
    steps: Array = centred[1:] - np.cumsum(centred, axis=0)[:-1] / before
    return steps * np.sqrt(before / (before + 1) / (len(centred) - 1))


@remember(8)
@kept("root", only)
def _root(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(cov)
    # Values below the rounding of the largest one are noise, which the root would magnify.
    keep = values > EPS * len(cov) * max(float(values[-1]), 0.0)
    root: Array = (vectors[:, keep] * np.sqrt(values[keep])).T
    return root


def frechet_without_groups(
    kept: Moments,
    left_out: Moments,
    features: Features,
    groups: Groups,
    *,
    kept_features: Features | None = None,
) -> Array:
    """Distances (G,) between `kept` and the set of `features` (n, D) without each group (n,).

    `left_out` are the moments of all its samples. The distance is symmetric, so either side may
    lose groups. Each distance costs as much as `frechet_distance` with a remembered root.
    """
    return _without_groups(
        kept.n,
        kept.mean,
        kept.cov,
        kept_features,
        left_out.n,
        left_out.mean,
        left_out.cov,
        features,
        groups,
    )


@remember(8)
def _without_groups(
    kept_n: int,
    kept_mean: Array,
    kept_cov: Array,
    kept_features: Features | None,
    n: int,
    mean: Array,
    cov: Array,
    features: Features,
    groups: Groups,
) -> Array:
    kept = Moments(kept_n, kept_mean, kept_cov)
    few = (n - np.bincount(groups)).min() < len(mean)
    distances = []
    for group, rest in enumerate(moments_without(features, Moments(n, mean, cov), groups)):
        rows = features[groups != group] if few else None
        distances.append(
            frechet_distance(kept, rest, real_features=kept_features, fake_features=rows)
        )
    return np.array(distances)


def frechet_estimate(real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
    """Plug-in distance of two sample sets with its jackknife error over generated samples.

    The error is conditional on the reference set. There is none for fewer than three generated
    samples, or if their features were not kept.
    """
    reference = look_up(real.moments, extractor, "moments")
    moments = look_up(fake.moments, extractor, "moments")
    kept, features = real.features.get(extractor), fake.features.get(extractor)
    value = frechet_distance(reference, moments, real_features=kept, fake_features=features)
    if features is None or fake.n < 3:
        return Estimate(value)
    groups = jackknife_groups(fake.labels)
    left = frechet_without_groups(reference, moments, features, groups, kept_features=kept)
    return jackknife_estimate(value, left, groups)


@register
class FrechetDistance(Metric):
    """Frechet distance in the features of an extractor; 0 for equal moments, no upper bound.

    Its value for equal distributions falls as 1/n: compare values at equal n only.
    """

    name = "fd"
    label = "FD"
    summary = "Frechet distance between Gaussians fitted to real and generated features"
    about = About(
        order=10, standing="headline", lead=1, low=0.0, ratios=True, plug_in=True, minimum=True,
        published_as="fid",
    )  # fmt: skip
    direction = "lower"
    needs = frozenset({"moments", "features"})
    real_needs = frozenset({"moments"})

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Return the squared distance in feature units; kept features are used if n < D."""
        return frechet_estimate(real, fake, extractor)
