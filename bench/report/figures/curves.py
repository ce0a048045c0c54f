"""Measures against guidance, and precision against recall along guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from bench.report.figures.axes import GUIDANCE, axis_label, band, bars, legend_below, value_axis
from bench.report.figures.style import (
    DIVERGED,
    FLOOR_LINE,
    FLOOR_POINT,
    GREY,
    PUBLISHED,
    MethodStyle,
    marker_fill,
    method_styles,
    new_figure,
    plain,
)
from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.names import FLOOR_LABEL
from bench.report.numbers.published import Curve, Published, curves, legend_names

LOST = "diverged (no value)"


def metric_curve(data: Data, column: Column, published: tuple[Published, ...] = ()) -> Figure:
    """One measure against guidance: a line per method and steps, the floor, published curves.

    Rules of guidance have separate figures.
    """
    figure = new_figure(3.9)
    axes = figure.add_subplot()
    styles = method_styles(data.methods)
    drawn: list[float] = []
    known = curves(published, column)
    for i, (curve, label) in enumerate(zip(known, legend_names(known), strict=True)):
        _grey(axes, curve.guidance, curve.values, label, i)
        drawn += curve.values
    for series in data.plain(column.dataset):
        drawn += _line(axes, data, column, series, styles[series.method])
    floor = data.floor(column)
    if floor.found:
        axes.axhline(floor.mean, **FLOOR_LINE, lw=1.2, zorder=1.5, label=FLOOR_LABEL)
        drawn.append(floor.mean)
    value_axis(axes, column, drawn)
    for series in data.plain(column.dataset):
        band(axes, data.cells(column, series), styles[series.method].color, 0.18, 2)
    _guidance_axis(axes, data.guidances(column.dataset))
    axes.set_ylabel(axis_label(column, width=44))
    axes.set_title(plain(column.dataset), loc="left")
    _legend(figure, axes)
    return figure


def _line(
    axes: Axes, data: Data, column: Column, series: Series, style: MethodStyle
) -> list[float]:
    """Draw one line; return what was drawn."""
    scales = data.guidances(column.dataset)
    troubles = {g: data.cell(column, series, g).troubles for g in scales}
    lost = [g for g, rows in troubles.items() if any(r.status == "diverged" for r in rows)]
    if lost:
        # At the upper edge, since there is no value to put them at.
        axes.plot(
            lost, [0.985] * len(lost), transform=axes.get_xaxis_transform(),
            **DIVERGED, ms=6, color=style.color, label=LOST,
        )  # fmt: skip
    ok = data.cells(column, series)
    means = [cell.mean for cell in ok.values()]
    if means:
        axes.plot(list(ok), means, clip_on=False, **_look(data, series, style))
    return means


def _look(data: Data, series: Series, style: MethodStyle) -> dict[str, Any]:
    """The look of a line of a method."""
    return {
        **{"color": style.color, "marker": style.marker, "ls": style.linestyle, "zorder": 3},
        **{"fillstyle": marker_fill(data.variant(series)), "label": plain(series.label)},
    }


def _grey(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, i: int) -> None:
    marker, colour = PUBLISHED[i % len(PUBLISHED)]
    axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.0, label=plain(label), zorder=1)


def _guidance_axis(axes: Axes, guidances: Sequence[float]) -> None:
    axes.set_xlabel(GUIDANCE)
    if len(guidances) <= 16 and all(float(g).is_integer() for g in guidances):
        axes.set_xticks(list(guidances))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(guidances) == 1:
        axes.set_xlim(guidances[0] - 0.5, guidances[0] + 0.5)


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, so that it covers no data."""
    entries = list(zip(*axes.get_legend_handles_labels(), strict=True))
    lost = [entry for entry in entries if entry[1] == LOST]
    # One entry for all methods, the last; its colours are those of the lines.
    legend_below(figure, [entry for entry in entries if entry[1] != LOST] + lost[:1], 4)


def precision_recall(
    data: Data, precision: Column, recall: Column, published: tuple[Published, ...] = ()
) -> Figure:
    """Precision against recall: one path per method and steps, from low to high guidance."""
    figure = new_figure(4.7)
    axes = figure.add_subplot()
    styles = method_styles(data.methods)
    paths = _published_paths(published, precision, recall)
    names = legend_names([curve for curve, _, _ in paths])
    for i, ((curve, x, y), label) in enumerate(zip(paths, names, strict=True)):
        _grey(axes, x, y, label, i)
        _ends(axes, x, y, curve.guidance, GREY)
    for series in data.plain(precision.dataset):
        style = styles[series.method]
        across, up = data.cells(recall, series), data.cells(precision, series)
        at = [g for g in across if g in up]
        for g in at:
            _bars(axes, across[g], up[g], style.color)
        if at:
            x, y = [across[g].mean for g in at], [up[g].mean for g in at]
            axes.plot(x, y, **_look(data, series, style))
            _ends(axes, x, y, at, style.color)
    floor = data.floor(recall), data.floor(precision)
    if all(cell.found for cell in floor):
        x0, y0 = (cell.mean for cell in floor)
        _bars(axes, *floor, GREY)
        axes.plot([x0], [y0], ms=10, **FLOOR_POINT, label=FLOOR_LABEL, zorder=2)
    axes.margins(0.13)
    axes.set_xlabel(axis_label(recall))
    axes.set_ylabel(axis_label(precision))
    axes.set_title(plain(precision.dataset), loc="left")
    _legend(figure, axes)
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


def _ends(
    axes: Axes, x: Sequence[float], y: Sequence[float], at: Sequence[float], colour: str
) -> None:
    """Write g at both ends of a path, on the side away from the path."""
    ends = [(0, 1)] if len(x) == 1 else [(0, 1), (-1, -2)]
    for end, next_to in ends:
        dx, dy = (x[end] - x[next_to], y[end] - y[next_to]) if len(x) > 1 else (0.0, 1.0)
        length = float(np.hypot(dx, dy))
        ux, uy = (dx / length, dy / length) if length > 0 else (0.0, 1.0 if end == 0 else -1.0)
        axes.annotate(
            f"g = {at[end]:g}",
            (x[end], y[end]),
            xytext=(9 * ux, 9 * uy),
            textcoords="offset points",
            ha="left" if ux > 0.4 else "right" if ux < -0.4 else "center",
            va="bottom" if uy > 0.4 else "top" if uy < -0.4 else "center",
            fontsize=8,
            color=colour,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=4,
        )
