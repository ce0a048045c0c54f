"""Grids of edits: sources, latents, reconstructions and edits to the other classes."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from bench.experiment.inversion_rows import EditGrid, InversionRow
from bench.report.figures.figures import Plan
from bench.report.figures.grids import mosaic_figure, strip_pixels
from bench.report.numbers.inversions import Inversions
from bench.report.numbers.names import slug

TILE = 0.7
"""Inches that a tile has at most."""


def plan_grids(data: Inversions) -> Iterator[Plan]:
    """One figure a run at its lowest and its highest guidance scale."""
    for dataset in data.datasets:
        for label, rows in data.runs(dataset).items():
            shown = [row for row in rows if row.status == "ok" and row.preview is not None]
            for row in dict.fromkeys([shown[0].key, shown[-1].key] if shown else []):
                found = next(r for r in shown if r.key == row)
                yield Plan(
                    slug(dataset, "edits", label, f"g{found.guidance:g}"),
                    dataset,
                    f"Edits of {dataset} by {label} at guidance g = {found.guidance:g} (1 = off). "
                    "One row per source, an image of the reference split: the source, its latent "
                    "(black to white over ±2.5 times the largest noise level), its reconstruction "
                    "at g = 1, and its edit to each other class; the own class is left empty. "
                    "Pixels are enlarged without smoothing.",
                    lambda row=found, label=label: edit_figure(row, label),  # type: ignore[misc]
                )


def edit_figure(row: InversionRow, label: str) -> Figure:
    """The grid of one row."""
    assert row.preview is not None
    return grid_figure(row.preview, f"{row.dataset}: {label}, g = {row.guidance:g}")


def grid_figure(grid: EditGrid, title: str) -> Figure:
    """A grid with the names of its columns on top and of its rows on the left."""
    pixels = strip_pixels(grid.png)
    side, count = pixels.shape[1] // len(grid.columns), len(grid.rows)
    if pixels.shape[:2] != (side * count, side * len(grid.columns)):
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are no grid of tiles")
    rows = [
        pixels[i * side : (i + 1) * side]
        .reshape(side, len(grid.columns), side, 3)
        .swapaxes(0, 1)
        for i in range(count)
    ]  # fmt: skip
    return mosaic_figure(rows, grid.columns, grid.rows, title, largest=TILE)
