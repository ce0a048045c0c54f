"""Numbers that follow from several cells of a line, with errors, and their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, stdtr

from bench.report.numbers.cells import Cell, averaged, restricted
from bench.report.numbers.frame import Series
from metrics.base import Estimate
from metrics.errors import jackknife, seeds_se

DRAWS = 2000
"""Of the resampling that gives an error where values have no replicates."""
SEED = 2020

Sides = Sequence[Sequence[float]]


def first(sides: Sides) -> float:
    """The only value of a single cell."""
    return sides[0][0]


@dataclass(frozen=True)
class Contrast:
    """A difference of two lines: value, standard error, two-sided p, whether it is paired."""

    value: float
    se: float
    p: float
    paired: bool


@dataclass(frozen=True)
class Entry:
    """A number `of` the cells of a line, such as their mean.

    `sides` holds cells by the samples that their replicates leave out: recall's are real ones,
    precision's generated, so errors of the two add up as variances. All of `of` is a function of
    the means of the cells, shaped like `sides`.
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
        """The number with its error: over training runs or seeds where there are several.

        Else by the jackknife over groups of samples, for values without replicates by drawing them
        from normal distributions of their standard errors, as if they were independent.
        """
        if self.of is first:
            return self.sides[0][0].estimate
        blocks = self._blocks()
        if len(blocks) > 1:
            return seeds_se(blocks)
        value = self.of([[cell.mean for cell in side] for side in self.sides])
        parts = replicates(self, self.seeds)
        if parts:
            return Estimate(value, _se(parts, value), "jackknife over groups")
        errors = [[cell.estimate.se for cell in side] for side in self.sides]
        if any(se is None for side in errors for se in side):
            return Estimate(value)
        return Estimate(value, self._resampled(), "parametric resampling")

    @property
    def p(self) -> float | None:
        """Two-sided p of the number being 0 for these weights; None without any error.

        Like that of `contrast`: by the jackknife, without replicates by the estimate's error.
        """
        parts = replicates(self, self.seeds)
        if parts:
            value = _value(self, self.seeds)
            return two_sided(value, _se(parts, value), min(map(len, parts)) - 1)
        found = self.estimate
        return None if found.se is None else two_sided(found.value, found.se, None)

    def _blocks(self) -> list[float]:
        """The number of every training run, else of every seed; [] if cells differ in these."""
        cells = [cell for side in self.sides for cell in side]
        runs = {(r.experiment, r.run) for cell in cells for r, _ in cell.found}

        def block(keep: Callable[[object], bool]) -> float:
            sides = [
                [float(np.mean([v.value for r, v in cell.found if keep(r)])) for cell in side]
                for side in self.sides
            ]
            return self.of(sides)

        if len(runs) > 1:
            whole = all({(r.experiment, r.run) for r, _ in c.found} == runs for c in cells)
            keys = sorted(runs)
            return (
                [block(lambda r, k=k: (r.experiment, r.run) == k) for k in keys]  # type: ignore[misc]
                if whole
                else []
            )
        whole = all({r.seed for r, _ in c.found} == self.seeds for c in cells)
        seeds = sorted(self.seeds)
        return [block(lambda r, s=s: r.seed == s) for s in seeds] if whole else []  # type: ignore[misc]

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
    """The number without one group of samples, (groups,) for every side; () if unknown.

    Groups are common to cells of a side, since samples of all scales share noise and labels.
    """
    means, left = [], []
    for side in entry.sides:
        found = [averaged(restricted(cell, seeds)) for cell in side] if seeds else []
        if not found or any(f is None for f in found):
            return ()
        known = [f for f in found if f is not None]
        if len({len(f.replicates) for f in known}) != 1:
            return ()
        means.append([f.value for f in known])
        left.append([f.replicates for f in known])
    out = []
    for i, some in enumerate(left):
        others = list(means)
        part = []
        for without in zip(*some, strict=True):
            others[i] = list(without)
            part.append(entry.of(others))
        out.append(tuple(part))
    return tuple(out)


def contrast(a: Entry, b: Entry) -> Contrast | None:
    """Difference a - b at the sampling seeds that both have, None where nothing tells its error.

    By the jackknife of the differences of replicates, with Student's t of one degree less than
    groups; without replicates the two are taken as independent, which is too much error for
    methods that share noise.
    """
    seeds = a.seeds & b.seeds
    ours, theirs = replicates(a, seeds), replicates(b, seeds)
    if ours and [len(p) for p in ours] == [len(p) for p in theirs]:
        value = _value(a, seeds) - _value(b, seeds)
        parts = tuple(
            tuple(x - y for x, y in zip(p, q, strict=True))
            for p, q in zip(ours, theirs, strict=True)
        )
        se = _se(parts, value)
        return Contrast(value, se, two_sided(value, se, min(map(len, parts)) - 1), True)
    one, two = a.estimate, b.estimate
    if one.se is None or two.se is None:
        return None
    value, se = one.value - two.value, math.hypot(one.se, two.se)
    return Contrast(value, se, two_sided(value, se, None), False)


def _value(entry: Entry, seeds: frozenset[int]) -> float:
    some = [[averaged(restricted(cell, seeds)) for cell in side] for side in entry.sides]
    return entry.of([[f.value for f in side if f is not None] for side in some])


def _se(parts: tuple[tuple[float, ...], ...], value: float) -> float:
    return math.hypot(*(jackknife(part, value).se for part in parts))


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
