"""Copies: distances of generated samples to given ones, relative to those among the latter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metrics.about import About
from metrics.base import Array, Estimate, Metric, SampleSet, look_up
from metrics.errors import Groups, jackknife_estimate, jackknife_groups, share_estimate
from metrics.memo import kept, remember
from metrics.registry import register

BLOCK_ROWS = 512
CANDIDATES = 8
"""Nearest samples by rounded products, whose distances are then computed directly."""

Features = npt.NDArray[np.float32]


class Nearest(NamedTuple):
    """Distance (n,) to the nearest sample of the other set, and its index (n,) there."""

    distance: Array
    place: npt.NDArray[np.int64]


@remember(8)
@kept("nearest", Nearest)
def nearest(x: Features, y: Features, block_rows: int = BLOCK_ROWS) -> Nearest:
    """Nearest sample of y (m, D) to each of x (n, D); pass x twice for the nearest other sample.

    The 8 nearest by float32 products of centred features are compared directly in float64, so a
    copy is at exactly 0. ValueError if dimensions differ, y has no (other) sample, or distances
    overflow.
    """
    within = x is y
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or len(y) < 1 + within:
        raise ValueError(f"no nearest samples for features of shapes {x.shape} and {y.shape}")
    centre = y.mean(axis=0, dtype=np.float64)
    left, right = ((part - centre).astype(np.float32) for part in (x, y))
    with np.errstate(over="ignore"):
        norms = np.einsum("md,md->m", right, right)
    count = min(CANDIDATES + within, len(y))
    distance, place = np.empty(len(x)), np.empty(len(x), np.int64)
    for start in range(0, len(x), block_rows):
        rows = slice(start, start + block_rows)
        # |x - y|^2 minus |x|^2, which is constant in a row.
        with np.errstate(over="ignore", invalid="ignore"):
            rough = norms - 2 * (left[rows] @ right.T)
        if not np.isfinite(rough).all():
            raise ValueError("distances overflow: did these samples diverge?")
        near = np.argpartition(rough, count - 1, axis=1)[:, :count]
        steps = x[rows, None, :].astype(np.float64) - y[near]
        squares = np.einsum("bcd,bcd->bc", steps, steps)
        if within:
            squares[near == np.arange(start, start + len(near))[:, None]] = np.inf
        best = squares.argmin(axis=1)
        place[rows] = near[np.arange(len(near)), best]
        distance[rows] = np.sqrt(squares[np.arange(len(near)), best])
    return Nearest(distance, place)


def nearest_ratio(given: Features, fake: Features, groups: Groups) -> Estimate:
    """Median distance of generated samples to the nearest given one, over that among given ones.

    About 1 for fresh samples of the same distribution, 0 if more than half are copies. `given`
    (n, D) may be any set; the training set shows memorisation. The error is that of the
    delete-group jackknife, which is valid for medians since groups are large (Shao and Wu 1989).
    ValueError if half of the given samples are copies of each other.
    """
    scale = float(np.median(nearest(given, given).distance))
    if scale == 0.0:
        raise ValueError("half of the given samples are copies: their median distance is 0")
    ratios = nearest(fake, given).distance / scale
    left = [np.median(ratios[groups != group]) for group in range(int(groups.max()) + 1)]
    return jackknife_estimate(float(np.median(ratios)), np.array(left), groups)


def authenticity(given: Features, fake: Features, groups: Groups) -> Estimate:
    """Share of generated samples that are no closer to a given one than its own neighbour is.

    Alaa et al. (2022), section 3.3: a generated sample is authentic unless its distance to the
    nearest given sample is below that sample's distance to the nearest other given one. It is 0 for
    copies. Fresh samples of the same distribution do not reach 1: each is not authentic with the
    probability that nearest neighbours are mutual, which is 2/3 in one dimension and 0.6215 in two
    (Clark and Evans 1955), and less in more. So compare with the value of other real samples.
    """
    own = nearest(given, given).distance
    found = nearest(fake, given)
    authentic = found.distance >= own[found.place]
    # A copy of a given sample that has copies: both distances are 0.
    authentic &= found.distance > 0
    return share_estimate(authentic, groups)


class _Copies(Metric):
    """A metric of distances to the reference set; it does not detect copies of training data."""

    needs = frozenset({"features"})
    default = False

    def _inputs(
        self, real: SampleSet, fake: SampleSet, extractor: str
    ) -> tuple[Features, Features, Groups]:
        return (
            look_up(real.features, extractor, "features"),
            look_up(fake.features, extractor, "features"),
            jackknife_groups(fake.labels),
        )


@register
class NearestReferenceRatio(_Copies):
    """`nearest_ratio` to the reference set; a value above 1 means far from it, not better."""

    name = "nearest_ratio"
    label = "Nearest reference distance ratio"
    summary = "median distance to the nearest reference sample over that among them, 0 = copies"
    about = About(low=0.0)
    direction = "none"
    minimum_n = 3

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`nearest_ratio` to the reference set."""
        return nearest_ratio(*self._inputs(real, fake, extractor))


@register
class Authenticity(_Copies):
    """`authenticity` towards the reference set."""

    name = "authenticity"
    label = "Authenticity (reference)"
    summary = "share of samples that are not close copies of a reference sample"
    about = About(low=0.0, high=1.0)
    direction = "higher"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`authenticity` towards the reference set."""
        return authenticity(*self._inputs(real, fake, extractor))
