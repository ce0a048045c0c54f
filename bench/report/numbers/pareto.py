"""What lines reach: fronts of operating points, and hypervolumes of precision and recall."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.report.numbers.columns import Column
from bench.report.numbers.entries import Entry, Sides
from bench.report.numbers.frame import Data, Series

COSTS = {"nfe": "network evaluations per image", "seconds": "time per image"}
Flags = npt.NDArray[np.bool_]
Span = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A line at a scale: two values, each with its 95% interval, None if unknown.

    `on_front` says that no other point has better means; `certain` that the intervals agree.
    """

    series: Series
    guidance: float
    x: float
    y: float
    x_span: Span | None
    y_span: Span | None
    on_front: bool = False
    certain: bool = False


def front(x: npt.ArrayLike, y: npt.ArrayLike) -> Flags:
    """Which points (n,) no other point dominates; larger is better in both.

    A point dominates another if it is at least as good in both and better in one.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    as_good = (a[:, None] >= a) & (b[:, None] >= b)
    better = (a[:, None] > a) | (b[:, None] > b)
    dominated: Flags = np.any(as_good & better, axis=0)
    return ~dominated


def place(points: Sequence[Point], lower: tuple[bool, bool]) -> tuple[Point, ...]:
    """Find the front of points; `lower` says of x and y whether lower is better.

    A point on the front is certain if no point of another line could dominate it for any values
    within the intervals. A point off the front is certain if some point always dominates it.
    """
    if not points:
        return ()
    signs = [-1.0 if low else 1.0 for low in lower]
    x, y = (np.array([getattr(p, k) for p in points]) for k in "xy")
    on = front(signs[0] * x, signs[1] * y)
    (xl, xh), (yl, yh) = (
        _ends([getattr(p, f"{k}_span") for p in points], sign)
        for k, sign in zip("xy", signs, strict=True)
    )
    number = {s: i for i, s in enumerate(dict.fromkeys(p.series for p in points))}
    line = np.array([number[p.series] for p in points])
    other = line[:, None] != line
    # Comparisons with NaN are false: a point without an interval rules nothing out.
    safe = (xh[:, None] < xl) | (yh[:, None] < yl)
    sure = (xl[:, None] >= xh) & (yl[:, None] >= yh)
    sure &= (xl[:, None] > xh) | (yl[:, None] > yh)
    certain = np.where(on, (safe | ~other).all(axis=0), sure.any(axis=0))
    known = np.isfinite(xl) & np.isfinite(yl)
    return tuple(
        replace(p, on_front=bool(f), certain=bool(c and k))
        for p, f, c, k in zip(points, on, certain, known, strict=True)
    )


def _ends(
    spans: Sequence[Span | None], sign: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Worse and better ends, for "larger is better"; NaN if unknown."""
    ends = sign * np.array([span or (np.nan, np.nan) for span in spans], float)
    return ends.min(axis=1), ends.max(axis=1)


def placed_quality(data: Data, y: Column, x: Column) -> tuple[Point, ...]:
    """All operating points by two measures for which higher is better: precision and recall."""
    points = []
    for series in data.series(x.dataset):
        across, up = data.running(x, series), data.running(y, series)
        for g in [g for g in across if g in up and not borrowed(data, series, g)]:
            a, b = across[g], up[g]
            points.append(Point(series, g, a.mean, b.mean, a.band, b.band))
    return place(points, (False, False))


def placed_cost(data: Data, column: Column, what: str) -> tuple[Point, ...]:
    """All operating points with a cost by one of COSTS, which counts as exact, and a measure."""
    points = []
    for series in data.series(column.dataset):
        for g, cell in data.running(column, series).items():
            nfe, seconds = data.cost(series, g)
            x = float(nfe) if what == "nfe" else seconds
            if x > 0 and not borrowed(data, series, g):
                points.append(Point(series, g, x, cell.mean, (x, x), cell.band))
    return place(points, (True, column.direction == "lower"))


def borrowed(data: Data, series: Series, guidance: float) -> bool:
    """Whether the rows are of the line without a rule: at g = 1 no rule acts."""
    # A series has its knobs in the name of its rule, where a rule ran with several; rows do not.
    return all((row.rule == "") != (series.rule == "") for row in data.rows_of(series, guidance))


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Area of the union of the rectangles from (0, 0) to every point; larger is better.

    Zitzler and Thiele's indicator in two dimensions. A point with a coordinate below 0 adds 0.
    """
    area, height = 0.0, 0.0
    for x, y in sorted(points, reverse=True):
        # From the right: a point adds the part above all points further right.
        if x > 0 and y > height:
            area += x * (y - height)
            height = y
    return area


def _area(sides: Sides) -> float:
    return hypervolume(list(zip(*sides, strict=True)))


def hypervolumes(
    data: Data, precision: Column, recall: Column, scales: Set[float] = frozenset()
) -> list[Entry]:
    """The hypervolume of every line that has both, over all its guidance scales.

    With `scales`, it is over these, for lines that have them all.
    """
    entries = []
    for series in data.series(precision.dataset):
        good, varied = data.cells(precision, series), data.cells(recall, series)
        both = [g for g in good if g in varied and (not scales or g in scales)]
        if both and len(both) >= len(scales):
            sides = tuple(good[g] for g in both), tuple(varied[g] for g in both)
            entries.append(Entry(series, sides, _area))
    return entries


def precision_pairs(data: Data, dataset: str) -> list[tuple[Column, Column]]:
    """Pairs of columns of one extractor and n, such as precision and recall."""
    own = {(c.metric, c.extractor, c.n): c for c in data.columns if c.dataset == dataset}
    pairs = [(c, own.get((c.about.against, c.extractor, c.n))) for c in own.values()]
    return [(precision, recall) for precision, recall in pairs if recall is not None]
