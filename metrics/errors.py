"""Error bars: the delete-group jackknife, the Wilson interval, paired differences, seed blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from metrics.base import Array, Estimate
from metrics.memo import remember

GROUPS = 20
"""Groups of the jackknife, fewer for fewer samples than that."""

SEED = 2020

JACKKNIFE = f"jackknife, {GROUPS} groups"
"""`se_method` of a standard error from replicates."""

Labels = npt.NDArray[np.int64]
Groups = npt.NDArray[np.int64]


@remember(32)
def jackknife_groups(labels: Labels, groups: int = GROUPS) -> Groups:
    """Group (n,) of each sample, in [0, min(groups, n)): what is left out together.

    Samples are dealt out class by class, in a fixed random order within. Classes are commonly
    index mod their number: groups by index would then hold one class each, and the spread between
    classes would be taken for sampling noise; the random order keeps that from happening where
    labels are unknown, and all 0. The groups depend on nothing but the labels, so methods that
    are sampled with the same labels share them.
    """
    if labels.ndim != 1 or len(labels) == 0 or groups < 1:
        raise ValueError(f"cannot deal labels of shape {labels.shape} into {groups} groups")
    # The legacy generator, whose stream is frozen: another version of numpy deals the same.
    order = np.random.RandomState(SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % min(groups, len(labels))
    dealt.setflags(write=False)
    return dealt


class Jackknife(NamedTuple):
    """Standard error of an estimator and its value freed of the bias of order 1/n."""

    se: float
    corrected: float


def jackknife(
    replicates: Sequence[float] | Array, value: float, sizes: npt.ArrayLike | None = None
) -> Jackknife:
    """Delete-group jackknife from the values without one group each, (G,), and with all.

    Busing, Meijer and van der Leeden (1999) for groups of `sizes` (G,); with equal ones, the
    default, the standard error is that of Shao and Wu (1989). Other than in a bootstrap, no sample
    enters twice: copies would bias Frechet distances and neighbour scores. ValueError below two
    groups or unless finite.
    """
    left = np.asarray(replicates, np.float64)
    if left.ndim != 1 or len(left) < 2:
        raise ValueError(f"a jackknife needs at least 2 replicates, got shape {left.shape}")
    if not (np.isfinite(left).all() and math.isfinite(value)):
        raise ValueError("a jackknife needs finite values")
    counts = np.ones(len(left)) if sizes is None else np.asarray(sizes, np.float64)
    if counts.shape != left.shape or not (counts > 0).all():
        raise ValueError(f"{len(left)} replicates need as many group sizes, got {counts}")
    share = counts.sum() / counts
    pseudo = share * value - (share - 1) * left
    corrected = float(len(left) * value - ((1 - 1 / share) * left).sum())
    variance = float(((pseudo - corrected) ** 2 / (share - 1)).mean())
    return Jackknife(math.sqrt(variance), corrected)


def jackknife_estimate(value: float, replicates: Array, groups: Groups) -> Estimate:
    """`value` with the standard error of its replicates over `groups` (n,)."""
    se, _ = jackknife(replicates, value, np.bincount(groups))
    return Estimate(value, se, JACKKNIFE, replicates=tuple(replicates.tolist()))


def mean_estimate(values: Array, groups: Groups, unit: float = 1.0) -> Estimate:
    """Mean of independent `values` (n,) over `unit`, with s / sqrt(n) and replicates.

    There is no error for n = 1.
    """
    n = len(values)
    if n == 0 or values.shape != groups.shape:
        raise ValueError(f"values {values.shape} and groups {groups.shape} do not belong together")
    if n == 1:
        return Estimate(float(values[0]) / unit)
    se = float(values.std(ddof=1)) / math.sqrt(n) / unit
    kept = n - np.bincount(groups)
    left = (values.sum() - np.bincount(groups, weights=values)) / kept / unit
    return Estimate(float(values.mean()) / unit, se, "mean", replicates=tuple(left.tolist()))


def share_estimate(hits: npt.NDArray[np.bool_], groups: Groups) -> Estimate:
    """Share of `hits` (n,) with its binomial standard error, Wilson interval and replicates."""
    found = mean_estimate(hits.astype(np.float64), groups)
    n = len(hits)
    low, high = wilson(int(hits.sum()), n)
    se = math.sqrt(found.value * (1 - found.value) / n)
    return Estimate(found.value, se, "binomial, Wilson interval", low, high, found.replicates)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of n independent trials, within [0, 1] (Wilson 1927).

    Unlike share -+ 1.96 se it is honest at 0 and 1, where that has no width.
    """
    if not 0 <= successes <= n or n == 0 or not 0 < confidence < 1:
        raise ValueError(f"no interval for {successes} of {n} at confidence {confidence}")
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not leave the exact ends of the interval.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Difference a - b of methods sampled from the same seeds and labels, with its error.

    The jackknife of the differences of replicates: what both have in common, noise and the
    reference set, cancels. ValueError unless both have replicates over equally many groups.
    """
    if len(a.replicates) != len(b.replicates) or len(a.replicates) < 2:
        raise ValueError(
            f"a paired difference needs as many replicates on both sides, at least 2; "
            f"got {len(a.replicates)} and {len(b.replicates)}"
        )
    value = a.value - b.value
    left = np.subtract(a.replicates, b.replicates)
    return Estimate(
        value, jackknife(left, value).se, "paired jackknife", replicates=tuple(left.tolist())
    )


def seeds_se(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean over independent blocks of seeds, s / sqrt(k), and the interval of Student's t.

    For the two to five blocks one can afford, 1.96 is too little: t is 4.3 for three.
    ValueError below two values or unless finite.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(f"an error over seeds needs at least 2 finite values, got {values}")
    mean = float(found.mean())
    se = float(found.std(ddof=1)) / math.sqrt(len(found))
    half = float(stdtrit(len(found) - 1, 0.5 + confidence / 2)) * se
    return Estimate(mean, se, f"Student t, {len(found)} seed blocks", mean - half, mean + half)
