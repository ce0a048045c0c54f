"""Samples of toy data: densities in one dimension, point clouds in two."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from bench.experiment.rows import Density, Points
from bench.report.figures.previews import P, pick, previews, trouble
from bench.report.figures.style import new_figure, palette, plain
from bench.report.numbers.frame import Data, Series

MOST_COLUMNS = 5
RULE_HEIGHT = 0.9
"""Inches that a row has where there is one a rule, which it is then named by."""
MOST_PEAKS = 3.0  # height of a density panel, in peaks of the exact density
_HATCHES = ("/////", "\\\\\\\\\\", "....", "xxxx")
_DOTS = ("o", "^", "s", "D")


def densities(
    data: Data,
    dataset: str,
    lines: Sequence[Series] = (),
    scales: Sequence[float] = (),
    height: float = 1.15,
) -> Figure:
    """Histograms of 1-D samples by class against the exact density: lines by guidance.

    By default of all lines, at scales spread over all; a row is `height` inches.
    """
    shown, scales = _shown(data, lines or data.series(dataset), scales, Density)
    figure, panels = _panels(data, shown, scales, height=height, sharey=True)
    colours = palette()
    span = _span([p for some in shown.values() for p in some.values()])
    x = np.linspace(*span, 600)
    classes, tallest, highest = 0, 0.0, 0.0
    for (series, g), axes in panels.items():
        preview = shown[series][g]
        edges, width = np.asarray(preview.edges), np.diff(preview.edges)
        axes.set_xlim(*span)
        classes = max(classes, len(preview.counts))
        for k, (counts, means) in enumerate(zip(preview.counts, preview.means, strict=True)):
            heights = np.asarray(counts) / (max(sum(counts), 1) * width)
            # The outermost bins count what lies beyond them too: as bars they would be spikes.
            heights[[0, -1]] = 0.0
            highest = max(highest, float(heights.max()))
            axes.stairs(
                heights,
                edges,
                fill=True,
                facecolor=_pale(colours[k % 10]),
                edgecolor=colours[k % 10],
                hatch=_HATCHES[k % len(_HATCHES)],
                lw=0.4,
            )
            exact = np.mean([norm.pdf(x, mean, preview.std) for mean in means], axis=0)
            axes.plot(x, exact, color="black", lw=1.0)
            tallest = max(tallest, float(exact.max()))
        beyond = _beyond(preview)
        if beyond >= 0.005:
            axes.text(0.5, 0.86, f"{beyond:.0%} beyond", transform=axes.transAxes, fontsize=8,
                      ha="center")  # fmt: skip
    # A method that collapses to a point must not flatten all others.
    for axes in panels.values():
        axes.set_ylim(0, 1.05 * min(highest, MOST_PEAKS * tallest))
    handles: list[Any] = [
        Patch(
            facecolor=_pale(colours[k % 10]),
            edgecolor=colours[k % 10],
            hatch=_HATCHES[k % len(_HATCHES)],
            label=f"samples of class {k}",
        )
        for k in range(classes)
    ]
    handles.append(Line2D([], [], color="black", lw=1.0, label="exact density"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    _finish(figure, dataset)
    figure.supylabel("density by class (1 / data units)", fontsize=9)
    return figure


def clouds(
    data: Data,
    dataset: str,
    lines: Sequence[Series] = (),
    scales: Sequence[float] = (),
    height: float = 0.0,
) -> Figure:
    """2-D samples by class with the 1 and 3 sigma circles of the modes: lines by guidance.

    By default of all lines, at scales spread over all; a row is `height` inches, or 0 for square
    panels.
    """
    shown, scales = _shown(data, lines or data.series(dataset), scales, Points)
    columns = max(len(scales), 3)
    figure, panels = _panels(data, shown, scales, height=height or 5.7 / columns, sharey=True)
    colours = palette()
    limits = _limits([p for some in shown.values() for p in some.values()])
    classes = 0
    for (series, g), axes in panels.items():
        preview = shown[series][g]
        xy, labels = np.asarray(preview.xy).reshape(-1, 2), np.asarray(preview.labels)
        classes = max(classes, len(preview.means))
        for k, modes in enumerate(preview.means):
            own = xy[labels == k]
            colour = colours[k % 10]
            dot = _DOTS[k % len(_DOTS)]
            axes.scatter(own[:, 0], own[:, 1], s=5, color=colour, marker=dot, alpha=0.55, lw=0)
            for mode in modes:
                for radius, line in ((1, "-"), (3, "--")):
                    circle = Circle(mode, radius * preview.std, fill=False, ls=line, lw=0.8)
                    axes.add_patch(circle)
        outside = int(np.sum(np.any((xy < limits[0]) | (xy > limits[1]), axis=1)))
        if outside:
            axes.text(0.03, 0.03, f"{outside} outside", transform=axes.transAxes, fontsize=8)
        axes.set(xlim=(limits[0][0], limits[1][0]), ylim=(limits[0][1], limits[1][1]))
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    handles: list[Any] = [
        Line2D([], [], color=colours[k % 10], marker=_DOTS[k % len(_DOTS)], ls="none", label=str(k))
        for k in range(classes)
    ]
    for handle in handles:
        handle.set_label(f"class {handle.get_label()}")
    handles.append(
        Line2D([], [], color="black", lw=0.8, label="1\N{GREEK SMALL LETTER SIGMA} of a mode")
    )
    handles.append(
        Line2D(
            [], [], color="black", lw=0.8, ls="--", label="3\N{GREEK SMALL LETTER SIGMA} of a mode"
        )
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    _finish(figure, dataset)
    figure.supylabel("y (data units)", fontsize=9)
    return figure


def _finish(figure: Figure, dataset: str) -> None:
    """Name the data set and the x axes, each below its column: a common name meets the legend."""
    figure.suptitle(plain(dataset), fontsize=9.5)
    for axes in figure.axes:
        grid = axes.get_subplotspec()
        if grid is not None and grid.is_last_row():
            axes.set_xlabel("x (data units)", fontsize=8)


def _beyond(preview: Density) -> float:
    """Share of the samples in the outermost bins, which hold all that lies further out."""
    counts = np.asarray(preview.counts)
    return float(counts[:, [0, -1]].sum() / max(counts.sum(), 1))


def _span(found: list[Density]) -> tuple[float, float]:
    """Interval that holds all counted samples and the exact density."""
    low, high = [], []
    for preview in found:
        edges, counts = np.asarray(preview.edges), np.sum(preview.counts, axis=0)
        filled = np.flatnonzero(counts)
        modes = [mode for means in preview.means for mode in means]
        low += [min(modes) - 4 * preview.std, *edges[filled[:1]]]
        high += [max(modes) + 4 * preview.std, *edges[filled[-1:] + 1]]
    pad = 0.03 * (max(high) - min(low))
    return float(min(low)) - pad, float(max(high)) + pad


def _pale(colour: str) -> tuple[float, float, float]:
    """Return the colour mixed with white, so that hatching and the exact curve stand out on it."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (0.45 + 0.55 * r, 0.45 + 0.55 * g, 0.45 + 0.55 * b)


