"""Operating points of all lines, and which of them none dominates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.operating import cost, running

COSTS = {"nfe": "network evaluations per image", "seconds": "seconds per image"}
Flags = npt.NDArray[np.bool_]
Span = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A line at a scale: two values, each with its 95% interval, None where it is not known."""

    series: Series
    guidance: float
    x: float
    y: float
    x_span: Span | None
    y_span: Span | None


@dataclass(frozen=True)
class Placed:
    """A point, whether it is on the front of means, and whether that is certain."""

    point: Point
    on_front: bool
    certain: bool


def front(x: npt.ArrayLike, y: npt.ArrayLike) -> Flags:
    """Which points (n,) no other dominates; larger is better in both.

    One dominates another if it is at least as good in both and better in one.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    as_good = (a[:, None] >= a) & (b[:, None] >= b)
    better = (a[:, None] > a) | (b[:, None] > b)
    dominated: Flags = np.any(as_good & better, axis=0)
    return ~dominated


def place(points: Sequence[Point], lower: tuple[bool, bool]) -> tuple[Placed, ...]:
    """Place points; `lower` says of x and y whether less is better.

    On the front a point is certain if no point of another line could dominate it with all values
    anywhere in their intervals; off it, if one of any line dominates it whatever they are.
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
        Placed(p, bool(f), bool(c and k))
        for p, f, c, k in zip(points, on, certain, known, strict=True)
    )


def _ends(
    spans: Sequence[Span | None], sign: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Worse and better ends, the larger the better; NaN where unknown."""
    ends = sign * np.array([span or (np.nan, np.nan) for span in spans], float)
    return ends.min(axis=1), ends.max(axis=1)


def placed_quality(data: Data, y: Column, x: Column) -> tuple[Placed, ...]:
    """All operating points of two measures of which higher is better: precision and recall."""
    points = []
    for series in data.series(x.dataset):
        across, up = running(data, x, series), running(data, y, series)
        for g in [g for g in across if g in up and not _borrowed(data, series, g)]:
            a, b = across[g], up[g]
            points.append(Point(series, g, a.mean, b.mean, a.band, b.band))
    return place(points, (False, False))


def placed_cost(data: Data, column: Column, what: str) -> tuple[Placed, ...]:
    """All operating points by one of COSTS and a measure; those without a cost are left out.

    Costs count as exact.
    """
    points = []
    for series in data.series(column.dataset):
        for g, cell in running(data, column, series).items():
            nfe, seconds = cost(data, series, g)
            x = float(nfe) if what == "nfe" else seconds
            if x > 0 and not _borrowed(data, series, g):
                points.append(Point(series, g, x, cell.mean, (x, x), cell.band))
    return place(points, (True, column.direction == "lower"))


def _borrowed(data: Data, series: Series, guidance: float) -> bool:
    """Whether the rows are those without guidance, which are a point of the plain line."""
    return all(row.rule != series.rule for row in data.rows_of(series, guidance))
