"""Grids of sample images: one row a guidance scale, one column a fixed sample index."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from bench.experiment.rows import Images
from bench.report.figures.previews import pick, previews
from bench.report.figures.style import FLOOR, WIDTH, new_figure, plain
from bench.report.numbers.frame import Data, Series

MOST_TILES = 12
MOST_ROWS = 14
MOST_PIXELS = 1 << 25
NARROWEST = 4.0  # inches, which leaves room for a title
TILE_PIXELS = 96  # about what a tile has at 6.5 inches and print resolution


def tiles(preview: Images) -> npt.NDArray[np.uint8]:
    """Return the tiles of a strip, (N, side, side, 3) uint8."""
    strip = strip_pixels(preview.png)
    side, width, _ = strip.shape
    if width != side * len(preview.labels):
        raise ValueError(
            f"a strip of {width} x {side} pixels is not {len(preview.labels)} square tiles"
        )
    return strip.reshape(side, -1, side, 3).swapaxes(0, 1)


def strip_pixels(png: str) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W, 3) uint8 of a PNG in base64."""
    # No other format: Pillow would hand PostScript to an interpreter.
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
    labels = ["" if series.method == FLOOR else f"g = {g:g}" for g in scales]
    names = [first.class_names[label] for label in first.labels[:count]]
    return mosaic_figure(rows, names, labels, f"{series.dataset}: {_name(series)}")


def mosaic_figure(
    rows: list[npt.NDArray[np.uint8]],
    columns: Sequence[str],
    labels: Sequence[str],
    title: str,
    largest: float = WIDTH,
) -> Figure:
    """Rows of tiles (N, side, side, 3) with names on top and on the left, which may be any text.

    Tiles share the width of the page, but none is wider than `largest` inches.
    """
    count = len(columns)
    canvas = _mosaic(rows, count)
    names = [plain(name) for name in columns]
    room = min((WIDTH - 0.9) / count, largest)
    tilted = max(len(name) for name in names) * 0.07 > room
    tilt_height = 0.2 + 0.075 * max(len(name) for name in names) if tilted else 0.0
    figure = new_figure(room * len(rows) + 0.5 + tilt_height, max(room * count + 0.9, NARROWEST))
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(_centres(rows, count), names)
    if tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(_centres(rows, len(rows)), [plain(label) for label in labels])
    axes.set_title(plain(title), loc="left")
    return figure


def _name(series: Series) -> str:
    return "real samples" if series.method == FLOOR else series.label


def _scale(rows: list[npt.NDArray[np.uint8]]) -> tuple[int, int]:
    """Side of an upscaled tile and of the gap beside it, in pixels of the mosaic."""
    side = max(row.shape[1] for row in rows)
    factor = max(1, TILE_PIXELS // side)
    return side * factor, max(2, side * factor // 24)


def _centres(rows: list[npt.NDArray[np.uint8]], count: int) -> list[float]:
    side, gap = _scale(rows)
    return [i * (side + gap) + (side - 1) / 2 for i in range(count)]


def _mosaic(rows: list[npt.NDArray[np.uint8]], count: int) -> npt.NDArray[np.uint8]:
    """All tiles on white, upscaled by repetition."""
    side, gap = _scale(rows)
    shape = (len(rows) * (side + gap) - gap, count * (side + gap) - gap, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            factor = side // tile.shape[0]
            large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
            y, x = i * (side + gap), j * (side + gap)
            canvas[y : y + large.shape[0], x : x + large.shape[1]] = large
    return canvas
