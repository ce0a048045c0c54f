"""Kernel distances in the features of an image network."""

from __future__ import annotations

import math

import numpy as np

from metrics.about import About
from metrics.base import Estimate, Metric, SampleSet, look_up
from metrics.errors import Groups, jackknife_groups
from metrics.mmd import Features, Mmd, PolynomialKernel, kernel_sums, squared_mmd
from metrics.registry import register

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


def kernel_distance(
    real: Features, fake: Features, real_groups: Groups, fake_groups: Groups
) -> Mmd:
    """KID of features (n, D) and (m, D): the unbiased squared MMD over all pairs.

    Binkowski et al. (2018), section 4, with kernel (x.y / D + 1)^3, which depends on the origin.
    All pairs have less variance than the customary subsets.
    """
    kernel = PolynomialKernel(real.shape[1])
    return squared_mmd(real, fake, real_groups, fake_groups, kernel, unbiased=True)


def kernel_distance_subsets(
    real: Features,
    fake: Features,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> tuple[float, float]:
    """Mean and standard deviation of KID over random subsets of `size`, as papers report it.

    The draws are those of torch-fidelity: the generated ones first, without replacement, from
    numpy's legacy generator. The deviation is that of one subset, not an error of the mean.
    ValueError if a set is smaller than a subset.
    """
    if min(len(real), len(fake)) < size or size < 2 or subsets < 1:
        raise ValueError(
            f"{subsets} subsets of {size} cannot be drawn from {len(real)} real and {len(fake)} "
            "generated samples"
        )
    # The legacy generator is part of the protocol: another one would draw other subsets.
    rng = np.random.RandomState(seed)
    kernel = PolynomialKernel(real.shape[1])
    one_group = np.zeros(size, np.int64)
    values = np.empty(subsets)
    for place in range(subsets):
        drawn_fake = fake[rng.choice(len(fake), size, replace=False)]
        drawn_real = real[rng.choice(len(real), size, replace=False)]
        inside = 0.0
        for drawn in (drawn_real, drawn_fake):
            sums = kernel_sums(drawn, drawn, one_group, kernel)
            inside += float(sums.rows.sum()) / (size * (size - 1))
        cross = float(kernel_sums(drawn_real, drawn_fake, one_group, kernel).rows.sum())
        values[place] = inside - 2 * cross / size**2
    return float(values.mean()), float(values.std())


Inputs = tuple[Features, Features, Groups, Groups]


def mmd_inputs(real: SampleSet, fake: SampleSet, extractor: str) -> Inputs:
    """Features (n, D) and (m, D), then the jackknife groups of both."""
    return (
        look_up(real.features, extractor, "features"),
        look_up(fake.features, extractor, "features"),
        jackknife_groups(real.labels),
        jackknife_groups(fake.labels),
    )


@register
class KernelDistance(Metric):
    """KID over all pairs, not times 1000: 0 on average for equal distributions, so it may be < 0.

    The error is conditional on the reference set.
    """

    name = "kid"
    label = "KID"
    summary = "kernel distance (unbiased squared MMD, cubic kernel) over all pairs of samples"
    about = About(order=30, standing="headline")
    direction = "lower"
    needs = frozenset({"features"})
    domain = "image"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`kernel_distance` with the standard error of its Hajek projection."""
        return mmd_estimate(kernel_distance(*mmd_inputs(real, fake, extractor)), fake.n)


@register
class KernelDistanceSubsets(Metric):
    """Mean KID of 100 subsets of 1000, for comparison with the literature; not times 1000.

    Its error combines that of KID over all pairs and that of the choice of subsets.
    """

    name = "kid_subsets"
    label = "KID (100 subsets of 1000)"
    summary = "mean kernel distance over 100 random subsets of 1000 samples, as papers report it"
    about = About(order=140)
    direction = "lower"
    needs = frozenset({"features"})
    domain = "image"
    default = False
    minimum_n = SUBSET_SIZE

    def refuses(self, *, real: SampleSet, extractor: str) -> str | None:
        """Also refuses fewer real samples than a subset holds."""
        reason = super().refuses(real=real, extractor=extractor)
        if reason is None and real.n < self.minimum_n:
            return f"{self.name} needs {self.minimum_n} real samples, there are {real.n}"
        return reason

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`kernel_distance_subsets` with torch-fidelity's seed."""
        inputs = mmd_inputs(real, fake, extractor)
        value, deviation = kernel_distance_subsets(*inputs[:2])
        se = math.hypot(kernel_distance(*inputs).fake_se, deviation / SUBSETS**0.5)
        return Estimate(value, se, "Hajek and choice of subsets")


def mmd_estimate(found: Mmd, n: int, scale: float = 1.0) -> Estimate:
    """An MMD as an estimate, conditional on the reference set; replicates need 3 samples."""
    left = tuple((scale * found.replicates).tolist()) if n >= 3 else ()
    return Estimate(scale * found.value, scale * found.fake_se, "Hajek", replicates=left)
