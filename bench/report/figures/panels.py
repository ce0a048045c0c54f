"""The panels of toy samples by guidance scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.experiment.rows import Density, Points
from bench.report.figures.style import new_figure

Array = npt.NDArray[np.float64]
Grid = npt.NDArray[Any]
"""Of axes."""
CLASS = 0
"""Of figures that show one class."""


def lay_out(
    rows: int,
    scales: Sequence[float],
    height: float,
    room: float,
    sharey: bool | Literal["row"] = True,
) -> tuple[Figure, Grid]:
    """One row per line, of `height` inches, one column per scale; `room` inches for the rest."""
    figure = new_figure(height * rows + room)
    grid = figure.subplots(rows, len(scales), squeeze=False, sharex=True, sharey=sharey)
    for axes, g in zip(grid[0], scales, strict=True):
        axes.set_title(f"g = {g:g}", fontsize=9)
    for axes in grid.flat:
        axes.grid(visible=False)
    return figure, grid


def finish(figure: Figure, title: str, up: str, handles: Sequence[Any], columns: int) -> None:
    """Add title, legend and names of axes; x below each column, since the legend needs the rest."""
    figure.suptitle(title, fontsize=9.5)
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None and place.is_last_row():
            axes.set_xlabel("x (data units)", fontsize=8)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.supylabel(up, fontsize=9)


def heights(preview: Density, label: int) -> tuple[Array, Array]:
    """The density of a class as (bins,) heights, and the edges of the bins."""
    edges, counts = np.asarray(preview.edges), np.asarray(preview.counts[label], dtype=float)
    found = counts / (max(counts.sum(), 1.0) * np.diff(edges))
    # The outermost bins also count all samples beyond them: as bars they would be spikes.
    found[[0, -1]] = 0.0
    return found, edges


def class_span(found: Iterable[Density], modes: Array, std: float) -> tuple[float, float]:
    """Interval with the modes of the first class, and all but a thousandth of its samples."""
    ends = [(float(modes.min()) - 4 * std, float(modes.max()) + 4 * std)]
    for preview in found:
        counts, edges = np.asarray(preview.counts[CLASS]), np.asarray(preview.edges)
        share = np.cumsum(counts) / max(counts.sum(), 1)
        a, b = np.searchsorted(share, (0.001, 0.999))
        ends.append((float(edges[a]), float(edges[min(b + 1, len(edges) - 1)])))
    return min(a for a, _ in ends), max(b for _, b in ends)


def outside(
    axes: Axes, preview: Density, span: tuple[float, float], colour: str, place: int = 0
) -> None:
    """Write in its colour how much of the first class is outside the panel."""
    counts, edges = np.asarray(preview.counts[CLASS]), np.asarray(preview.edges)
    inside = (edges[:-1] >= span[0]) & (edges[1:] <= span[1])
    inside[[0, -1]] = False
    share = 1 - counts[inside].sum() / max(counts.sum(), 1)
    if share >= 0.005:
        axes.text(0.97, 0.88 - 0.15 * place, f"{share:.0%} outside", transform=axes.transAxes,
                  fontsize=8, ha="right", color=colour)  # fmt: skip


def positions(preview: Points) -> Array:
    """Samples in the plane, (n, 2)."""
    return np.asarray(preview.xy, dtype=float).reshape(-1, 2)


def frame_plane(axes: Axes, low: Array, high: Array, shown: Sequence[Array]) -> None:
    """Set the corners of a panel in the plane, and write how many samples are outside."""
    outside = sum(int(np.any((xy < low) | (xy > high), axis=1).sum()) for xy in shown)
    if outside:
        axes.text(0.03, 0.03, f"{outside} outside", transform=axes.transAxes, fontsize=8)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def pale(colour: str, white: float) -> tuple[float, float, float]:
    """A colour mixed with a share of white, so that lines stand out on it."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (white + (1 - white) * r, white + (1 - white) * g, white + (1 - white) * b)
