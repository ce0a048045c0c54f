"""One cell of a table: its values, their mean and its error."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

from bench.experiment.rows import Row, Value
from metrics.base import Estimate
from metrics.errors import seeds_se


def exact_mean(values: Sequence[float]) -> float:
    """Mean from an exact sum: that of `statistics.fmean`, which takes three times as long."""
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class Cell:
    """The values of a series at one guidance scale, and its rows without values."""

    found: tuple[tuple[Row, Value], ...] = ()
    troubles: tuple[Row, ...] = ()

    @cached_property
    def values(self) -> tuple[float, ...]:
        """All values, by training and then sampling seed."""
        return tuple(value.value for _, value in self.found)

    @cached_property
    def _by_run(self) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """Sampling seeds and values of every training run."""
        runs: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row, value in self.found:
            runs.setdefault((row.experiment, row.run), []).append((row.seed, value.value))
        return runs

    @cached_property
    def blocks(self) -> tuple[float, ...]:
        """The independent values: the means of several training runs, or all values of one."""
        if len(self._by_run) > 1:
            return tuple(exact_mean([v for _, v in values]) for values in self._by_run.values())
        return self.values

    @property
    def sources(self) -> tuple[object, ...]:
        """What each of `blocks` is from: a training run, or a sampling seed."""
        runs = tuple(self._by_run)
        return runs if len(runs) > 1 else tuple(row.seed for row, _ in self.found)

    @property
    def unit(self) -> str:
        """The name of `blocks`."""
        return "training runs" if len(self._by_run) > 1 else "sampling seeds"

    @cached_property
    def estimate(self) -> Estimate:
        """Mean with its error: over several blocks, or that of the only value."""
        if len(self.blocks) > 1:
            found = seeds_se(self.blocks)
            if all(v.se_method.startswith("binomial") for _, v in self.found):
                # Student's t does not know that a share is in [0, 1].
                low, high = (
                    end if end is None else min(max(end, 0.0), 1.0)
                    for end in (found.low, found.high)
                )
                return replace(found, low=low, high=high)
            return found
        _, value = self.found[0]
        low, high = value.interval or (None, None)
        return Estimate(value.value, value.se, value.se_method, low, high)

    @cached_property
    def averaged(self) -> Estimate | None:
        """Mean of the values with replicates; None unless all have the same number of those."""
        replicates = [value.replicates for _, value in self.found]
        lengths = set(map(len, replicates))
        if len(lengths) != 1 or lengths.pop() < 2:
            return None
        means = tuple(map(exact_mean, zip(*replicates, strict=True)))
        return Estimate(exact_mean(self.values), replicates=means)

    @property
    def mean(self) -> float:
        """Mean over blocks."""
        return self.estimate.value

    @property
    def band(self) -> tuple[float, float] | None:
        """The band in figures: the 95% interval, or the range of two blocks, whose t is 12.7."""
        if not self.found:
            return None
        if len(self.blocks) == 2:
            return min(self.blocks), max(self.blocks)
        low, high = self.estimate.low, self.estimate.high
        return None if low is None or high is None else (low, high)

    @property
    def seeds(self) -> int:
        """The largest number of sampling seeds of a training run."""
        return max((len(values) for values in self._by_run.values()), default=0)

    def minimum(self, count: int) -> float | None:
        """Minimum over the first `count` sampling seeds; None if no training run has as many.

        Several such runs are averaged.
        """
        full = [sorted(v) for v in self._by_run.values() if len(v) >= count]
        return exact_mean([min(x for _, x in v[:count]) for v in full]) if full else None


def pair(a: Cell, b: Cell) -> tuple[Estimate, Estimate, int] | None:
    """Means of two cells over their common sampling seeds, with replicates; the number of seeds.

    Replicates are averaged group by group: training runs share the samples of a seed, and all share
    real samples. None unless all values have the same number of replicates.
    """
    shared = {row.seed for row, _ in a.found} & {row.seed for row, _ in b.found}
    ours, theirs = (restricted(cell, shared).averaged for cell in (a, b))
    if ours is None or theirs is None or len(ours.replicates) != len(theirs.replicates):
        return None
    return ours, theirs, len(shared)


def restricted(cell: Cell, seeds: Set[int]) -> Cell:
    """The cell with only the values of some sampling seeds."""
    found = tuple((r, v) for r, v in cell.found if r.seed in seeds)
    return cell if len(found) == len(cell.found) else Cell(found, cell.troubles)
