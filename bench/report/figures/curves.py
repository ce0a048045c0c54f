"""Measures against guidance, and precision against recall along guidance."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from bench.report.figures.style import (
    GREY,
    MethodStyle,
    marker_fill,
    new_figure,
    plain,
)
from bench.report.numbers import lines
from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.published import Curve, Published, curves, legend_names
from metrics.about import Scale

GUIDANCE = "guidance g (1 = off)"
_GREYS = (("x", "#8a8a8a"), ("+", "#a8a8a8"), ("1", "#707070"), ("2", "#b8b8b8"), ("|", "#989898"))
LOG_DECADES = 1.5
DIVERGED = "diverged (no value)"


def axis_label(column: Column, width: int = 60) -> str:
    """Such as "FD ↓ (classifier features, n = 300)", in lines of at most `width` characters."""
    features = f"{column.extractor} features, " if column.extractor else ""
    name = f"{column.label} {column.arrow}".strip()
    measured = f"({features}n = {column.n})"
    if len(name) + len(measured) < width:
        return plain(f"{name} {measured}")
    return "\n".join(plain(line) for line in (*textwrap.wrap(name, width), measured))


def value_scale(
    values: Sequence[float], decades: float = LOG_DECADES, wanted: Scale = "auto"
) -> tuple[str, float]:
    """Scale of a value axis and, for symlog, where it becomes linear.

    Logarithmic where the metric wants it or, by default, where positive values span more than so
    many `decades`; symmetric-logarithmic where there are zeros too, since a logarithm would drop
    them. Linear where there are negative values.
    """
    positive = [v for v in values if v > 0]
    if wanted == "linear" or not positive or min(values) < 0:
        return "linear", 0.0
    if wanted == "auto" and np.log10(max(positive)) - np.log10(min(positive)) <= decades:
        return "linear", 0.0
    return ("log", 0.0) if min(values) > 0 else ("symlog", min(positive))


def metric_curve(
    data: Data,
    column: Column,
    published: tuple[Published, ...],
    styles: Mapping[str, MethodStyle],
) -> Figure:
    """One measure against guidance: a line per method and steps, the floor, published curves.

    Rules of guidance have figures of their own: lines.plain.
    """
    figure = new_figure(3.9)
    axes = figure.add_subplot()
    drawn: list[float] = []
    known = curves(published, column)
    for i, (curve, label) in enumerate(zip(known, legend_names(known), strict=True)):
        _grey(axes, curve.guidance, curve.values, label, i)
        drawn += curve.values
    for series in lines.plain(data, column.dataset):
        drawn += _line(axes, data, column, series, styles[series.method])
    floor = data.floor(column)
    if floor.found:
        mean = floor.mean
        axes.axhline(mean, color=GREY, ls="--", lw=1.2, zorder=1.5, label="real vs. real (floor)")
        drawn.append(mean)
    scale, linear_below = value_scale(drawn, wanted=column.about.scale)
    if scale == "symlog":
        axes.set_yscale("symlog", linthresh=linear_below)
    else:
        axes.set_yscale(scale)
    if scale != "linear":
        _plain_ticks(axes)
    for series in lines.plain(data, column.dataset):
        _band(axes, data, column, series, styles[series.method].color)
    _guidance_axis(axes, data.guidances(column.dataset))
    axes.set_ylabel(axis_label(column, width=44))
    axes.set_title(plain(column.dataset), loc="left")
    _legend(figure, axes)
    return figure


def _line(
    axes: Axes, data: Data, column: Column, series: Series, style: MethodStyle
) -> list[float]:
    """Draw one line; return what was drawn."""
    cells = {g: data.cell(column, series, g) for g in data.guidances(column.dataset)}
    ok = {g: cell for g, cell in cells.items() if cell.found}
    lost = [g for g, c in cells.items() if any(r.status == "diverged" for r in c.troubles)]
    if lost:
        # At the upper edge, since there is no value to put them at.
        axes.plot(
            lost,
            [0.985] * len(lost),
            transform=axes.get_xaxis_transform(),
            ls="none",
            marker="X",
            ms=6,
            color=style.color,
            label=DIVERGED,
        )
    if not ok:
        return []
    means = [cell.mean for cell in ok.values()]
    axes.plot(
        list(ok),
        means,
        color=style.color,
        marker=style.marker,
        ls=style.linestyle,
        fillstyle=marker_fill(data.variant(series)),
        label=plain(series.label),
        zorder=3,
        clip_on=False,
    )
    return means


def _band(axes: Axes, data: Data, column: Column, series: Series, colour: str) -> None:
    """Shade the intervals of one line; a point between two without one gets a bar."""
    cells = {g: data.cell(column, series, g) for g in data.guidances(column.dataset)}
    bands = {g: cell.band for g, cell in cells.items() if cell.found}
    if not any(bands.values()):
        return
    ends = [band or (np.nan, np.nan) for band in bands.values()]
    low, high = (np.array(side, float) for side in zip(*ends, strict=True))
    if axes.get_yscale() == "log":
        # Where an interval reaches below 0 there is no end to draw: half the least value is.
        drawn = [cell.mean for cell in cells.values() if cell.found]
        low = np.maximum(low, min(drawn) / 2)
    x = list(bands)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, zorder=2)
    known = [False, *np.isfinite(low), False]
    alone = [i for i in range(len(x)) if known[i + 1] and not known[i] and not known[i + 2]]
    if alone:
        axes.vlines([x[i] for i in alone], low[alone], high[alone], color=colour, lw=1.2, zorder=2)


def _grey(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, i: int) -> None:
    marker, colour = _GREYS[i % len(_GREYS)]
    axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.0, label=plain(label), zorder=1)


def _guidance_axis(axes: Axes, guidances: Sequence[float]) -> None:
    axes.set_xlabel(GUIDANCE)
    if len(guidances) <= 16 and all(float(g).is_integer() for g in guidances):
        axes.set_xticks(list(guidances))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(guidances) == 1:
        axes.set_xlim(guidances[0] - 0.5, guidances[0] + 0.5)


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 0.01 and 200 in place of powers of ten."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it can cover no data."""
    entries = list(zip(*axes.get_legend_handles_labels(), strict=True))
    lost = [entry for entry in entries if entry[1] == DIVERGED]
    # One entry for all methods, the last: its colours are those of the lines.
    entries = [entry for entry in entries if entry[1] != DIVERGED] + lost[:1]
    if entries:
        handles, labels = zip(*entries, strict=True)
        longest = max(len(label) for label in labels)
        columns = max(1, min(4, len(labels), int(100 / (longest + 8))))
        rows = -(-len(labels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.17 * max(0, rows - 2))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def precision_recall(
    data: Data,
    precision: Column,
    recall: Column,
    published: tuple[Published, ...],
    styles: Mapping[str, MethodStyle],
) -> Figure:
    """Precision against recall: one path per method and steps, from low to high guidance."""
    figure = new_figure(4.7)
    axes = figure.add_subplot()
    paths = _published_paths(published, precision, recall)
    names = legend_names([curve for curve, _, _ in paths])
    for i, ((curve, x, y), label) in enumerate(zip(paths, names, strict=True)):
        _grey(axes, x, y, label, i)
        _ends(axes, x, y, curve.guidance, GREY)
    for series in lines.plain(data, precision.dataset):
        style = styles[series.method]
        x, y, at = [], [], []
        for g in data.guidances(precision.dataset):
            pair = data.cell(recall, series, g), data.cell(precision, series, g)
            if all(cell.found for cell in pair):
                x.append(pair[0].mean)
                y.append(pair[1].mean)
                at.append(g)
                _error_bars(axes, *pair, style.color)
        if not at:
            continue
        axes.plot(
            x,
            y,
            color=style.color,
            marker=style.marker,
            ls=style.linestyle,
            fillstyle=marker_fill(data.variant(series)),
            label=plain(series.label),
            zorder=3,
        )
        _ends(axes, x, y, at, style.color)
    floor = data.floor(recall), data.floor(precision)
    if all(cell.found for cell in floor):
        x0, y0 = (cell.mean for cell in floor)
        _error_bars(axes, *floor, GREY)
        label = "real vs. real (floor)"
        axes.plot([x0], [y0], color=GREY, marker="*", ms=10, ls="none", label=label, zorder=2)
    axes.margins(0.13)
    axes.set_xlabel(axis_label(recall))
    axes.set_ylabel(axis_label(precision))
    axes.set_title(plain(precision.dataset), loc="left")
    _legend(figure, axes)
    return figure


def _error_bars(axes: Axes, across: Cell, up: Cell, colour: str) -> None:
    """Bars of the intervals of a point, in both directions as far as they are known."""
    x, y = across.mean, up.mean
    line: dict[str, Any] = {"color": colour, "lw": 0.8, "alpha": 0.6, "zorder": 2.5}
    if across.band is not None:
        axes.hlines([y], [across.band[0]], [across.band[1]], **line)
    if up.band is not None:
        axes.vlines([x], [up.band[0]], [up.band[1]], **line)


def _published_paths(
    published: tuple[Published, ...], precision: Column, recall: Column
) -> list[tuple[Curve, list[float], list[float]]]:
    """Return (curve, recalls, precisions) where a source states both at a guidance scale."""
    out = []
    recalls = {(c.method, c.source): c for c in curves(published, recall)}
    for curve in curves(published, precision):
        other = recalls.get((curve.method, curve.source))
        if other is None:
            continue
        x = dict(zip(other.guidance, other.values, strict=True))
        y = dict(zip(curve.guidance, curve.values, strict=True))
        both = tuple(g for g in curve.guidance if g in x)
        if both:
            values = tuple(y[g] for g in both)
            kept = replace(curve, guidance=both, values=values)
            out.append((kept, [x[g] for g in both], list(values)))
    return out


def _ends(
    axes: Axes, x: Sequence[float], y: Sequence[float], at: Sequence[float], colour: str
) -> None:
    """Write g at both ends of a path, on the side that the path does not leave by."""
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
