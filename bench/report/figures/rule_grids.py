"""Samples of guidance rules side by side: one row a rule, one block a guidance scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bench.experiment.rows import Images
from bench.report.figures.grids import TILE_PIXELS, tiles
from bench.report.figures.previews import pick, previews
from bench.report.figures.style import WIDTH, new_figure, plain
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.lines import ruled

WANTED = (1.0, 4.0, 7.0, 13.0)
TOP = 0.5
"""Inches above the tiles, for the title and the scales."""
MOST_TILES = 16
"""In one row, over all scales."""


def chosen_scales(scales: Sequence[float]) -> list[float]:
    """1, 4, 7 and 13 where there are most of them, else four evenly spread."""
    found = [g for g in WANTED if g in scales]
    return found if len(found) >= min(3, len(scales)) else pick(list(scales), len(WANTED))


def rule_grid(data: Data, base: Series) -> Figure:
    """The first samples of all rules of a method, in blocks of one scale each."""
    found = {s: previews(data, s, Images) for s in (base, *ruled(data, base.dataset).get(base, ()))}
    shown = {s: some for s, some in found.items() if some}
    scales = chosen_scales(sorted({g for some in shown.values() for g in some}))
    each = max(1, min(MOST_TILES // len(scales), *(len(p.labels) for some in shown.values()
                                                 for p in some.values())))  # fmt: skip
    classes = {p.labels[:each] for some in shown.values() for p in some.values()}
    if len(classes) > 1:
        raise ValueError("the samples of rules or scales are of different classes")
    rows = {
        s: [tiles(some[g])[:each] if g in some else None for g in scales]
        for s, some in shown.items()
    }
    canvas, x, y = _canvas(list(rows.values()), each)
    names = [s.rule or "cfg" for s in rows]
    left = 0.07 * max(map(len, names)) + 0.12
    height = (WIDTH - left - 0.05) * canvas.shape[0] / canvas.shape[1]
    whole = height + TOP + 0.05
    figure = new_figure(whole)
    # Placed by hand: constrained layout leaves too little for names beside axes of fixed aspect.
    figure.set_layout_engine("none")
    axes = figure.add_axes((left / WIDTH, 0.05 / whole, 1 - (left + 0.05) / WIDTH, height / whole))
    axes.imshow(canvas, interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(x, [f"g = {g:g}" for g in scales])
    axes.set_yticks(y, [plain(name) for name in names])
    axes.set_title(plain(f"{base.dataset}: {base.label}, by rule"), loc="left")
    return figure


def _canvas(
    rows: Sequence[Sequence[npt.NDArray[np.uint8] | None]], each: int
) -> tuple[npt.NDArray[np.uint8], list[float], list[float]]:
    """All tiles on white with the centres of blocks and rows; a block that is not there is grey."""
    side = max(t.shape[1] for row in rows for t in row if t is not None)
    factor = max(1, TILE_PIXELS // side)
    large = side * factor
    gap, between = max(2, large // 24), large // 4
    block = each * (large + gap) - gap
    count = len(rows[0])
    width, height = count * (block + between) - between, len(rows) * (large + gap) - gap
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
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
    centres = [j * (block + between) + (block - 1) / 2 for j in range(count)]
    return canvas, centres, [i * (large + gap) + (large - 1) / 2 for i in range(len(rows))]
