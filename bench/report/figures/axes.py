"""Labels, scales, intervals and legends of axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.figures.style import plain
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column
from metrics.about import Scale

GUIDANCE = "guidance g (1 = off)"
LOG_DECADES = 1.5
FLATTENED = 1 / 8
"""Of an axis: all lines but one are in less of it."""
Span = tuple[float, float]


def axis_label(column: Column, width: int = 60) -> str:
    """Such as "FD ↓ (classifier features, n = 300)", in lines of at most `width` characters."""
    features = f"{column.extractor} features, " if column.extractor else ""
    name = f"{column.label} {column.arrow}".strip()
    measured = f"({features}n = {column.n})"
    if len(name) + len(measured) < width:
        return plain(f"{name} {measured}")
    return "\n".join(plain(line) for line in (*textwrap.wrap(name, width), measured))


def value_scale(
    lines: Sequence[Sequence[float]], decades: float = LOG_DECADES, wanted: Scale = "auto"
) -> tuple[str, float]:
    """Scale of a value axis for some lines and, for symlog, where it becomes linear.

    Logarithmic if the metric asks for it or, by default, if positive values span more than
    `decades` or one line would flatten all others; symmetric-logarithmic with values of 0 or below.
    """
    values = [v for line in lines for v in line]
    positive = [v for v in values if v > 0]
    if wanted == "linear" or not positive:
        return "linear", 0.0
    least, most = min(values), max(values)
    wide = wanted == "log" or math.log10(most) - math.log10(min(positive)) > decades
    if least > 0 and (wide or _rest(lines)):
        return "log", 0.0
    if least == 0 and wide:
        return "symlog", min(positive)
    rest = [abs(v) for v in _rest(lines) if v]
    return ("symlog", max(rest)) if rest else ("linear", 0.0)


def _rest(lines: Sequence[Sequence[float]]) -> list[float]:
    """The values of all lines but one, if that one flattens them on a linear axis; else []."""
    known = sorted((line for line in lines if line), key=lambda line: max(line) - min(line))
    values, rest = ([v for line in some for v in line] for some in (known, known[:-1]))
    if len(set(rest)) < 2 or max(rest) - min(rest) > FLATTENED * (max(values) - min(values)):
        return []
    return rest


def value_axis(
    axes: Axes,
    column: Column,
    lines: Sequence[Sequence[float]],
    decades: float = LOG_DECADES,
    fine: bool = False,
) -> str:
    """Set the scale of a measure's axis and return it; `fine` has numbers within decades too."""
    scale, linear_below = value_scale(lines, decades, column.scale)
    axes.set_yscale(scale, **({"linthresh": linear_below} if scale == "symlog" else {}))
    if scale != "linear":
        plain_numbers(axes.yaxis, [v for line in lines for v in line] if fine else ())
    return scale


def plain_numbers(axis: Axis, values: Sequence[float] = ()) -> None:
    """Numbers such as 0.01 and 200, also at 2 and 5 times powers of ten if `values` span few."""
    if values and min(values) > 0 and max(values) < 1000 * min(values):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def uncertainty(axes: Axes, cells: Mapping[float, Cell], colour: str, zorder: float) -> None:
    """Thin lines of the seeds or runs of a line by guidance; shaded intervals of single runs."""
    _band(axes, cells, colour, zorder)
    found: dict[object, dict[float, float]] = {}
    for g, cell in cells.items():
        if len(cell.blocks) > 1:
            for source, value in zip(cell.sources, cell.blocks, strict=True):
                found.setdefault(source, {})[g] = value
    if found:
        paths = [list(points.items()) for points in found.values()]
        look: dict[str, Any] = {"colors": colour, "linewidths": 0.6, "alpha": 0.6, "zorder": zorder}
        axes.add_collection(LineCollection(paths, **look))


def _band(axes: Axes, cells: Mapping[float, Cell], colour: str, zorder: float) -> None:
    """Shade the intervals of single runs; a point between two without one gets a bar."""
    bands = {g: cell.band if len(cell.blocks) == 1 else None for g, cell in cells.items()}
    if not any(bands.values()):
        return
    ends = [band or (np.nan, np.nan) for band in bands.values()]
    low, high = (np.array(side, float) for side in zip(*ends, strict=True))
    if axes.get_yscale() == "log":
        # An end below 0 cannot be drawn: half the lowest mean is its place.
        low = np.maximum(low, min(cell.mean for cell in cells.values()) / 2)
    x = list(bands)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, zorder=zorder)
    known = [False, *np.isfinite(low), False]
    alone = [i for i in range(len(x)) if known[i + 1] and not known[i] and not known[i + 2]]
    if alone:
        at = [x[i] for i in alone]
        axes.vlines(at, low[alone], high[alone], color=colour, lw=1.2, zorder=zorder)


def bars(
    axes: Axes, at: tuple[float, float], across: Span | None, up: Span | None, **look: Any
) -> None:
    """Bars of the known intervals of a point, in both directions."""
    x, y = at
    if across is not None and across[0] < across[1]:
        axes.hlines([y], [across[0]], [across[1]], **look)
    if up is not None:
        low = max(up[0], y / 2) if axes.get_yscale() == "log" else up[0]
        axes.vlines([x], [low], [up[1]], **look)


def legend_below(figure: Figure | SubFigure, entries: Sequence[tuple[Any, Any]], most: int) -> None:
    """A legend of (handle, label) in at most `most` columns; the figure grows to fit it."""
    if not entries:
        return
    handles, labels = zip(*entries, strict=True)
    longest = max(map(len, labels))
    columns = max(1, min(most, len(labels), int(100 / (longest + 8))))
    rows = -(-len(labels) // columns)
    whole = figure.figure
    whole.set_figheight(whole.get_figheight() + 0.17 * max(0, rows - 2))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
