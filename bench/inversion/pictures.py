"""Pictures of inversions: tiles for rows, and the files of `bench invert` and `bench edit`."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.data import Dataset
from bench.data.convert import from_model
from bench.data.samples.write import png_bytes
from bench.experiment.inversion_rows import EditGrid
from bench.inversion.find import Images
from bench.inversion.measure import Editor, Inverted
from bench.system.files import write_bytes
from bench.training.checkpoint import write_tensors
from bench.training.run import Run

REACH = 2.5
"""Latents are shown from black to white over +- this many sigma_max."""
SHOWN = 12
"""Images in a figure."""
LATENTS = "latents.safetensors"


def latent_image(latents: Tensor, sigma_max: float) -> Tensor:
    """Latents (N, C, H, W) as uint8 images: 0 is mid-grey, +- 2.5 sigma_max the ends."""
    return (latents / (REACH * sigma_max) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def edit_grid(
    rows: Sequence[Sequence[Tensor | None]], columns: Sequence[str], names: Sequence[str]
) -> EditGrid:
    """A grid of uint8 tiles (C, H, W) of one shape; None is a white tile."""
    tile = next(tile for row in rows for tile in row if tile is not None)
    white = torch.full_like(tile, 255)
    lines = [
        torch.cat([white if tile is None else tile for tile in row], dim=2) for row in rows
    ]  # fmt: skip
    canvas = torch.cat(lines, dim=1).permute(1, 2, 0).numpy()
    return EditGrid(
        png=base64.b64encode(png_bytes(canvas, optimize=True)).decode(),
        columns=tuple(columns),
        rows=tuple(names),
    )


def write_inverted(
    folder: Path, found: Run, editor: Editor, images: Images, inverted: Inverted
) -> None:
    """Write all latents to one file, and each source and reconstruction as PNG."""
    facts = {
        "run": found.card.name,
        "checkpoint": found.checkpoint,
        "sigma_max": editor.inverts.latent_sigma(),
        "names": images.names,
    }
    tensors = {
        "latents": inverted.latents.contiguous(),
        "labels": images.split.labels.contiguous(),
    }
    # One entry of metadata: the format keeps no order of several.
    write_tensors(folder / LATENTS, tensors, {"about": json.dumps(facts)})
    back = from_model(inverted.reconstructed)
    for i, name in enumerate(images.names):
        write_image(folder / f"{name}-source.png", images.split.samples[:][i])
        write_image(folder / f"{name}-reconstruction.png", back[i])


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image (C, H, W) as PNG, atomically."""
    write_bytes(path, png_bytes(image.permute(1, 2, 0).numpy(), optimize=True))


def inverted_grid(
    inverted: Inverted,
    data: Dataset,
    editor: Editor,
    edits: Sequence[Tensor],
    titles: Sequence[str],
    *,
    per_class: bool,
) -> EditGrid:
    """Sources, latents, reconstructions and edits: the first images, or the first of each class."""
    labels = inverted.split.labels
    shown = list(range(len(labels)))
    if per_class:
        shown = [int((labels == k).nonzero()[0]) for k in sorted(set(labels.tolist()))]
    noise = latent_image(inverted.latents, editor.inverts.latent_sigma())
    back = from_model(inverted.reconstructed)
    rows = [
        [inverted.split.samples[:][i], noise[i], back[i], *(edit[i] for edit in edits)]
        for i in shown[:SHOWN]
    ]
    names = [data.class_names[int(labels[i])] for i in shown[:SHOWN]]
    return edit_grid(rows, ["source", "latent", "reconstruction", *titles], names)


def write_figure(path: Path, grid: EditGrid, title: str) -> None:
    """Write a grid as PNG with its titles."""
    from bench.report.figures.grids import grid_figure
    from bench.report.figures.style import look, render

    with look():
        write_bytes(path, render(grid_figure(grid, title)))
