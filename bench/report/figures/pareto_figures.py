"""Fronts of lines: precision against recall, and a measure against its costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from bench.experiment.formatting import duration
from bench.report.figures.axes import axis_label, bars, legend_below, plain_numbers, value_axis
from bench.report.figures.direct_labels import Label, put_labels
from bench.report.figures.style import FRONT, MARKERS, OFF_FRONT, new_figure, plain, point_style
from bench.report.looks import Look, line_looks
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.pareto import COSTS, Point, placed_cost, placed_quality

ON_FRONT = "front"
MOST_LABELS = 6
"""With more, labels are short."""


def quality_front(data: Data, precision: Column, recall: Column) -> Figure:
    """Precision against recall of all lines at all scales, and their front."""
    placed = placed_quality(data, precision, recall)
    figure = new_figure(5.0)
    axes = figure.add_subplot()
    looks = _looks(data, placed)
    _scatter(axes, placed, looks)
    _front(axes, placed, "steps-pre")
    axes.margins(0.08)
    axes.set_xlabel(axis_label(recall))
    axes.set_ylabel(axis_label(precision))
    axes.set_title(plain(precision.dataset), loc="left")
    _key(figure, data, looks)
    _label(figure, axes, data, placed, looks)
    return figure


def cost_fronts(data: Data, column: Column) -> Figure:
    """A measure against evaluations and against time per image, and their fronts."""
    found = {what: placed_cost(data, column, what) for what in COSTS}
    found = {what: placed for what, placed in found.items() if placed}
    looks = _looks(data, [p for placed in found.values() for p in placed])
    figure = new_figure(2.6 * len(found) + 0.8)
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (what, placed) in zip(panels, found.items(), strict=True):
        lines = {p.series: [q.y for q in placed if q.series == p.series] for p in placed}
        value_axis(axes, column, list(lines.values()), 0.6, fine=True)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis, [p.x for p in placed])
        if what == "seconds":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: duration(x)))
        # Limits that matplotlib chooses may be equal for costs that almost are.
        low, high = min(p.x for p in placed), max(p.x for p in placed)
        room = 2.0 if high < 1.01 * low else (high / low) ** 0.12
        axes.set_xlim(low / room, high * room)
        _scatter(axes, placed, looks)
        _front(axes, placed, "steps-post")
        axes.margins(0.12)
        axes.set_xlabel(COSTS[what])
        axes.set_ylabel(axis_label(column, width=30))
    panels[0].set_title(plain(column.dataset), loc="left")
    _key(figure, data, looks)
    for axes, placed in zip(panels, found.values(), strict=True):
        _label(figure, axes, data, placed, looks)
    return figure


def _looks(data: Data, placed: Sequence[Point]) -> dict[Series, Look]:
    """Looks of the lines that are on the front, in the order of lines."""
    on = {p.series for p in placed if p.on_front}
    return {s: look for s, look in line_looks(data).items() if s in on}


def _scatter(axes: Axes, placed: Sequence[Point], looks: dict[Series, Look]) -> None:
    """Points in the colours of their lines; grey for lines that are not on the front."""
    grey = [p for p in placed if p.series not in looks]
    axes.scatter([p.x for p in grey], [p.y for p in grey], s=7, color=OFF_FRONT, lw=0, zorder=1)
    for series, look in looks.items():
        style, own = point_style(look), [p for p in placed if p.series == series]
        off = [p for p in own if not p.on_front]
        axes.scatter(
            [p.x for p in off], [p.y for p in off],
            s=9, color=look.colour, marker=MARKERS[look.mark], alpha=0.35, lw=0, zorder=2,
        )  # fmt: skip
        for p in own:
            if p.on_front:
                bar: dict[str, Any] = {"color": look.colour, "lw": 0.7, "alpha": 0.5, "zorder": 3}
                bars(axes, (p.x, p.y), p.x_span, p.y_span, **bar)
                filled = "full" if p.certain else "none"
                axes.plot([p.x], [p.y], **style, zorder=4, fillstyle=filled)


def _front(axes: Axes, placed: Sequence[Point], kind: str) -> None:
    on = sorted({(p.x, p.y) for p in placed if p.on_front})
    x, y = zip(*on, strict=True)
    axes.plot(x, y, drawstyle=kind, color=FRONT, lw=0.9, label=ON_FRONT, zorder=1.5)


def _key(figure: Figure, data: Data, looks: dict[Series, Look]) -> None:
    handles = [
        Line2D([], [], **point_style(look), label=plain(data.short_name(s)))
        for s, look in looks.items()
    ]
    handles += [
        Line2D([], [], color=FRONT, lw=0.9, label=ON_FRONT),
        Line2D([], [], color=OFF_FRONT, marker="o", ms=3, ls="none", label="all other lines"),
    ]
    legend_below(figure, [(handle, handle.get_label()) for handle in handles], 5)


def _label(
    figure: Figure,
    axes: Axes,
    data: Data,
    placed: Sequence[Point],
    looks: dict[Series, Look],
) -> None:
    known = data.guidances(placed[0].series.dataset)
    runs = list(_runs(placed))
    crowded = len(runs) > MOST_LABELS
    if crowded:  # one per line, without its name, which is in the key
        longest: dict[Series, list[Point]] = {}
        for run in runs:
            line = run[0].series
            longest[line] = max(longest.get(line, []), run, key=len)
        runs = list(longest.values())
    labels = [
        Label(
            f"g = {_scales(run, known)}"
            if crowded
            else f"{data.short_name(middle.series)}, g = {_scales(run, known)}",
            (middle.x, middle.y),
            looks[middle.series].colour,
        )
        for run in runs
        for middle in [run[len(run) // 2]]
    ]
    kept = [(p.x, p.y) for p in placed if p.series in looks]
    put_labels(figure, axes, labels, np.array([*kept, *_along(axes)], float).reshape(-1, 2))


def _along(axes: Axes) -> list[tuple[float, float]]:
    """Points along the steps of the front, which labels must not cover."""
    (line,) = [x for x in axes.lines if x.get_label() == ON_FRONT]
    corners = STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_data())
    path = axes.transData.transform(np.transpose(corners))
    steps = [np.linspace(a, b, 12) for a, b in pairwise(path)]
    if not steps:
        return []
    return [(x, y) for x, y in axes.transData.inverted().transform(np.concatenate(steps))]


def _runs(placed: Sequence[Point]) -> Iterator[list[Point]]:
    """Points along the front, grouped into neighbours of one line."""
    on = sorted((p for p in placed if p.on_front), key=lambda p: (p.x, p.y))
    run: list[Point] = []
    for p in on:
        if run and run[-1].series != p.series:
            yield run
            run = []
        run.append(p)
    if run:
        yield run


def _scales(run: Sequence[Point], known: Sequence[float]) -> str:
    """Such as "4–13" for all `known` scales from 4 to 13, else "4, 13"."""
    scales = sorted({p.guidance for p in run})
    between = [g for g in known if scales[0] <= g <= scales[-1]]
    if len(scales) > 2 and scales == between:
        return f"{scales[0]:g}\N{EN DASH}{scales[-1]:g}"
    if len(scales) > 4:
        return f"{scales[0]:g}, {scales[1]:g}, …, {scales[-1]:g}"
    return ", ".join(f"{g:g}" for g in scales)
