"""Frechet distances without the bias of finite samples."""

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
    """Distance minus the jackknife estimate of its bias from both sets; may be negative.

    The plug-in distance of n samples is too large by c/n for each set, c growing as D^2. The
    delete-group jackknife of a set removes that set's term; terms of order 1/n^2 remain, so n
    should exceed D. The error counts the sampling of both sets. Near equal distributions, where
    the distance is quadratic in the left-out group, it is too large by up to root two. The
    replicates are over generated groups only, since compared methods share the reference. The cost
    is twice that of the plug-in distance with its error, which is reused.

    ValueError for fewer than 3 samples in a set, or without features of both.
    """
    plug_in = frechet_estimate(real, fake, extractor)
    kept = look_up(real.features, extractor, "features")
    features = look_up(fake.features, extractor, "features")
    if min(real.n, fake.n) < 3:
        raise ValueError(f"a bias needs 3 samples per set, got {real.n} real, {fake.n} generated")
    reference, moments = real.moments[extractor], fake.moments[extractor]
    fake_groups, real_groups = jackknife_groups(fake.labels), jackknife_groups(real.labels)
    ours = jackknife(plug_in.replicates, plug_in.value, np.bincount(fake_groups))
    left = frechet_without_groups(moments, reference, kept, real_groups, kept_features=features)
    theirs = jackknife(left, plug_in.value, np.bincount(real_groups))
    value = ours.corrected + theirs.corrected - plug_in.value
    # The mean of all pseudo-values but one is the replicate of the plug-in, shifted.
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
    sizes are evenly spaced from the smallest to n. The smallest is n/10, raised to 2 D but at most
    to n/2, since the bias is proportional to 1/n for n > D only. Each subset has the class shares
    of the whole set; otherwise the whole set, whose classes are balanced, would not lie on the
    line. Only the generated side's bias is removed, as in the paper.

    ValueError for fewer than 20 samples or 2 points.
    """
    reference = look_up(real.moments, extractor, "moments")
    features = look_up(fake.features, extractor, "features")
    n, dim = features.shape
    if n < 20 or points < 2:
        raise ValueError(f"a regression needs 20 samples and 2 points, got {n} and {points}")
    smallest = max(n / 10, min(2 * dim, n / 2))
    sizes = np.linspace(smallest, n, points).round().astype(int)
    # The stream of the legacy generator is frozen: every version of numpy draws the same.
    rng = np.random.RandomState(seed)
    kept = real.features.get(extractor)
    distances: list[float] = []
    for size in sizes:
        # Even steps through the samples, sorted by class and shuffled within: equal class shares.
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

    With fewer samples than dimensions the bias is not proportional to 1/n, and much of it remains.
    Sets that are not drawn independently, above all sets with copies, give values far below 0.
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
    """FD extrapolated to infinitely many generated samples, without an error.

    Its subsets overlap, so the residuals of the regression do not measure its error. It is here
    for comparison with the literature; `fd_corrected` is equally unbiased and varies less.
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
