"""Measures against guidance, and precision against recall along guidance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from bench.report.figures.axes import (
    GUIDANCE,
    axis_label,
    bars,
    legend_below,
    uncertainty,
    value_axis,
)
from bench.report.figures.direct_labels import Label, put_labels
from bench.report.figures.style import (
    DIVERGED,
    FLOOR_LINE,
    FLOOR_POINT,
    GREY,
    OTHERS,
    PUBLISHED,
    line_style,
    new_figure,
    plain,
)
from bench.report.looks import Look, line_looks
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR_LABEL
from bench.report.numbers.published import Curve, Published, curves, legend_names

LOST = "diverged (no value)"
MOST_TICKS = 16
"""On all axes of guidance of a figure."""
MOST_LINES = 9
"""In one panel."""


def metric_curve(data: Data, column: Column, published: tuple[Published, ...] = ()) -> Figure:
    """One measure against guidance: a line per method and steps, the floor, published curves.

    Rules of guidance have separate figures.
    """
    figure = new_figure(3.9)
    axes = figure.add_subplot()
    _curve(axes, data, column, data.plain(column.dataset), published, line_looks(data))
    _guidance_axis(axes, data.guidances(column.dataset), MOST_TICKS)
    axes.set_ylabel(axis_label(column, width=44))
    axes.set_title(plain(column.dataset), loc="left")
    _legend(figure, axes)
    return figure


def guidance_panels(
    data: Data,
    columns: Sequence[Column],
    lines: Sequence[Series],
    published: tuple[Published, ...] = (),
) -> Figure:
    """Some measures against guidance, each in a panel.

    More than `MOST_LINES` lines are spread over rows of panels. Each row shows those of the others
    in grey and has a legend of its own.
    """
    count = max(1, math.ceil(len(lines) / MOST_LINES))
    ends = [round(i * len(lines) / count) for i in range(count + 1)]
    looks, seen = line_looks(data), Counter[str]()
    for s in lines:  # sizes of the lines of a method that are shown
        looks[s] = replace(looks[s], size=seen[s.method])
        seen[s.method] += 1
    figure = new_figure(2.75 * count)
    parts: Sequence[Figure | SubFigure] = [figure]
    if count > 1:
        parts = list(figure.subfigures(count, 1, squeeze=False)[:, 0])
    for rows, (start, end) in zip(parts, pairwise(ends), strict=True):
        panels = rows.subplots(1, len(columns), squeeze=False)[0]
        others = [*lines[:start], *lines[end:]]
        for axes, column in zip(panels, columns, strict=True):
            _curve(axes, data, column, lines[start:end], published, looks, others)
            _guidance_axis(axes, data.guidances(column.dataset), MOST_TICKS // len(columns))
            axes.set_title(axis_label(column, width=30), fontsize=8.5)
            axes.margins(y=0.07)
        _legend(rows, *panels)
    figure.suptitle(plain(columns[0].dataset), fontsize=9.5, x=0.01, ha="left")
    return figure


def _curve(
    axes: Axes,
    data: Data,
    column: Column,
    lines: Sequence[Series],
    published: tuple[Published, ...],
    looks: Mapping[Series, Look],
    others: Sequence[Series] = (),
) -> None:
    """Draw a measure against guidance, `others` in grey."""
    drawn: list[Sequence[float]] = []
    known = curves(published, column)
    for i, (curve, label) in enumerate(zip(known, legend_names(known), strict=True)):
        _grey(axes, curve.guidance, curve.values, label, i)
        drawn.append(curve.values)
    drawn += [_line(axes, data, column, series, looks[series]) for series in lines]
    behind = [[(g, c.mean) for g, c in data.cells(column, s).items()] for s in others]
    if behind:
        axes.add_collection(LineCollection(behind, colors=OTHERS, linewidths=0.7, zorder=1))
    drawn += [[y for _, y in path] for path in behind]
    floor = data.floor(column)
    if floor.found:
        axes.axhline(floor.mean, **FLOOR_LINE, lw=1.2, zorder=1.5, label=FLOOR_LABEL)
        drawn.append([floor.mean])
    value_axis(axes, column, drawn, fine=True)
    for series in lines:
        uncertainty(axes, data.cells(column, series), looks[series].colour, 2)


def _line(axes: Axes, data: Data, column: Column, series: Series, look: Look) -> list[float]:
    """Draw one line; return what was drawn."""
    scales = data.guidances(column.dataset)
    troubles = {g: data.cell(column, series, g).troubles for g in scales}
    lost = [g for g, rows in troubles.items() if any(r.status == "diverged" for r in rows)]
    if lost:
        # At the upper edge, since there is no value to put them at.
        axes.plot(
            lost, [0.985] * len(lost), transform=axes.get_xaxis_transform(),
            **DIVERGED, ms=6, color=look.colour, label=LOST,
        )  # fmt: skip
    ok = data.cells(column, series)
    means = [cell.mean for cell in ok.values()]
    if means:
        label = plain(series.label)
        axes.plot(list(ok), means, clip_on=False, **line_style(look), zorder=3, label=label)
    return means


def _grey(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, i: int) -> None:
    marker, colour = PUBLISHED[i % len(PUBLISHED)]
    axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.0, label=plain(label), zorder=1)


def _guidance_axis(axes: Axes, guidances: Sequence[float], most: int) -> None:
    axes.set_xlabel(GUIDANCE)
    every = math.ceil(len(guidances) / most)
    if every <= 3 and all(float(g).is_integer() for g in guidances):
        axes.set_xticks(guidances[::every])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(guidances) == 1:
        axes.set_xlim(guidances[0] - 0.5, guidances[0] + 0.5)


def _legend(figure: Figure | SubFigure, *panels: Axes) -> None:
    """Below the axes, so that it covers no data; each name once."""
    entries: dict[Any, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    # One entry for all methods, the last; its colours are those of the lines.
    lost = {label: entries.pop(label) for label in [LOST] if label in entries}
    legend_below(figure, [(handle, label) for label, handle in {**entries, **lost}.items()], 4)


def precision_recall(
    data: Data, precision: Column, recall: Column, published: tuple[Published, ...] = ()
) -> Figure:
    """Precision against recall: one path per method and steps, from low to high guidance."""
    figure = new_figure(4.7)
    axes = figure.add_subplot()
    looks = line_looks(data)
    labels: list[Label] = []
    points: list[tuple[float, float]] = []
    paths = _published_paths(published, precision, recall)
    names = legend_names([curve for curve, _, _ in paths])
    for i, ((curve, x, y), label) in enumerate(zip(paths, names, strict=True)):
        _grey(axes, x, y, label, i)
        labels += _ends(x, y, curve.guidance, GREY)
        points += zip(x, y, strict=True)
    for series in data.plain(precision.dataset):
        look = looks[series]
        across, up = data.cells(recall, series), data.cells(precision, series)
        at = [g for g in across if g in up]
        for g in at:
            _bars(axes, across[g], up[g], look.colour)
        if at:
            x, y = [across[g].mean for g in at], [up[g].mean for g in at]
            axes.plot(x, y, **line_style(look), zorder=3, label=plain(series.label))
            labels += _ends(x, y, at, look.colour)
            points += zip(x, y, strict=True)
    floor = data.floor(recall), data.floor(precision)
    if all(cell.found for cell in floor):
        x0, y0 = (cell.mean for cell in floor)
        _bars(axes, *floor, GREY)
        axes.plot([x0], [y0], ms=10, **FLOOR_POINT, label=FLOOR_LABEL, zorder=2)
        points.append((x0, y0))
    axes.margins(0.13)
    axes.set_xlabel(axis_label(recall))
    axes.set_ylabel(axis_label(precision))
    axes.set_title(plain(precision.dataset), loc="left")
    _legend(figure, axes)
    put_labels(figure, axes, labels, np.array(points, float).reshape(-1, 2))
    return figure


def _bars(axes: Axes, across: Cell, up: Cell, colour: str) -> None:
    look = {"color": colour, "lw": 0.8, "alpha": 0.6, "zorder": 2.5}
    bars(axes, (across.mean, up.mean), across.band, up.band, **look)


def _published_paths(
    published: tuple[Published, ...], precision: Column, recall: Column
) -> list[tuple[Curve, list[float], list[float]]]:
    """(curve, recalls, precisions) of the sources that state both at a guidance scale."""
    out = []
    recalls = {(c.method, c.source): c for c in curves(published, recall)}
    for curve in curves(published, precision):
        other = recalls.get((curve.method, curve.source))
        x = dict(zip(other.guidance, other.values, strict=True)) if other else {}
        both = {g: y for g, y in zip(curve.guidance, curve.values, strict=True) if g in x}
        if both:
            kept = replace(curve, guidance=tuple(both), values=tuple(both.values()))
            out.append((kept, [x[g] for g in both], list(both.values())))
    return out


def _ends(x: Sequence[float], y: Sequence[float], at: Sequence[float], colour: str) -> list[Label]:
    """Labels with g at both ends of a path."""
    ends = (0,) if len(x) == 1 else (0, -1)
    return [Label(f"g = {at[end]:g}", (x[end], y[end]), colour) for end in ends]
