"""Whether guidance acts: precision above its value without guidance."""

from __future__ import annotations

from bench.report.numbers.cells import restricted
from bench.report.numbers.entries import Entry, Sides, holm
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.operating import average, running
from bench.report.numbers.ranking import LEVEL


def risen(data: Data, precision: Column) -> dict[Series, bool]:
    """Guided lines, and whether precision is significantly above that at g = 1 at any scale.

    Differences are paired, at the sampling seeds that all scales of a line have, and their p
    adjusted for all scales of all lines together (Holm). A line without a value at g = 1, or
    without errors, is not among them.
    """
    tests: dict[tuple[Series, float], tuple[float, float]] = {}
    for series in data.series(precision.dataset):
        cells = running(data, precision, series)
        if 1.0 not in cells or len(cells) < 2:
            continue
        seeds = Entry(series, (tuple(cells.values()),), average).seeds
        kept = {g: restricted(cell, seeds) for g, cell in cells.items()}
        if not seeds:
            continue
        for g in kept:
            entry = Entry(series, ((kept[g], kept[1.0]),), _gain)
            if g != 1.0 and entry.p is not None:
                tests[series, g] = entry.estimate.value, entry.p
    adjusted = holm([p for _, p in tests.values()])
    found: dict[Series, bool] = {}
    for ((series, _), (gain, _)), p in zip(tests.items(), adjusted, strict=True):
        found[series] = found.get(series, False) or (gain > 0 and p < LEVEL)
    return found


def _gain(sides: Sides) -> float:
    there, unguided = sides[0]
    return there - unguided
