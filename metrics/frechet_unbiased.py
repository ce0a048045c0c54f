"""Frechet distances freed of the bias of finite samples."""

from __future__ import annotations

import math

import numpy as np

from metrics.about import About
from metrics.base import Array, Estimate, Metric, SampleSet, look_up
from metrics.errors import GROUPS, jackknife, jackknife_groups
from metrics.frechet import (
    Features,
    frechet_distance,
    frechet_estimate,
    frechet_without_groups,
)
from metrics.moments import moments_of
from metrics.registry import register

POINTS = 15
SEED = 2020


def frechet_corrected(real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
    """Distance less the jackknife's estimate of its bias from both sets; may be negative.

    The plug-in distance of n samples is too large by c/n for each set, c growing as D^2. The
    delete-group jackknife of a set removes that set's term; terms of order 1/n^2 remain, so n
    should exceed D. The error counts the sampling of both sets; near equal distributions, where
    the distance is quadratic in what is left out, it is too large by up to root two. The replicates
    are over generated groups alone: in differences of methods the reference is common. Twice the
    cost of the plug-in distance with its error, which is shared.

    ValueError below 3 samples in a set, or without features of both.
    """
    plug_in = frechet_estimate(real, fake, extractor)
    kept = look_up(real.features, extractor, "features")
    features = look_up(fake.features, extractor, "features")
    if min(real.n, fake.n) < 3:
        raise ValueError(f"a bias needs 3 samples a set, got {real.n} real, {fake.n} generated")
    reference, moments = real.moments[extractor], fake.moments[extractor]
    fake_groups, real_groups = jackknife_groups(fake.labels), jackknife_groups(real.labels)
    ours = jackknife(plug_in.replicates, plug_in.value, np.bincount(fake_groups))
    left = frechet_without_groups(moments, reference, kept, real_groups, kept_features=features)
    theirs = jackknife(left, plug_in.value, np.bincount(real_groups))
    value = ours.corrected + theirs.corrected - plug_in.value
    # A mean of pseudo-values without one of them: the replicate of the plug-in, moved.
    pseudo = np.asarray(plug_in.replicates) + (value - float(np.mean(plug_in.replicates)))
    return Estimate(
        value,
        math.hypot(ours.se, theirs.se),
        f"jackknife, {GROUPS} groups of each set",
        replicates=tuple(pseudo.tolist()),
    )


def frechet_infinity(
    real: SampleSet, fake: SampleSet, extractor: str, points: int = POINTS, seed: int = SEED
) -> float:
    """Distance extrapolated to infinitely many generated samples; may be negative.

    Chong and Forsyth (2020), algorithm 1 with random subsets: the distances of `points` subsets,
    drawn without replacement by `seed`, are regressed on 1/n; the value is the intercept. Their
    sizes are evenly spaced from n/10 to n, but not below 2 D (nor above n/2 for that reason),
    since the law 1/n holds for n > D. Each has the shares of classes of the whole set, without
    which the whole, whose classes are balanced, would not be on the line. Only the generated
    side's bias is removed, as in the paper.

    ValueError below 20 samples or 2 points.
    """
    reference = look_up(real.moments, extractor, "moments")
    features = look_up(fake.features, extractor, "features")
    n, dim = features.shape
    if n < 20 or points < 2:
        raise ValueError(f"a regression needs 20 samples and 2 points, got {n} and {points}")
    smallest = max(n / 10, min(2 * dim, n / 2))
    sizes = np.linspace(smallest, n, points).round().astype(int)
    # The legacy generator, whose stream is frozen: another version of numpy draws the same.
    rng = np.random.RandomState(seed)
    kept = real.features.get(extractor)
    distances: list[float] = []
    for size in sizes:
        # Even steps through the samples in order of class, at random within: a share of each.
        order = rng.permutation(n)
        order = order[np.argsort(fake.labels[order], kind="stable")]
        rows: Features = features[np.sort(order[np.arange(size) * n // size])]
        distances.append(
            frechet_distance(reference, moments_of(rows), real_features=kept, fake_features=rows)
        )
    design: Array = np.stack([np.ones(points), 1.0 / sizes], axis=1)
    return float(np.linalg.lstsq(design, np.array(distances), rcond=None)[0][0])


@register
class FrechetCorrected(Metric):
    """Bias-corrected Frechet distance: 0 on average for equal distributions, so it may be < 0.

    With fewer samples than dimensions the bias is no longer about 1/n, and much of it stays. Sets
    that are not drawn independently, copies above all, come out far below 0.
    """

    name = "fd_corrected"
    label = "FD bias-corrected"
    summary = "Frechet distance without the bias of finite samples, by the jackknife"
    about = About(order=20, standing="headline", minimum=True, error_of="both")
    direction = "lower"
    needs = frozenset({"moments", "features"})
    minimum_n = 3

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`frechet_corrected` in squared feature units."""
        return frechet_corrected(real, fake, extractor)


@register
class FrechetInfinity(Metric):
    """FD extrapolated to infinitely many generated samples, without an error of its own.

    Its subsets overlap, so the residuals of the regression are no measure of error. It is here
    for comparison with the literature; `fd_corrected` is as unbiased and varies less.
    """

    name = "fd_inf"
    label = "FD∞ (generated side)"
    summary = "Frechet distance extrapolated to infinitely many generated samples"
    about = About(order=120, minimum=True)
    direction = "lower"
    needs = frozenset({"moments", "features"})
    real_needs = frozenset({"moments"})
    default = False
    minimum_n = 20

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`frechet_infinity` in squared feature units."""
        return Estimate(frechet_infinity(real, fake, extractor))
