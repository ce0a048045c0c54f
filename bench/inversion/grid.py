"""Pictures of inversions: tiles for rows, and what a latent looks like."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.data.samples.write import png_bytes
from bench.experiment.inversion_rows import EditGrid

REACH = 2.5
"""Latents are shown from black to white over +- so many sigma_max."""


def latent_image(latents: Tensor, sigma_max: float) -> Tensor:
    """Latents (N, C, H, W) as uint8 images: 0 is mid-grey, +- 2.5 sigma_max the ends."""
    return (latents / (REACH * sigma_max) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def edit_grid(
    rows: Sequence[Sequence[Tensor | None]], columns: Sequence[str], names: Sequence[str]
) -> EditGrid:
    """A grid of uint8 tiles (C, H, W), all of one shape; None leaves a tile white."""
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
