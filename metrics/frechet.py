"""Frechet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from metrics.base import Array, Metric, Moments, SampleSet, look_up
from metrics.memo import remember
from metrics.registry import register

ROUNDING = 1e-8
"""A negative distance is rounding, and becomes 0, within this share of the two traces."""

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
    With factors S = F^T F the last trace is the nuclear norm of F1 F2^T, whose singular values
    carry an error of machine precision; square roots of the eigenvalues of a product carry that
    of its square root. The factor of a set of n < D samples is its centred features, if they are
    given (n, D); otherwise it is the root of the covariance, cut to its numerical rank.

    ValueError if the dimensions differ; ArithmeticError if the result is negative by more than
    rounding (`ROUNDING` of the traces), which valid moments cannot give.
    """
    if real.mean.shape != fake.mean.shape:
        raise ValueError(
            f"real features have {len(real.mean)} dimensions, generated ones {len(fake.mean)}"
        )
    cross = _factor(real, real_features) @ _factor(fake, fake_features).T
    overlap = float(np.linalg.svd(cross, compute_uv=False).sum()) if cross.size else 0.0
    spread = float(np.trace(real.cov) + np.trace(fake.cov))
    step = real.mean - fake.mean
    value = float(step @ step) + spread - 2.0 * overlap
    if not math.isfinite(value) or value < -ROUNDING * spread:
        raise ArithmeticError(f"the Frechet distance came out as {value}: are these moments valid?")
    return max(value, 0.0)


def _factor(moments: Moments, features: Features | None) -> Array:
    """F (r, D) with F^T F = S."""
    if features is None or moments.n >= len(moments.mean):
        return _root(moments.cov)
    if features.shape != (moments.n, len(moments.mean)):
        raise ValueError(
            f"features of shape {features.shape} do not belong to moments of {moments.n} samples "
            f"in {len(moments.mean)} dimensions"
        )
    centred: Array = features.astype(np.float64) - moments.mean
    return centred / math.sqrt(moments.n - 1)


@remember(8)
def _root(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(cov)
    # Directions below the rounding of the largest one are noise: the root would magnify them.
    keep = values > np.finfo(np.float64).eps * len(cov) * max(float(values[-1]), 0.0)
    root: Array = (vectors[:, keep] * np.sqrt(values[keep])).T
    return root


@register
class FrechetDistance(Metric):
    """Frechet distance in the features of an extractor; 0 for equal moments, no upper bound.

    Its floor for equal distributions falls as 1/n, so only values at one n compare.
    """

    name = "fd"
    label = "FD"
    summary = "Frechet distance between Gaussians fitted to real and generated features"
    direction = "lower"
    needs = frozenset({"moments"})

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float:
        """Return the squared distance in feature units; kept features are used where n < D."""
        return frechet_distance(
            look_up(real.moments, extractor, "moments"),
            look_up(fake.moments, extractor, "moments"),
            real_features=real.features.get(extractor),
            fake_features=fake.features.get(extractor),
        )
