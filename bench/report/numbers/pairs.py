"""Paired differences: every method against the best, at the same seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.experiment.rows import Z95
from bench.report.numbers.cells import Cell, pair
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from metrics.errors import paired_difference

FIELDS = (
    *("dataset", "metric", "extractor", "n", "guidance", "method", "best", "seeds"),
    *("difference", "se", "low", "high", "significant"),
)


@dataclass(frozen=True)
class Difference:
    """A line less the best one at a guidance scale, over `seeds` common sampling seeds."""

    guidance: float
    series: Series
    best: Series
    value: float
    se: float
    seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether it is significant at 5%, as a single comparison."""
        return abs(self.value) > Z95 * self.se


def best_of(cells: Sequence[Cell], direction: str) -> int | None:
    """Index of the best cell; None without rivals or a direction.

    Cells with a run that diverged or failed do not count: their mean is too good.
    """
    means = {i: c.mean for i, c in enumerate(cells) if c.found and not c.troubles}
    if direction == "none" or len(means) < 2:
        return None
    return (min if direction == "lower" else max)(means, key=lambda i: means[i])


def differences(data: Data, column: Column) -> tuple[Difference, ...]:
    """The differences of one measure between rows with replicates, by guidance and line."""
    lines = data.series(column.dataset)
    out: list[Difference] = []
    for g in data.guidances(column.dataset):
        cells = [data.cell(column, series, g) for series in lines]
        best = best_of(cells, column.direction)
        if best is None:
            continue
        for i, (series, cell) in enumerate(zip(lines, cells, strict=True)):
            both = pair(cell, cells[best]) if i != best and not cell.troubles else None
            if both is None:
                continue
            ours, theirs, seeds = both
            found = paired_difference(ours, theirs)
            out.append(Difference(g, series, lines[best], found.value, found.se or 0.0, seeds))
    return tuple(out)


def headline_differences(data: Data) -> dict[Column, tuple[Difference, ...]]:
    """The differences of all headline measures that have some."""
    found = {c: differences(data, c) for c in data.columns if c.about.is_headline}
    return {column: some for column, some in found.items() if some}


def difference_frame(found: Iterable[tuple[Column, Sequence[Difference]]]) -> pd.DataFrame:
    """One line per difference, with its 95% interval."""
    records = [
        (
            *(column.dataset, column.metric, column.extractor, column.n, d.guidance),
            *(d.series.label, d.best.label, d.seeds, d.value, d.se),
            *(d.value - Z95 * d.se, d.value + Z95 * d.se, d.is_significant),
        )
        for column, some in found
        for d in some
    ]
    return pd.DataFrame.from_records(records, columns=list(FIELDS))
