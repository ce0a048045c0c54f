"""A measure of every line against another axis than guidance: one panel per line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from bench.report.figures.axes import axis_label, bars, plain_numbers, value_axis, value_scale
from bench.report.figures.style import (
    CFG_IN_PANEL,
    FLOOR_IN_PANEL,
    OTHERS,
    line_style,
    new_figure,
    plain,
)
from bench.report.looks import line_looks
from bench.report.numbers.across import GUIDANCE, Across
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR_LABEL

COLUMNS = 4
ROW, ROOM = 1.6, 1.2
"""Inches of a row of panels, and around all of them."""


def along(data: Data, column: Column, lines: Sequence[Series], x: Across) -> Figure:
    """A panel per line, in colour over all others; the line of CFG is dashed in all panels.

    The points of a line are joined in the order of guidance.
    """
    looks = line_looks(data)
    paths = {s: _path(data, column, s, x) for s in lines}
    shown = [s for s in lines if paths[s]]
    columns = min(COLUMNS, len(shown))
    count = math.ceil(len(shown) / columns)
    figure = new_figure(ROW * count + ROOM)
    grid = figure.subplots(count, columns, squeeze=False, sharex=True, sharey=True)
    floor = data.floor(column)
    drawn = [[y for _, y in path] for path in paths.values() if path]
    value_axis(grid[0][0], column, [*drawn, *([[floor.mean]] if floor.found else [])], fine=True)
    places = [[at for at, _ in paths[s]] for s in shown]
    scale, linear_below = value_scale(places, wanted="auto" if x.name != GUIDANCE else "linear")
    grid[0][0].set_xscale(scale, **({"linthresh": linear_below} if scale == "symlog" else {}))
    if scale != "linear":
        axis = grid[0][0].xaxis
        plain_numbers(axis)
        powers = np.floor(np.log10([v for line in places for v in line if v > 0]))
        every = max(1, int((powers.max() - powers.min()) // 2))
        ticks = 10.0 ** np.arange(powers.max(), powers.min(), -every)
        axis.set_major_locator(FixedLocator([*ticks, *([0.0] if scale == "symlog" else [])]))
    for axes, series in zip(grid.flat, shown, strict=False):
        others = [paths[s] for s in shown if s != series]
        axes.add_collection(LineCollection(others, colors=OTHERS, linewidths=0.7, zorder=1))
        if floor.found:
            axes.axhline(floor.mean, **FLOOR_IN_PANEL, lw=1.0, zorder=1.5)
        if series.rule and paths.get(series.base):
            axes.plot(*zip(*paths[series.base], strict=True), **CFG_IN_PANEL, zorder=2)
        look = replace(looks[series], dashes=(), size=0)
        for g, cell in data.running(column, series).items():
            at = x.at(data, series, g)
            if at is not None:
                span = None
                if x.measure is not None:
                    span = data.cell(x.measure, series, g).band
                bars(axes, (at, cell.mean), span, cell.band, color=look.colour, lw=0.7, alpha=0.5)
        axes.plot(*zip(*paths[series], strict=True), **{**line_style(look), "ms": 3}, zorder=3)
        axes.set_title(plain(series.rule or series.label), fontsize=7, color=look.colour)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for j in range(columns):
        grid[(len(shown) - 1 - j) // columns][j].tick_params(labelbottom=True)
    figure.supxlabel(plain(x.label), fontsize=9)
    figure.supylabel(axis_label(column, width=50), fontsize=8.5)
    figure.suptitle(plain(column.dataset), fontsize=9.5, x=0.01, ha="left")
    handles = [Line2D([], [], **CFG_IN_PANEL, label="the same under CFG"),
               Line2D([], [], color=OTHERS, label="the other lines")]  # fmt: skip
    if floor.found:
        handles.append(Line2D([], [], **FLOOR_IN_PANEL, label=FLOOR_LABEL))
    figure.legend(handles=handles, loc="outside upper right", ncols=3, fontsize=7)
    return figure


def _path(data: Data, column: Column, series: Series, x: Across) -> list[tuple[float, float]]:
    """The points of a line by guidance."""
    found = {g: x.at(data, series, g) for g in data.running(column, series)}
    cells = data.running(column, series)
    return [(at, cells[g].mean) for g, at in found.items() if at is not None]