def _shown(
    data: Data, lines: Sequence[Series], scales: Sequence[float], kind: type[P]
) -> tuple[dict[Series, dict[float, P]], Sequence[float]]:
    """Previews by line and guidance scale, and the scales to show."""
    every = {series: previews(data, series, kind) for series in lines}
    have = {series: found for series, found in every.items() if found}
    known = sorted({g for found in have.values() for g in found})
    return have, scales or pick(known, MOST_COLUMNS)


def _panels(
    data: Data,
    shown: dict[Series, dict[float, P]],
    scales: Sequence[float],
    height: float,
    sharey: bool,
) -> tuple[Figure, dict[tuple[Series, float], Axes]]:
    """Lay out one row a line and one column a scale; return the panels that have samples."""
    by_rule = height <= RULE_HEIGHT
    figure = new_figure(height * len(shown) + 1.1)
    grid = figure.subplots(len(shown), len(scales), squeeze=False, sharex=True, sharey=sharey)
    panels: dict[tuple[Series, float], Axes] = {}
    for i, (series, found) in enumerate(shown.items()):
        for j, g in enumerate(scales):
            axes = grid[i][j]
            axes.grid(visible=False)
            if i == 0:
                axes.set_title(f"g = {g:g}", fontsize=9)
            if j == 0 and by_rule:
                name = plain(series.rule or "cfg")
                axes.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
            elif j == 0:
                label = textwrap.fill(plain(series.label), 18)
                axes.set_ylabel(label, fontsize=8)
            if g in found:
                panels[series, g] = axes
            else:
                _explain(axes, trouble(data, series, g) or "not run", 66 // len(scales))
    return figure, panels


def _explain(axes: Axes, reason: str, width: int) -> None:
    """Say in an empty panel why it is empty."""
    text = textwrap.fill(plain(reason), width, max_lines=4, placeholder=" …")
    axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=8, ha="center", va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(color="none")


def _limits(found: list[Points]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners that hold all samples, but no more than twice the extent of the exact modes."""
    modes = np.array([mode for p in found for some in p.means for mode in some], dtype=float)
    std = max(p.std for p in found)
    low, high = modes.min(axis=0) - 4 * std, modes.max(axis=0) + 4 * std
    room = (high - low) / 2
    xy = np.concatenate([np.asarray(p.xy, dtype=float).reshape(-1, 2) for p in found])
    pad = 0.06 * (high - low)
    return (
        np.minimum(low, np.maximum(xy.min(axis=0) - pad, low - room)),
        np.maximum(high, np.minimum(xy.max(axis=0) + pad, high + room)),
    )
