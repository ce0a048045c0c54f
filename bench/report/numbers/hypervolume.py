"""The area of precision and recall that a line reaches along guidance."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.numbers.entries import Entry
from bench.report.numbers.frame import Column, Data

REFERENCE = (0.0, 0.0)


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Area of the union of the rectangles from (0, 0) to every point, both the larger the better.

    Zitzler and Thiele's indicator in two dimensions; a point with a coordinate below 0 adds
    nothing.
    """
    area, height = 0.0, 0.0
    for x, y in sorted(points, reverse=True):
        # From the right: a point adds what rises above all points further right.
        if x > 0 and y > height:
            area += x * (y - height)
            height = y
    return area


def _of(sides: Sequence[Sequence[float]]) -> float:
    return hypervolume(list(zip(*sides, strict=True)))


def hypervolumes(data: Data, precision: Column, recall: Column) -> list[Entry]:
    """The hypervolume of every line that has both, over all its guidance scales."""
    entries = []
    for series in data.series(precision.dataset):
        good, varied = data.cells(precision, series), data.cells(recall, series)
        both = [g for g in good if g in varied]
        if both:
            sides = tuple(good[g] for g in both), tuple(varied[g] for g in both)
            entries.append(Entry(series, sides, _of))
    return entries


def precision_pairs(data: Data, dataset: str) -> list[tuple[Column, Column]]:
    """Columns such as precision's with those they are set against, by one extractor and n."""
    own = {(c.metric, c.extractor, c.n): c for c in data.columns if c.dataset == dataset}
    pairs = [(c, own.get((c.about.against, c.extractor, c.n))) for c in own.values()]
    return [(precision, recall) for precision, recall in pairs if recall is not None]
