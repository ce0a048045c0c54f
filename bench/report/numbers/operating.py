"""The best operating point of a line: the guidance scale at which a measure is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from bench.report.numbers.cells import Cell, restricted
from bench.report.numbers.entries import Entry, first
from bench.report.numbers.frame import Column, Data, Series
from metrics.base import Estimate


@dataclass(frozen=True)
class Operating:
    """A line at its best scale; `scales` is how many it was chosen from.

    With `held_out` the scale was chosen by the first half of the sampling seeds and the value is
    that of the others. Without, the value is the least of `scales` and optimistic.
    """

    entry: Entry
    guidance: float
    scales: int
    held_out: bool
    nfe: int
    seconds: float
    """Seconds per image, 0.0 where nothing was timed."""

    @property
    def series(self) -> Series:
        """The line."""
        return self.entry.series

    @property
    def estimate(self) -> Estimate:
        """The value at that scale, with the error that tables state."""
        return self.entry.estimate

    @property
    def is_optimistic(self) -> bool:
        """Whether the same values chose the scale and are reported."""
        return self.scales > 1 and not self.held_out


def average(sides: Sequence[Sequence[float]]) -> float:
    """Mean of the values of the only side."""
    return fmean(sides[0])


def running(data: Data, column: Column, series: Series) -> dict[float, Cell]:
    """Cells of a line by guidance that have values and no seed that diverged or failed."""
    return {g: cell for g, cell in data.cells(column, series).items() if not cell.troubles}


def best_point(data: Data, column: Column, series: Series) -> Operating | None:
    """The best scale of a line, the lowest of equals; None without values or a direction."""
    cells = running(data, column, series)
    if not cells or column.direction == "none":
        return None
    seeds = sorted(Entry(series, (tuple(cells.values()),), average).seeds)
    chosen, reported = cells, cells
    split = len(seeds) > 1 and len(cells) > 1
    if split:
        half = len(seeds) // 2
        chosen = {g: restricted(c, frozenset(seeds[:half])) for g, c in cells.items()}
        reported = {g: restricted(c, frozenset(seeds[half:])) for g, c in cells.items()}
    sign = 1.0 if column.direction == "lower" else -1.0
    g = min(chosen, key=lambda g: (sign * chosen[g].mean, g))
    nfe, seconds = cost(data, series, g)
    return Operating(Entry(series, ((reported[g],),), first), g, len(cells), split, nfe, seconds)


def cost(data: Data, series: Series, guidance: float) -> tuple[int, float]:
    """Evaluations and seconds per image of a line at a scale.

    Seconds are the median over all rows of the line that take as many evaluations: a single timing
    is noisy, and the work is the same.
    """
    nfe = max((r.nfe for r in data.rows_of(series, guidance) if r.status == "ok"), default=0)
    rows = [r for r in data.rows_of(series) if r.status == "ok" and r.nfe == nfe]
    # 0.0 is what a row says when nothing was timed.
    seconds = [row.seconds_per_image for row in rows if row.seconds_per_image > 0]
    return nfe, median(seconds) if seconds else 0.0


def common_range(data: Data, column: Column) -> tuple[float, ...]:
    """The scales over which lines are averaged: those that most guided lines have.

    Lines with a value at a single scale, such as methods without guidance, have no say.
    """
    guided = [
        set(found)
        for series in data.series(column.dataset)
        if len(found := running(data, column, series)) > 1
    ]
    scales = data.guidances(column.dataset)
    return tuple(g for g in scales if 2 * sum(g in found for found in guided) > len(guided))


def range_mean(data: Data, column: Column, series: Series, scales: Sequence[float]) -> Entry | None:
    """The mean of a line over `scales`; None unless it has all of them."""
    cells = running(data, column, series)
    if len(scales) < 2 or not all(g in cells for g in scales):
        return None
    return Entry(series, (tuple(cells[g] for g in scales),), average)
