"""One cell of a table: the values behind it, their mean and its error."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from bench.experiment.rows import Row, Value
from metrics.base import Estimate
from metrics.errors import seeds_se


@dataclass(frozen=True)
class Cell:
    """The runs of a series at one guidance scale: their values, and the rows that have none."""

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
        """What is independent: the mean of every training run or, of a single one, its values."""
        if len(self._by_run) > 1:
            return tuple(fmean(v for _, v in values) for values in self._by_run.values())
        return self.values

    @property
    def unit(self) -> str:
        """What `blocks` are."""
        return "training runs" if len(self._by_run) > 1 else "sampling seeds"

    @cached_property
    def estimate(self) -> Estimate:
        """Mean with its error: over blocks if there are several, else that of the one value."""
        if len(self.blocks) > 1:
            found = seeds_se(self.blocks)
            return _within_shares(found) if self._is_share else found
        _, value = self.found[0]
        low, high = value.interval or (None, None)
        return Estimate(value.value, value.se, value.se_method, low, high)

    @property
    def _is_share(self) -> bool:
        return all(v.se_method.startswith("binomial") for _, v in self.found)

    @property
    def mean(self) -> float:
        """Mean over blocks."""
        return self.estimate.value

    @property
    def band(self) -> tuple[float, float] | None:
        """What a figure shades: the 95% interval; the range of two blocks, whose t is 12.7."""
        if not self.found:
            return None
        if len(self.blocks) == 2:
            return min(self.blocks), max(self.blocks)
        low, high = self.estimate.low, self.estimate.high
        return None if low is None or high is None else (low, high)

    @property
    def seeds(self) -> int:
        """The most sampling seeds of a training run."""
        return max((len(values) for values in self._by_run.values()), default=0)

    def minimum(self, count: int) -> float | None:
        """Least value of the first `count` sampling seeds of a training run, None if fewer.

        The mean over training runs where several have as many.
        """
        full = [sorted(v) for v in self._by_run.values() if len(v) >= count]
        return fmean(min(x for _, x in v[:count]) for v in full) if full else None


def pair(a: Cell, b: Cell) -> tuple[Estimate, Estimate, int] | None:
    """Means of two cells over the sampling seeds they share, with replicates; and how many those.

    Replicates are averaged group by group: samples of one seed are common to training runs, real
    samples to all. None unless all values have replicates, as many of one kind.
    """
    shared = {row.seed for row, _ in a.found} & {row.seed for row, _ in b.found}
    ours, theirs = (averaged(restricted(cell, shared)) for cell in (a, b))
    if ours is None or theirs is None or len(ours.replicates) != len(theirs.replicates):
        return None
    return ours, theirs, len(shared)


def restricted(cell: Cell, seeds: Set[int]) -> Cell:
    """A cell without the values of other sampling seeds."""
    return Cell(tuple((r, v) for r, v in cell.found if r.seed in seeds), cell.troubles)


def averaged(cell: Cell) -> Estimate | None:
    """Mean of all values of a cell with replicates; None unless all have as many of one kind."""
    values = [value for _, value in cell.found]
    lengths = {len(v.replicates) for v in values}
    if len(lengths) != 1 or lengths.pop() < 2:
        return None
    replicates = zip(*(v.replicates for v in values), strict=True)
    return Estimate(fmean(v.value for v in values), replicates=tuple(map(fmean, replicates)))


def _within_shares(found: Estimate) -> Estimate:
    """The interval cut to [0, 1], which Student's t does not know to be all that a share can be."""
    low, high = (
        None if end is None else min(max(end, 0.0), 1.0) for end in (found.low, found.high)
    )
    return replace(found, low=low, high=high)
