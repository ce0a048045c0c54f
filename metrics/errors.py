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
"""Groups of the jackknife; one per sample for fewer samples."""

SEED = 2020

JACKKNIFE = f"jackknife, {GROUPS} groups"
"""`se_method` of a standard error from replicates."""

Labels = npt.NDArray[np.int64]
Groups = npt.NDArray[np.int64]


@remember(32)
def jackknife_groups(labels: Labels, groups: int = GROUPS) -> Groups:
    """Group (n,) of each sample, in [0, min(groups, n)); a jackknife leaves out one at a time.

    Samples are dealt class by class, in a fixed random order within each class. Labels are often
    the sample's index modulo the number of classes: groups by index could then hold one class each,
    and the spread between classes would look like sampling noise. The random order prevents this
    if labels are unknown, that is all 0. The groups depend only on the labels, so methods that are
    sampled with the same labels share them.
    """
    if labels.ndim != 1 or len(labels) == 0 or groups < 1:
        raise ValueError(f"cannot deal labels of shape {labels.shape} into {groups} groups")
    # The stream of the legacy generator is frozen: every version of numpy deals the same.
    order = np.random.RandomState(SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % min(groups, len(labels))
    dealt.setflags(write=False)
    return dealt


class Jackknife(NamedTuple):
    """Standard error of an estimator, and its value without the bias of order 1/n."""

    se: float
    corrected: float


def jackknife(
    replicates: Sequence[float] | Array, value: float, sizes: npt.ArrayLike | None = None
) -> Jackknife:
    """Delete-group jackknife from the values without each group, (G,), and the value of all.

    Busing, Meijer and van der Leeden (1999) for groups of `sizes` (G,); with equal ones, the
    default, the standard error is that of Shao and Wu (1989). Unlike in a bootstrap, no sample
    enters twice: copies would bias Frechet distances and neighbour scores. ValueError for fewer
    than two groups or values that are not finite.
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
    """Mean of independent `values` (n,) in units of `unit`, with s / sqrt(n) and replicates.

    There is no error for n = 1.
    """
    n = len(values)
    if n == 0 or values.shape != groups.shape:
        raise ValueError(f"values {values.shape} and groups {groups.shape} do not match")
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

    Unlike share -+ 1.96 se it has a width at shares of 0 and 1.
    """
    if not 0 <= successes <= n or n == 0 or not 0 < confidence < 1:
        raise ValueError(f"no interval for {successes} of {n} at confidence {confidence}")
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not move the exact ends of the interval.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Difference a - b of methods sampled from the same seeds and labels, with its error.

    The error is the jackknife of the differences of replicates, in which shared noise and the
    reference set cancel. ValueError unless both have equally many replicates.
    """
    if len(a.replicates) != len(b.replicates) or len(a.replicates) < 2:
        raise ValueError(
            f"a paired difference needs equally many replicates on both sides, at least 2; "
            f"got {len(a.replicates)} and {len(b.replicates)}"
        )
    value = a.value - b.value
    left = np.subtract(a.replicates, b.replicates)
    return Estimate(
        value, jackknife(left, value).se, "paired jackknife", replicates=tuple(left.tolist())
    )


def seeds_se(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean over independent blocks of seeds, s / sqrt(k), and the interval of Student's t.

    For few blocks 1.96 is too small: t is 4.3 for three. ValueError for fewer than two values or
    values that are not finite.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(f"an error over seeds needs at least 2 finite values, got {values}")
    mean = float(found.mean())
    se = float(found.std(ddof=1)) / math.sqrt(len(found))
    half = float(stdtrit(len(found) - 1, 0.5 + confidence / 2)) * se
    return Estimate(mean, se, f"Student t, {len(found)} seed blocks", mean - half, mean + half)
