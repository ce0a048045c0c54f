"""What `bench invert` and `bench edit` write: latents, pictures and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from bench.data import Dataset
from bench.data.convert import from_model
from bench.experiment.inversion_rows import EditGrid
from bench.inversion.files import write_image, write_latents
from bench.inversion.find import Images
from bench.inversion.grid import edit_grid, latent_image
from bench.inversion.measure import Editor, Inverted
from bench.system.files import write_bytes
from bench.training.run import Run

SHOWN = 12
"""Images in a figure."""
LATENTS = "latents.safetensors"


def write_inverted(
    folder: Path, found: Run, editor: Editor, images: Images, inverted: Inverted
) -> None:
    """Latents in one file, sources and reconstructions as a PNG each."""
    facts = {
        "run": found.card.name,
        "checkpoint": found.checkpoint,
        "sigma_max": editor.inverts.latent_sigma(),
        "names": images.names,
    }
    write_latents(folder / LATENTS, inverted.latents, images.split.labels, facts)
    back = from_model(inverted.reconstructed)
    for i, name in enumerate(images.names):
        write_image(folder / f"{name}-source.png", images.split.samples[:][i])
        write_image(folder / f"{name}-reconstruction.png", back[i])


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
        write_bytes(path, render(grid_figure(grid, title))[0])
