"""Grids of images: samples by guidance scale or rule, and edits by class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bench.experiment.inversion_rows import EditGrid, InversionRow
from bench.experiment.rows import Images
from bench.report.figures.style import WIDTH, new_figure, plain
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR
from bench.report.numbers.previews import chosen_scales, pick, previews

MOST_TILES = 12
MOST_ROWS = 14
MOST_PIXELS = 1 << 25
NARROWEST = 4.0  # inches, which leaves room for a title
TILE_PIXELS = 96  # about what a tile has at 6.5 inches and print resolution
RULE_TILES = 16
"""Tiles in the row of a rule, over all scales."""
RULE_TOP = 0.5
"""Inches above the rows of rules, for the title and the scales."""
MOST_NAME = 40
"""Characters of a name beside a row."""
EDIT_TILE = 0.7
"""Inches of a tile in a grid of edits, at most."""
Tiles = npt.NDArray[np.uint8]
"""Pixels, (..., 3)."""
Blocks = Sequence[Sequence[Tiles | None]]
"""Rows of blocks of tiles (N, side, side, 3)."""


def tiles(preview: Images) -> Tiles:
    """The tiles of a strip, (N, side, side, 3) uint8."""
    strip = strip_pixels(preview.png)
    side, width, _ = strip.shape
    if width != side * len(preview.labels):
        raise ValueError(
            f"a strip of {width} x {side} pixels is not {len(preview.labels)} square tiles"
        )
    return strip.reshape(side, -1, side, 3).swapaxes(0, 1)


def strip_pixels(png: str) -> Tiles:
    """The pixels (H, W, 3) uint8 of a PNG in base64; ValueError if it is too large."""
    # No other format: Pillow passes PostScript to an interpreter.
    with Image.open(io.BytesIO(base64.b64decode(png)), formats=("PNG",)) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels is too large")
        return np.asarray(image.convert("RGB"))


def sample_grid(data: Data, series: Series) -> Figure:
    """All shown guidance scales of one line; tiles are upscaled without smoothing."""
    found = previews(data, series, Images)
    scales = pick(list(found), MOST_ROWS)
    rows = [tiles(found[g])[:MOST_TILES] for g in scales]
    first = max((found[g] for g in scales), key=lambda p: len(p.labels))
    count = min(MOST_TILES, len(first.labels))
    for g in scales:
        if found[g].labels[:count] != first.labels[: len(found[g].labels[:count])]:
            raise ValueError(f"the samples at g = {g:g} are of other classes than the rest")
    name = "real samples" if series.method == FLOOR else series.label
    labels = ["" if series.method == FLOOR else f"g = {g:g}" for g in scales]
    names = [first.class_names[label] for label in first.labels[:count]]
    return mosaic_figure(rows, names, labels, f"{series.dataset}: {name}")


def mosaic_figure(
    rows: list[Tiles],
    columns: Sequence[str],
    labels: Sequence[str],
    title: str,
    largest: float = WIDTH,
) -> Figure:
    """Rows of tiles (N, side, side, 3) with untrusted names on top and on the left.

    Tiles share the width of the page; a tile is at most `largest` inches wide.
    """
    count = len(columns)
    names = [plain(name) for name in columns]
    room = min((WIDTH - 0.9) / count, largest)
    tilted = max(len(name) for name in names) * 0.07 > room
    tilt_height = 0.2 + 0.075 * max(len(name) for name in names) if tilted else 0.0
    figure = new_figure(room * len(rows) + 0.5 + tilt_height, max(room * count + 0.9, NARROWEST))
    axes = figure.add_subplot()
    blocks = [[row] for row in rows]
    x = _centres(blocks, count)
    _show(axes, _canvas(blocks, count), x, names, _centres(blocks, len(rows)), labels, title)
    if tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    return figure


def line_grid(data: Data, lines: Sequence[Series], names: Sequence[str], title: str) -> Figure:
    """The first samples of some lines with samples, in blocks of one scale each."""
    found = {s: previews(data, s, Images) for s in lines}
    every = [preview for some in found.values() for preview in some.values()]
    scales = chosen_scales(sorted({g for some in found.values() for g in some}))
    each = max(1, min(RULE_TILES // len(scales), *(len(p.labels) for p in every)))
    if len({p.labels[:each] for p in every}) > 1:
        raise ValueError("the samples of lines or scales are of different classes")
    rows = [
        [tiles(some[g])[:each] if g in some else None for g in scales] for some in found.values()
    ]
    canvas = _canvas(rows, each)
    names = [name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…" for name in names]
    left = 0.07 * max(map(len, names)) + 0.12
    height = (WIDTH - left - 0.05) * canvas.shape[0] / canvas.shape[1]
    whole = height + RULE_TOP + 0.05
    figure = new_figure(whole)
    # Placed by hand: constrained layout leaves too little for names beside axes of fixed aspect.
    figure.set_layout_engine("none")
    axes = figure.add_axes((left / WIDTH, 0.05 / whole, 1 - (left + 0.05) / WIDTH, height / whole))
    block, between = _block(rows, each)
    x = [j * (block + between) + (block - 1) / 2 for j in range(len(scales))]
    _show(axes, canvas, x, [f"g = {g:g}" for g in scales], _centres(rows, len(rows)), names, title)
    return figure


def edit_grid(row: InversionRow, label: str) -> Figure:
    """The edits of one row."""
    assert row.preview is not None
    return grid_figure(row.preview, f"{row.dataset}: {label}, g = {row.guidance:g}")


def grid_figure(grid: EditGrid, title: str) -> Figure:
    """A grid of edits with the names of its columns on top and of its rows on the left."""
    pixels = strip_pixels(grid.png)
    side, count = pixels.shape[1] // len(grid.columns), len(grid.rows)
    if pixels.shape[:2] != (side * count, side * len(grid.columns)):
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are not a grid of tiles")
    rows = list(pixels.reshape(count, side, len(grid.columns), side, 3).swapaxes(1, 2))
    return mosaic_figure(rows, grid.columns, grid.rows, title, largest=EDIT_TILE)


def _show(
    axes: Axes,
    canvas: Tiles,
    x: Sequence[float],
    above: Sequence[str],
    y: Sequence[float],
    beside: Sequence[str],
    title: str,
) -> None:
    """Draw a canvas with names of its columns above it and of its rows beside it."""
    axes.imshow(canvas, interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(x, above)
    axes.set_yticks(y, [plain(name) for name in beside])
    axes.set_title(plain(title), loc="left")


def _sizes(rows: Blocks) -> tuple[int, int]:
    """Side of an upscaled tile and width of the gap, in pixels of the canvas."""
    side = max(tile.shape[1] for row in rows for tile in row if tile is not None)
    large = side * max(1, TILE_PIXELS // side)
    return large, max(2, large // 24)


def _block(rows: Blocks, each: int) -> tuple[int, int]:
    """Width of a block of `each` tiles, and of the space between blocks."""
    large, gap = _sizes(rows)
    return each * (large + gap) - gap, large // 4


def _centres(rows: Blocks, count: int) -> list[float]:
    """Centres of so many tiles in a row or a column."""
    large, gap = _sizes(rows)
    return [i * (large + gap) + (large - 1) / 2 for i in range(count)]


def _canvas(rows: Blocks, each: int) -> Tiles:
    """Rows of blocks of `each` tiles on white, upscaled by repetition; a missing block is grey."""
    large, gap = _sizes(rows)
    block, between = _block(rows, each)
    width = len(rows[0]) * (block + between) - between
    canvas = np.full((len(rows) * (large + gap) - gap, width, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, found in enumerate(row):
            y, x = i * (large + gap), j * (block + between)
            if found is None:
                canvas[y : y + large, x : x + block] = 235
                continue
            for k, tile in enumerate(found):
                scaled = tile.repeat(large // tile.shape[0], 0).repeat(large // tile.shape[1], 1)
                left = x + k * (large + gap)
                canvas[y : y + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas
