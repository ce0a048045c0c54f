"""Samples of toy data: densities in one dimension, point clouds in two."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator

from bench.experiment.rows import Density, Points
from bench.report.figures.figures import RULE_HEIGHT
from bench.report.figures.panels import (
    CLASS,
    Array,
    class_span,
    finish,
    frame_plane,
    heights,
    lay_out,
    outside,
    pale,
    positions,
)
from bench.report.figures.style import DOTS, HATCHES, RINGS, TARGET, plain
from bench.report.looks import CLASSES, line_looks
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.previews import P, pick, previews, trouble

MOST_COLUMNS = 5
MOST_PEAKS = 3.0  # height of a density panel, in peaks of the exact density
WIDEST = 12.0
"""Standard deviations to either side of the modes in a figure close to them."""


def densities(
    data: Data,
    dataset: str,
    lines: Sequence[Series] = (),
    scales: Sequence[float] = (),
    height: float = 1.15,
) -> Figure:
    """Histograms of 1-D samples by class against the exact density: lines by guidance.

    By default all lines, at scales spread over the range; a row is `height` inches.
    """
    shown, scales = _shown(data, lines or data.series(dataset), scales, Density)
    figure, panels = _panels(data, shown, scales, height)
    span = _span([p for some in shown.values() for p in some.values()])
    x = np.linspace(*span, 600)
    classes, tallest, highest = 0, 0.0, 0.0
    for (series, g), axes in panels.items():
        preview = shown[series][g]
        axes.set_xlim(*span)
        classes = max(classes, len(preview.counts))
        for k, means in enumerate(preview.means):
            bars, edges = heights(preview, k)
            highest = max(highest, float(bars.max()))
            axes.stairs(bars, edges, fill=True, lw=0.4, **_bar(k))
            exact = np.mean([_normal(x, mean, preview.std) for mean in means], axis=0)
            axes.plot(x, exact, color=TARGET, lw=1.0)
            tallest = max(tallest, float(exact.max()))
        beyond = _beyond(preview)
        if beyond >= 0.005:
            axes.text(0.5, 0.86, f"{beyond:.0%} beyond", transform=axes.transAxes, fontsize=8,
                      ha="center")  # fmt: skip
    # A method that collapses to a point must not flatten all others.
    for axes in panels.values():
        axes.set_ylim(0, 1.05 * min(highest, MOST_PEAKS * tallest))
    handles: list[Any] = [Patch(**_bar(k), label=f"samples of class {k}") for k in range(classes)]
    handles.append(Line2D([], [], color=TARGET, lw=1.0, label="exact density"))
    finish(figure, plain(dataset), "density by class (1 / data units)", handles, 4)
    return figure


def modes(data: Data, dataset: str, lines: Sequence[Series], scales: Sequence[float]) -> Figure:
    """Histograms of the first class of 1-D samples, close to its modes: lines by guidance.

    Each row has its own height, so that every peak is whole.
    """
    shown, _ = _shown(data, lines, scales, Density)
    figure, panels = _panels(data, shown, scales, 1.0, sharey="row")
    first = next(p for some in shown.values() for p in some.values())
    means, std = np.asarray(first.means[CLASS]), first.std
    framed = [some[g] for some in shown.values() for g in scales if g in some]
    low, high = class_span(framed, means, std)
    # A line that leaves the modes by far must not make all others too small to see.
    span = max(low, means.min() - WIDEST * std), min(high, means.max() + WIDEST * std)
    x = np.linspace(*span, 400)
    exact = np.mean([_normal(x, mean, std) for mean in means], axis=0)
    tallest = dict.fromkeys(shown, float(exact.max()))
    looks = line_looks(data)
    for (series, g), axes in panels.items():
        bars, edges = heights(shown[series][g], CLASS)
        tallest[series] = max(tallest[series], float(bars.max()))
        colour = looks[series].colour
        axes.stairs(bars, edges, fill=True, color=pale(colour, 0.3), lw=0)
        axes.plot(x, exact, color=TARGET, lw=1.0)
        outside(axes, shown[series][g], span, colour)
    for (series, _), axes in panels.items():
        axes.set(xlim=span, ylim=(0, 1.05 * tallest[series]))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    handles = [Line2D([], [], color=TARGET, lw=1.0, label="exact density")]
    finish(figure, f"{plain(dataset)}, class {CLASS}", "density (1 / data units)", handles, 1)
    return figure


def clouds(
    data: Data,
    dataset: str,
    lines: Sequence[Series] = (),
    scales: Sequence[float] = (),
    height: float = 0.0,
) -> Figure:
    """2-D samples by class with the 1 and 3 sigma circles of the modes: lines by guidance.

    By default all lines, at scales spread over the range; a row is `height` inches, 0 for square
    panels.
    """
    shown, scales = _shown(data, lines or data.series(dataset), scales, Points)
    columns = max(len(scales), 3)
    figure, panels = _panels(data, shown, scales, height or 5.7 / columns)
    limits = _limits([p for some in shown.values() for p in some.values()])
    classes = 0
    for (series, g), axes in panels.items():
        preview = shown[series][g]
        xy, labels = positions(preview), np.asarray(preview.labels)
        classes = max(classes, len(preview.means))
        for k, modes in enumerate(preview.means):
            own = xy[labels == k]
            axes.scatter(own[:, 0], own[:, 1], s=5, alpha=0.55, lw=0, **_dot(k))
            for mode in modes:
                for radius, line in RINGS.items():
                    circle = Circle(mode, radius * preview.std, fill=False, ls=line, lw=0.8)
                    axes.add_patch(circle)
        frame_plane(axes, *limits, [xy])
    handles: list[Any] = [
        Line2D([], [], ls="none", label=f"class {k}", **_dot(k)) for k in range(classes)
    ]
    handles += [
        Line2D([], [], color=TARGET, lw=0.8, ls=line,
               label=f"{radius}\N{GREEK SMALL LETTER SIGMA} of a mode")
        for radius, line in RINGS.items()
    ]  # fmt: skip
    finish(figure, plain(dataset), "y (data units)", handles, 6)
    return figure


def _normal(x: Array, mean: float, std: float) -> Array:
    """The density of a normal distribution; not a number if `std` is 0."""
    with np.errstate(all="ignore"):
        density: Array = np.exp(-np.square((x - mean) / std) / 2) / (std * math.sqrt(2 * math.pi))
    return density


def _bar(k: int) -> dict[str, Any]:
    """How the bars of a class look."""
    colour, _ = CLASSES[k % len(CLASSES)]
    hatch = HATCHES[k % len(HATCHES)]
    return {"facecolor": pale(colour, 0.45), "edgecolor": colour, "hatch": hatch}


def _dot(k: int) -> dict[str, Any]:
    """How the points of a class look."""
    return {"color": CLASSES[k % len(CLASSES)][0], "marker": DOTS[k % len(DOTS)]}


def _beyond(preview: Density) -> float:
    """Share of samples in the outermost bins, which also hold all samples beyond."""
    counts = np.asarray(preview.counts)
    return float(counts[:, [0, -1]].sum() / max(counts.sum(), 1))


def _span(found: list[Density]) -> tuple[float, float]:
    """Interval with all counted samples and the exact density."""
    low, high = [], []
    for preview in found:
        edges, counts = np.asarray(preview.edges), np.sum(preview.counts, axis=0)
        filled = np.flatnonzero(counts)
        modes = [mode for means in preview.means for mode in means]
        low += [min(modes) - 4 * preview.std, *edges[filled[:1]]]
        high += [max(modes) + 4 * preview.std, *edges[filled[-1:] + 1]]
    pad = 0.03 * (max(high) - min(low))
    return float(min(low)) - pad, float(max(high)) + pad


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
    sharey: bool | Literal["row"] = True,
) -> tuple[Figure, dict[tuple[Series, float], Axes]]:
    """Lay out one row per line and one column per scale; return the panels with samples."""
    figure, grid = lay_out(len(shown), scales, height, 1.1, sharey)
    panels: dict[tuple[Series, float], Axes] = {}
    for row, (series, found) in zip(grid, shown.items(), strict=True):
        if height <= RULE_HEIGHT:
            name = plain(series.rule or "cfg")
            row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        else:
            row[0].set_ylabel(textwrap.fill(plain(series.label), 18), fontsize=8)
        for axes, g in zip(row, scales, strict=True):
            if g in found:
                panels[series, g] = axes
            else:
                _explain(axes, trouble(data, series, g) or "not run", 66 // len(scales))
    return figure, panels


def _explain(axes: Axes, reason: str, width: int) -> None:
    """Write in an empty panel why it is empty."""
    text = textwrap.fill(plain(reason), width, max_lines=4, placeholder=" …")
    axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=8, ha="center", va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(color="none")


def _limits(found: list[Points]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners around all samples, at most twice the extent of the exact modes."""
    modes = np.array([mode for p in found for some in p.means for mode in some], dtype=float)
    std = max(p.std for p in found)
    low, high = modes.min(axis=0) - 4 * std, modes.max(axis=0) + 4 * std
    room = (high - low) / 2
    xy = np.concatenate([positions(p) for p in found])
    pad = 0.06 * (high - low)
    return (
        np.minimum(low, np.maximum(xy.min(axis=0) - pad, low - room)),
        np.maximum(high, np.minimum(xy.max(axis=0) + pad, high + room)),
    )
