"""Numbers from several cells of a line, with errors, and the differences of such numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, stdtr

from bench.experiment.rows import Row
from bench.report.numbers.cells import Cell, exact_mean, restricted
from bench.report.numbers.frame import Series
from metrics.base import Estimate
from metrics.errors import jackknife, seeds_se

DRAWS = 2000
"""Of the resampling that gives an error to values without replicates."""
SEED = 2020

Sides = Sequence[Sequence[float]]


def first(sides: Sides) -> float:
    """The value of a single cell."""
    return sides[0][0]


def average(sides: Sides) -> float:
    """Mean of the values of the only side."""
    return exact_mean(sides[0])


@dataclass(frozen=True)
class Contrast:
    """A difference of two lines: value, standard error, two-sided p, and whether it is paired."""

    value: float
    se: float
    p: float
    paired: bool


@dataclass(frozen=True)
class Entry:
    """A number `of` the cells of a line, such as their mean.

    `sides` groups cells by the samples that their replicates leave out: recall leaves out real
    samples, precision generated ones, so the variances of the two add up. `of` is a function of the
    means of the cells, shaped like `sides`.
    """

    series: Series
    sides: tuple[tuple[Cell, ...], ...]
    of: Callable[[Sides], float]

    @cached_property
    def seeds(self) -> frozenset[int]:
        """The sampling seeds that all cells have."""
        found = [{row.seed for row, _ in cell.found} for side in self.sides for cell in side]
        return frozenset(set.intersection(*found)) if found else frozenset()

    @cached_property
    def estimate(self) -> Estimate:
        """The number with its error over training runs or seeds, if there are several.

        Otherwise the error is the jackknife's over groups of samples. Values without replicates are
        drawn from normal distributions of their standard errors, as if they were independent.
        """
        if self.of is first:
            return self.sides[0][0].estimate
        blocks = self._blocks()
        if len(blocks) > 1:
            return seeds_se(blocks)
        value = self.of([[cell.mean for cell in side] for side in self.sides])
        parts = replicates(self, self.seeds)
        if parts:
            return Estimate(value, _jackknifed(value, parts)[0], "jackknife over groups")
        errors = [[cell.estimate.se for cell in side] for side in self.sides]
        if any(se is None for side in errors for se in side):
            return Estimate(value)
        return Estimate(value, self._resampled(), "parametric resampling")

    @property
    def p(self) -> float | None:
        """Two-sided p of the number being 0 for these weights, computed like that of `contrast`.

        None without any error.
        """
        parts = replicates(self, self.seeds)
        if parts:
            return _jackknifed(_value(self, self.seeds), parts)[1]
        found = self.estimate
        return None if found.se is None else two_sided(found.value, found.se, None)

    def _blocks(self) -> list[float]:
        """The number of every training run, or of every seed of a single run.

        [] if the cells do not all have the same ones.
        """
        cells = [cell for side in self.sides for cell in side]
        several = len({(r.experiment, r.run) for cell in cells for r, _ in cell.found}) > 1

        def name(row: Row) -> tuple[str | int, ...]:
            return (row.experiment, row.run) if several else (row.seed,)

        def value(block: tuple[str | int, ...], cell: Cell) -> float:
            return float(np.mean([v.value for r, v in cell.found if name(r) == block]))

        blocks = {frozenset(name(r) for r, _ in cell.found) for cell in cells}
        common = sorted(blocks.pop()) if len(blocks) == 1 else []
        return [self.of([[value(b, cell) for cell in side] for side in self.sides]) for b in common]

    def _resampled(self) -> float:
        # The legacy generator, whose stream is frozen: another version of numpy draws the same.
        rng = np.random.RandomState(SEED)
        drawn = [
            [cell.mean + (cell.estimate.se or 0.0) * rng.standard_normal(DRAWS) for cell in side]
            for side in self.sides
        ]
        found = [
            self.of([[float(cell[i]) for cell in side] for side in drawn]) for i in range(DRAWS)
        ]
        return float(np.std(found, ddof=1))


def replicates(entry: Entry, seeds: frozenset[int]) -> tuple[tuple[float, ...], ...]:
    """The number without one group of samples each, (groups,) for every side; () if unknown.

    Cells of a side have the same groups, since samples of all scales share noise and labels.
    """
    means, left = [], []
    for side in entry.sides:
        found = [restricted(cell, seeds).averaged for cell in side] if seeds else []
        known = [f for f in found if f is not None]
        if len(known) < len(side) or len({len(f.replicates) for f in known}) != 1:
            return ()
        means.append([f.value for f in known])
        left.append([f.replicates for f in known])
    return tuple(
        tuple(
            entry.of([*means[:i], list(without), *means[i + 1 :]])
            for without in zip(*some, strict=True)
        )
        for i, some in enumerate(left)
    )


def contrast(a: Entry, b: Entry) -> Contrast | None:
    """Difference a - b at the sampling seeds that both have; None without any error.

    The error is the jackknife's of the differences of replicates, p is by Student's t with one
    degree of freedom less than groups. Without replicates the two count as independent, which
    overstates the error of methods that share noise.
    """
    seeds = a.seeds & b.seeds
    ours, theirs = replicates(a, seeds), replicates(b, seeds)
    if ours and [len(p) for p in ours] == [len(p) for p in theirs]:
        value = _value(a, seeds) - _value(b, seeds)
        parts = [
            [x - y for x, y in zip(*both, strict=True)] for both in zip(ours, theirs, strict=True)
        ]
        return Contrast(value, *_jackknifed(value, parts), True)
    one, two = a.estimate, b.estimate
    if one.se is None or two.se is None:
        return None
    value, se = one.value - two.value, math.hypot(one.se, two.se)
    return Contrast(value, se, two_sided(value, se, None), False)


def _value(entry: Entry, seeds: frozenset[int]) -> float:
    some = [[restricted(cell, seeds).averaged for cell in side] for side in entry.sides]
    return entry.of([[f.value for f in side if f is not None] for side in some])


def _jackknifed(value: float, parts: Sides) -> tuple[float, float]:
    """Standard error and two-sided p of a value with replicates."""
    se = math.hypot(*(jackknife(part, value).se for part in parts))
    return se, two_sided(value, se, min(map(len, parts)) - 1)


def two_sided(value: float, se: float, freedom: int | None) -> float:
    """Two-sided p of a value with a standard error: Student's t, or normal for None."""
    if se == 0.0:
        return 1.0 if value == 0.0 else 0.0
    z = -abs(value) / se
    return float(2 * (ndtr(z) if freedom is None else stdtr(freedom, z)))


def holm(ps: Sequence[float], of: int | None = None) -> list[float]:
    """Values of p adjusted for their number (Holm 1979): below 5% is significant together.

    `of` is how many comparisons they are chosen from, by default their number.
    """
    count = len(ps) if of is None else of
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted
