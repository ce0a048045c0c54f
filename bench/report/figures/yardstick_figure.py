"""The target, the g-tilted density, and the samples of rules for one class of toy data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.experiment.rows import Density, Points, Preview
from bench.report.figures.panels import (
    CLASS,
    Array,
    Grid,
    class_span,
    finish,
    frame_plane,
    heights,
    lay_out,
    outside,
    pale,
    positions,
)
from bench.report.figures.style import (
    LEARNT,
    SAMPLED,
    TARGET,
    TILTED,
    TILTED_CONTOUR,
    TILTED_DASHES,
    plain,
)
from bench.report.looks import method_looks
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.previews import P, pick, previews
from bench.report.numbers.yardstick import CFG, EXACT, known_density, partners, rule_of
from metrics.base import ExactMixture
from metrics.tilt import Tilted, tilted

COLUMNS = 4
MOST_ROWS = 10
"""Rules shown: CFG, and those whose samples are nearest to the density of the class."""
MOST_PEAKS = 2.2
"""Height of a panel in peaks of the target: a collapsed rule must not flatten the others."""
MASSES = (0.3935, 0.9889)
"""Of a round Gaussian in the plane within one and three standard deviations."""


def densities(data: Data, dataset: str) -> Figure:
    """Histograms in one dimension: rules by guidance."""
    rows, scales, others = _shown(data, dataset, Density)
    exact = _exact(rows)
    figure, grid = _grid(rows, scales, 1.15)
    targets = {g: tilted(exact, CLASS, g) for g in {1.0, *scales}}
    span = class_span(_framing(rows, others, scales), exact.means[CLASS], exact.std)
    peak = float(np.exp(targets[1.0].log_density).max())
    tallest = max(float(np.exp(t.log_density).max()) for t in targets.values())
    highest = 0.0
    colours = {m: look.colour for m, look in method_looks(data.methods).items()}
    for row, (series, found) in zip(grid, rows.items(), strict=True):
        for axes, g in zip(row, scales, strict=True):
            axes.set_xlim(*span)
            axes.yaxis.set_major_locator(MaxNLocator(2))
            axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            if g in found:
                bars, edges = heights(found[g], CLASS)
                highest = max(highest, float(bars.max()))
                axes.stairs(bars, edges, fill=True, color=pale(colours[EXACT], 0.4), lw=0)
            for other, seen in others[series].items():
                if g in seen:
                    axes.stairs(*heights(seen[g], CLASS), color=colours[other.method], lw=0.9)
            beyond = [(EXACT, found), *((o.method, seen) for o, seen in others[series].items())]
            for place, (method, seen) in enumerate(beyond):
                if g in seen:
                    outside(axes, seen[g], span, colours[method], place)
            for density, look in ((targets[1.0], {"color": TARGET, "lw": 1.1}),
                                  (targets[g], _tilted(1.3))):  # fmt: skip
                axes.plot(density.axes[0], np.exp(density.log_density), **look)
    for axes in grid.flat:
        axes.set_ylim(0, 1.05 * max(tallest, min(highest, MOST_PEAKS * peak)))
    handles: list[Any] = [
        Line2D([], [], color=TARGET, lw=1.1, label="target p(x|c)"),
        Line2D([], [], **_tilted(1.3), label="g-tilted density"),
        Patch(color=pale(colours[EXACT], 0.4), label="exact denoiser + rule"),
    ]
    handles += [
        Line2D([], [], color=colours[m], lw=0.8, label=label) for m, label in _lines(others).items()
    ]
    _finish(figure, dataset, "density (1 / data units)", handles)
    return figure


def planes(data: Data, dataset: str) -> Figure:
    """Samples in two dimensions: rules by guidance."""
    rows, scales, others = _shown(data, dataset, Points)
    exact = _exact(rows)
    figure, grid = _grid(rows, scales, 1.45)
    colours = {m: look.colour for m, look in method_looks(data.methods).items()}
    targets = {g: tilted(exact, CLASS, g) for g in {1.0, *scales}}
    low, high = _square(_framing(rows, others, scales), exact)
    for row, (series, found) in zip(grid, rows.items(), strict=True):
        for axes, g in zip(row, scales, strict=True):
            clouds: list[tuple[Mapping[float, Points], str, str, float]] = [
                (found, EXACT, SAMPLED, 5.0),
                *((seen, other.method, LEARNT, 6.0) for other, seen in others[series].items()),
            ]
            clouds = [cloud for cloud in clouds if g in cloud[0]]
            for seen, method, mark, size in clouds:
                axes.scatter(*_own(seen[g]).T, s=size, color=colours[method], marker=mark, lw=0.5,
                             alpha=0.7)  # fmt: skip
            _contours(axes, targets[1.0], TARGET, "solid", 0.9)
            _contours(axes, targets[g], TILTED, TILTED_CONTOUR, 1.1)
            frame_plane(axes, low, high, [_own(seen[g]) for seen, *_ in clouds])
    handles: list[Any] = [
        Line2D([], [], color=TARGET, lw=0.9, label="target p(x|c)"),
        Line2D([], [], color=TILTED, lw=1.1, ls=TILTED_CONTOUR,
               label="g-tilted density"),
        Line2D([], [], color=colours[EXACT], marker=SAMPLED, ms=3, ls="none",
               label="exact denoiser + rule"),
    ]  # fmt: skip
    handles += [
        Line2D([], [], color=colours[m], marker=LEARNT, ms=4, ls="none", label=label)
        for m, label in _lines(others).items()
    ]
    _finish(figure, dataset, "y (data units)", handles)
    return figure


def _tilted(width: float) -> dict[str, Any]:
    """How the line of the tilted density looks."""
    return {"color": TILTED, "lw": width, "ls": TILTED_DASHES}


def _shown(
    data: Data, dataset: str, kind: type[P]
) -> tuple[dict[Series, dict[float, P]], list[float], dict[Series, dict[Series, dict[float, P]]]]:
    """Samples of the exact denoiser by rule and scale, the scales, and the networks of each."""
    every = {s: previews(data, s, kind) for s in data.series(dataset)}
    rows = {s: found for s, found in every.items() if s.method == EXACT and found}
    most = max(s.steps for s in rows)
    shown = {g for found in rows.values() for g in found}
    scales = pick([g for g in data.guidances(dataset) if g in shown], COLUMNS)
    named = sorted((s for s in rows if s.steps == most), key=lambda s: (rule_of(s) != CFG, s.rule))
    near = sorted(named, key=lambda s: (rule_of(s) != CFG, _distance(data, s)))[:MOST_ROWS]
    rows = {s: rows[s] for s in named if s in near}
    others = {s: {o: every[o] for o in partners(s, list(every)) if every[o]} for s in rows}
    return rows, scales, others


def _distance(data: Data, series: Series) -> float:
    """The mean over guidance of the measure that leads where the density is known."""
    columns = [c for c in data.columns if c.dataset == series.dataset and c.about.lead]
    leading = max(columns, key=lambda c: c.about.lead, default=None)
    cells = {} if leading is None else data.running(leading, series)
    return fmean(cell.mean for cell in cells.values()) if cells else math.inf


def _exact(rows: Mapping[Series, Mapping[float, Preview]]) -> ExactMixture:
    exact = known_density(p for found in rows.values() for p in found.values())
    if exact is None:
        raise ValueError("the samples are stored with a density whose numbers are out of bounds")
    return exact


def _framing(
    rows: Mapping[Series, Mapping[float, P]],
    others: Mapping[Series, Mapping[Series, Mapping[float, P]]],
    scales: Iterable[float],
) -> list[P]:
    """The samples that fit in every panel: those of the first row, which is CFG if it was run.

    Otherwise a rule that fails at some scale would make all others too small to see.
    """
    first = next(iter(rows))
    return [found[g] for found in (rows[first], *others[first].values())
            for g in scales if g in found]  # fmt: skip


def _lines(others: Mapping[Series, Mapping[Series, object]]) -> dict[str, str]:
    """The name of each method in the legend; methods trained with guidance follow no rule."""
    ruled = {s.method for series, some in others.items() if series.rule for s in some}
    methods = dict.fromkeys(s.method for some in others.values() for s in some)
    return {m: f"{plain(m)} + rule" if m in ruled else plain(m) for m in methods}


def _grid(
    rows: Mapping[Series, object], scales: Sequence[float], height: float
) -> tuple[Figure, Grid]:
    figure, grid = lay_out(len(rows), scales, height, 1.0)
    for row, series in zip(grid, rows, strict=True):
        row[0].set_ylabel(textwrap.fill(plain(rule_of(series)), 14), fontsize=9)
    return figure, grid


def _finish(figure: Figure, dataset: str, up: str, handles: Sequence[Any]) -> None:
    title = f"{plain(dataset)}, class {CLASS}"
    finish(figure, title, up, handles, min(len(handles), 4))


def _square(found: Iterable[Points], exact: ExactMixture) -> tuple[Array, Array]:
    """Corners of a square with the class of the target, and most of its samples."""
    low, high = _reach(exact)
    xy = np.concatenate([_own(p) for p in found])
    low = np.minimum(low, np.quantile(xy, 0.005, axis=0) - exact.std / 2)
    high = np.maximum(high, np.quantile(xy, 0.995, axis=0) + exact.std / 2)
    half, centre = float((high - low).max()) / 2, (low + high) / 2
    return centre - half, centre + half


def _reach(exact: ExactMixture) -> tuple[Array, Array]:
    modes = exact.means[CLASS]
    return modes.min(axis=0) - 4 * exact.std, modes.max(axis=0) + 4 * exact.std


def _own(preview: Points) -> Array:
    own: Array = positions(preview)[np.asarray(preview.labels) == CLASS]
    return own


def _contours(axes: Axes, density: Tilted, colour: Any, line: str, width: float) -> None:
    """Curves that hold 39% and 99% of a density."""
    values = np.exp(density.log_density)
    falling = np.sort(values, axis=None)[::-1]
    held = np.cumsum(falling) / falling.sum()
    levels = sorted({float(falling[np.searchsorted(held, mass)]) for mass in MASSES})
    x, y = density.axes
    axes.contour(x, y, values.T, levels=levels, colors=[colour], linestyles=line,
                 linewidths=width)  # fmt: skip
