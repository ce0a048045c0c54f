"""Guidance rules of one method: one panel per rule, in colour over all the others."""

from __future__ import annotations

import math
import textwrap
from dataclasses import replace

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.report.figures.axes import GUIDANCE, axis_label, uncertainty, value_axis
from bench.report.figures.style import (
    CFG_IN_PANEL,
    FLOOR_IN_PANEL,
    OTHERS,
    WIDTH,
    line_style,
    new_figure,
    plain,
)
from bench.report.looks import line_looks
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR_LABEL

MOST_COLUMNS = 5
ROW = {1: 2.6, 2: 1.6}
"""Inches of a row of panels, by the number of rows, if there are few."""
LEFT, TOP, BOTTOM = 0.8, 0.5, 0.62
"""Inches around the panels: for values, for the title, for scales and legend."""
DECADES = 1.0
"""Fewer than for a single curve: good rules would lie flat at the bottom."""
SMALL = 6.0
"""Points of a title in two lines."""
WIDE = 0.62
"""Width of a bold letter in its size."""


def rule_panels(data: Data, column: Column, base: Series) -> Figure:
    """A panel per rule of the method of `base`, whose line under CFG is dashed in all of them."""
    lines = data.ruled(column.dataset)[base]
    cells = {s: data.cells(column, s) for s in (base, *lines)}
    shown = [s for s in lines if cells[s]]
    columns = min(MOST_COLUMNS, len(shown))
    count = math.ceil(len(shown) / columns)
    height = ROW.get(count, 1.18) * count + TOP + BOTTOM
    figure = new_figure(height)
    # By hand: computing a layout takes longer than drawing so many panels.
    figure.set_layout_engine("none")
    room = {
        "left": LEFT / WIDTH,
        "right": 1 - 0.08 / WIDTH,
        "top": 1 - TOP / height,
        "bottom": BOTTOM / height,
        "wspace": 0.1,
        "hspace": 0.3,
    }
    grid = figure.subplots(
        count, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=room
    )
    looks = line_looks(data)
    drawn = [[c.mean for c in found.values()] for found in cells.values()]
    floor = data.floor(column)
    drawn += [[floor.mean]] if floor.found else []
    values = [v for line in drawn for v in line]
    scale = value_axis(grid[0][0], column, drawn, DECADES, fine=True)
    grid[0][0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    paths = {s: [(g, c.mean) for g, c in found.items()] for s, found in cells.items()}
    for axes, series in zip(grid.flat, shown, strict=False):
        others = [paths[s] for s in shown if s != series]
        axes.add_collection(LineCollection(others, colors=OTHERS, linewidths=0.7, zorder=1))
        if floor.found:
            axes.axhline(floor.mean, **FLOOR_IN_PANEL, lw=1.0, zorder=1.5)
        if paths[base]:
            axes.plot(*zip(*paths[base], strict=True), **CFG_IN_PANEL, zorder=2)
        look = replace(looks[series], dashes=(), size=0)  # no other line is in colour
        uncertainty(axes, cells[series], look.colour, 1.8)
        style = {**line_style(look), "ms": 3, "lw": 1.4}
        axes.plot(*zip(*paths[series], strict=True), **style, zorder=3)
        title, size = _title(series.rule, columns)
        axes.set_title(title, fontsize=size, pad=2, color=look.colour, weight="bold")
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for j in range(columns):
        last = grid[(len(shown) - 1 - j) // columns][j]
        last.tick_params(labelbottom=True)
        last.set_xlabel("g", fontsize=8, labelpad=1)
    scales = data.guidances(column.dataset)
    grid[0][0].set_xlim(min(scales) - 0.6, max(scales) + 0.6)
    grid[0][0].set_ylim(*_limits(values, scale))
    name = plain(f"{column.dataset}: {base.label}, by rule, against {GUIDANCE}")
    figure.suptitle(name, fontsize=9.5, x=0.01, y=1 - 0.06 / height, ha="left", va="top")
    figure.supylabel(axis_label(column, width=50), fontsize=8.5, x=0.01, ha="left")
    _key(figure, base, bool(paths[base]), len(shown) > 1, bool(floor.found))
    return figure


def _title(rule: str, columns: int) -> tuple[str, float]:
    """A rule's name and its font size; long names have two lines in smaller letters.

    A name that is still too long ends in an ellipsis; the tables have it in full.
    """
    inches = (WIDTH - LEFT) / columns
    if len(rule) * 8 * WIDE <= inches * 72:
        return plain(rule), 8.0
    lines = textwrap.wrap(rule, int(inches * 72 / (SMALL * WIDE)), max_lines=2, placeholder="…")
    return "\n".join(plain(line) for line in lines), SMALL


def _limits(values: list[float], scale: str) -> tuple[float, float]:
    """Limits with room for all means; a very wide interval must not flatten them."""
    low, high = min(values), max(values)
    if scale == "log":
        pad = (high / low) ** 0.06
        return low / pad, high * pad
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return (low - pad if scale == "linear" or low < 0 else 0.0), high + pad


def _key(figure: Figure, base: Series, reference: bool, several: bool, floor: bool) -> None:
    name = f"{base.method} [{base.run}]" if base.run else base.method
    handles = []
    if reference:
        label = plain(f"{name} + cfg")
        handles.append(Line2D([], [], **CFG_IN_PANEL, label=label))
    if several:
        handles.append(Line2D([], [], color=OTHERS, lw=1.2, label="the other rules"))
    if floor:
        handles.append(Line2D([], [], **FLOOR_IN_PANEL, label=FLOOR_LABEL))
    figure.legend(handles=handles, loc="lower center", ncols=3)
