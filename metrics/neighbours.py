"""Precision, recall, density and coverage: metrics of k-nearest-neighbour balls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from metrics.base import Array, Metric, SampleSet, look_up
from metrics.memo import remember
from metrics.registry import register

Features = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DIRECT_PRODUCTS = 2**28
"""Up to this many products n1 n2 D, every distance is evaluated directly."""

BLOCK_PAIRS = 2**22
"""Distances held at once: memory does not grow with the number of pairs."""

SPARE = 8
"""Candidates beyond the k-th neighbour that are evaluated exactly."""


class NeighbourScores(NamedTuple):
    """Shares in [0, 1], but density in [0, n_real / k], which is 1 on average for equal sets."""

    precision: float
    recall: float
    density: float
    coverage: float


@remember(8)
def neighbour_scores(
    real: Features,
    fake: Features,
    k: int = 3,
    closed: bool = True,
    direct_products: int = DIRECT_PRODUCTS,
    block_pairs: int = BLOCK_PAIRS,
) -> NeighbourScores:
    """All four scores of features (n, D) with balls that reach the k-th other sample.

    Precision and recall: Kynkaanniemi et al. (2019), eq. 1 and 2. Density and coverage: Naeem et
    al. (2020), eq. 6 and 7. A sample on the edge of a ball is inside if `closed` (the papers;
    torch-fidelity) and outside if not (the prdc package); copies of real images lie on edges.

    Every comparison is decided as if each squared distance were summed directly in float64, in
    one order for each pair: large sets are screened by float32 products, and pairs closer to an
    edge than the rounding of those are evaluated again. So `direct_products` and `block_pairs`
    change time and memory, never the result. ValueError if a set has no more than k samples.
    """
    if real.shape[1:] != fake.shape[1:] or real.ndim != 2:
        raise ValueError(f"features of shapes {real.shape} and {fake.shape} do not compare")
    real_radii = squared_radii(real, k, direct_products, block_pairs)
    fake_radii = squared_radii(fake, k, direct_products, block_pairs)
    in_some_real_ball = np.zeros(len(fake), bool)
    covered = np.zeros(len(real), bool)
    recalled = np.zeros(len(real), bool)
    memberships = 0
    decide = _decider(real, fake, closed, direct_products)
    for rows in _blocks(len(real), len(fake), block_pairs):
        in_real, in_fake = decide(rows, real_radii[rows, None], fake_radii[None, :])
        in_some_real_ball |= in_real.any(axis=0)
        covered[rows] = in_real.any(axis=1)
        recalled[rows] = in_fake.any(axis=1)
        memberships += int(np.count_nonzero(in_real))
    return NeighbourScores(
        precision=float(in_some_real_ball.mean()),
        recall=float(recalled.mean()),
        density=memberships / (k * len(fake)),
        coverage=float(covered.mean()),
    )


@remember(8)
def squared_radii(
    x: Features,
    k: int,
    direct_products: int = DIRECT_PRODUCTS,
    block_pairs: int = BLOCK_PAIRS,
) -> Array:
    """Squared distance (n,) of each sample (n, D) to its k-th nearest other sample."""
    if k < 1 or len(x) <= k:
        raise ValueError(f"balls of k = {k} need k >= 1 and more than k samples, got {len(x)}")
    radii = np.empty(len(x))
    # The sample itself is among the candidates, at distance 0: hence place k, counted from 0.
    if _is_small(x, x, direct_products):
        for rows in _blocks(len(x), len(x), block_pairs):
            radii[rows] = np.partition(_exact(x[rows], x), k, axis=1)[:, k]
        return radii
    screen = _Screen(x, x)
    count = min(k + 1 + SPARE, len(x))
    for rows in _blocks(len(x), len(x), block_pairs):
        rough = screen.distances(rows)
        nearest = np.argpartition(rough, count - 1, axis=1)[:, :count]
        reach = np.take_along_axis(rough, nearest, axis=1).max(axis=1)
        # No sample outside the candidates is nearer than this. NaN, from squares beyond float32,
        # compares as not beyond the radius.
        with np.errstate(over="ignore", invalid="ignore"):
            beyond = reach - screen.errors(screen.x_norms[rows], screen.y_norms.max())
        for place, row in enumerate(range(rows.start, rows.stop)):
            point = x[row : row + 1]
            radius = np.partition(_exact(point, x[nearest[place]])[0], k)[k]
            if count < len(x) and not beyond[place] > radius:
                radius = np.partition(_exact(point, x)[0], k)[k]
            radii[row] = radius
    return radii


def _exact(x: Features, y: Features) -> Array:
    """Squared distances (n, m) in float64; each depends on its two rows alone, in either order."""
    result: Array = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    return result


def _is_small(x: Features, y: Features, direct_products: int) -> bool:
    # In few dimensions screening saves nothing, and neighbours are closer than its rounding.
    dim = int(x.shape[1])
    return dim <= 8 or len(x) * len(y) * dim <= direct_products


def _blocks(n: int, m: int, block_pairs: int) -> Iterator[slice]:
    rows = max(1, block_pairs // m)
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


class _Screen:
    """Squared distances by float32 products, with a bound on their error.

    With u = 2^-24, the product of D terms errs by at most D u |x||y|, a float32 rounding of the
    centred rows by 2 u |x - y| (|x| + |y|), and the three sums by a few u (|x|^2 + |y|^2):
    together less than (D + 16) 2 u (|x|^2 + |y|^2), beside what underflows.
    """

    def __init__(self, x: Features, y: Features) -> None:
        # Distances ignore a common shift, and the error grows with the norms.
        centre = y.mean(axis=0, dtype=np.float64)
        self.x = _shifted(x, centre)
        self.y = self.x if y is x else _shifted(y, centre)
        self.x_norms = _squared_norms(self.x)
        self.y_norms = _squared_norms(self.y)
        self._factor = np.float32((x.shape[1] + 16) * np.finfo(np.float32).eps)
        self._underflow = np.float32((x.shape[1] + 16) * np.finfo(np.float32).tiny)

    def distances(self, rows: slice) -> Features:
        """Block (rows, m) of approximate squared distances."""
        with np.errstate(over="ignore", invalid="ignore"):
            block: Features = self.x[rows] @ self.y.T
            block *= np.float32(-2)
            block += self.x_norms[rows, None] + self.y_norms[None, :]
        return block

    def errors(self, x_norms: Features, y_norms: Features) -> Features:
        """Bound on the error of the distances of such squared norms."""
        bound: Features = self._factor * (x_norms + y_norms) + self._underflow
        return bound


def _shifted(x: Features, centre: Array) -> Features:
    shifted = np.empty_like(x, dtype=np.float32)
    for start in range(0, len(x), 1024):
        shifted[start : start + 1024] = x[start : start + 1024] - centre
    return shifted


def _squared_norms(x: Features) -> Features:
    with np.errstate(over="ignore"):
        norms: Features = np.einsum("nd,nd->n", x, x, dtype=np.float64).astype(np.float32)
    return norms


Decide = Callable[[slice, Array, Array], tuple[Mask, Mask]]


def _decider(real: Features, fake: Features, closed: bool, direct_products: int) -> Decide:
    """Make a function that decides a block of real rows against real and generated radii."""

    def within(squared: Array, radii: Array) -> Mask:
        return squared <= radii if closed else squared < radii

    def direct(rows: slice, first: Array, second: Array) -> tuple[Mask, Mask]:
        squared = _exact(real[rows], fake)
        return within(squared, first), within(squared, second)

    if _is_small(real, fake, direct_products):
        return direct
    screen = _Screen(real, fake)

    def screened(rows: slice, first: Array, second: Array) -> tuple[Mask, Mask]:
        rough = screen.distances(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            slack = screen.errors(screen.x_norms[rows, None], screen.y_norms[None, :])
            sides = [rough - radii.astype(np.float32) for radii in (first, second)]
        insides = [side < 0 for side in sides]
        # A radius rounds to float32 too; in the doubtful band it is within the slack's reserve.
        doubtful = ~((np.abs(sides[0]) > slack) & (np.abs(sides[1]) > slack))
        places = np.flatnonzero(doubtful.any(axis=1))
        for place in places:
            columns = np.flatnonzero(doubtful[place])
            row = rows.start + int(place)
            squared = _exact(real[row : row + 1], fake[columns])[0]
            insides[0][place, columns] = within(squared, first[place])
            insides[1][place, columns] = within(squared, second[0, columns])
        return insides[0], insides[1]

    return screened


class _Neighbours(Metric):
    """One of the four scores; they share one computation for each pair of sets."""

    k: ClassVar[int] = 3
    direction = "higher"
    needs = frozenset({"features"})
    minimum_n = 4

    def _scores(self, real: SampleSet, fake: SampleSet, extractor: str) -> NeighbourScores:
        return neighbour_scores(
            look_up(real.features, extractor, "features"),
            look_up(fake.features, extractor, "features"),
            self.k,
        )


@register
class Precision(_Neighbours):
    """Share of generated samples inside some real ball; 0 to 1, below 1 even for equal sets."""

    name = "precision_k3"
    label = "Precision (k=3)"
    summary = "share of generated samples that lie among the real ones"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float:
        """Kynkaanniemi et al. (2019), eq. 2."""
        return self._scores(real, fake, extractor).precision


@register
class Recall(_Neighbours):
    """Share of real samples inside some generated ball; 0 to 1, below 1 even for equal sets."""

    name = "recall_k3"
    label = "Recall (k=3)"
    summary = "share of real samples that lie among the generated ones"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float:
        """Kynkaanniemi et al. (2019), eq. 2 with the sets exchanged."""
        return self._scores(real, fake, extractor).recall


@register
class Density(_Neighbours):
    """Real balls around a generated sample, over k; 1 on average for equal sets, may exceed 1."""

    name = "density_k3"
    label = "Density (k=3)"
    summary = "average number of real neighbourhoods a generated sample lies in, over k"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float:
        """Naeem et al. (2020), eq. 6."""
        return self._scores(real, fake, extractor).density


@register
class Coverage(_Neighbours):
    """Share of real balls that hold a generated sample; 0 to 1, depends on the ratio of sizes."""

    name = "coverage_k3"
    label = "Coverage (k=3)"
    summary = "share of real neighbourhoods that hold a generated sample"

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> float:
        """Naeem et al. (2020), eq. 7."""
        return self._scores(real, fake, extractor).coverage
