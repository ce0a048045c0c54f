"""`bench invert` and `bench edit`: latents, pictures and tables of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench.cli.invert_request import Images, find_images, find_run
from bench.data import Dataset, Split
from bench.data.convert import from_model
from bench.evaluation.prepare import make_extractor
from bench.experiment.inversion_rows import EditGrid, Share
from bench.experiment.place import Experiment
from bench.experiment.ranges import parse_range
from bench.inversion.files import class_index, write_image, write_latents
from bench.inversion.grid import edit_grid, latent_image
from bench.inversion.measure import (
    AUTHORS_BATCH,
    Editor,
    Inverted,
    invert_split,
    judged,
    lpips_or_reason,
    scores,
    share,
)
from bench.inversion.plan import make_editor
from bench.report.document import DASH
from bench.report.numbers.names import slug
from bench.sweep.run import Diverged
from bench.system.devices import resolve_device
from bench.system.errors import UserError
from bench.system.files import write_bytes
from bench.system.progress import Bar
from bench.training.run import Run
from methods import Guidance
from metrics.base import Extractor

ALL = "all"
SHOWN = 12
LATENTS = "latents.safetensors"


def invert_all(
    console: Console,
    place: Experiment,
    *,
    files: Sequence[Path],
    run: str | None,
    method: str | None,
    dataset_name: str | None,
    label: str | None,
    samples: int,
    out: Path | None,
    device: str,
    batch: int,
) -> None:
    """`bench invert`: latents, reconstructions, a figure, and how close they are."""
    where = resolve_device(device)
    found = find_run(place, run, method, dataset_name)
    images = find_images(files, found.data, label, samples, "--class")
    folder = out or place.root / "inverted" / found.card.name
    editor = make_editor(found, batch, where)
    inverted = _inverted(console, editor, images.split, f"invert {found.card.name}")
    _write_inverted(folder, found, editor, images, inverted)
    figure = folder / "figure.png"
    shown = _grid(inverted, found.data, editor, [], [], per_class=label is None and not files)
    _write_figure(figure, shown, f"{found.data.name}: {found.card.name}")
    _print_scores(console, inverted, editor, found.data)
    _say(console, f"{len(images.split)} latents are in {folder / LATENTS}, pictures beside it.")
    _say(console, f"Look at {figure}.")


def edit_all(
    console: Console,
    place: Experiment,
    *,
    files: Sequence[Path],
    source_class: str,
    target_classes: Sequence[str],
    guidance: str,
    run: str | None,
    method: str | None,
    dataset_name: str | None,
    samples: int,
    out: Path | None,
    device: str,
    batch: int,
) -> None:
    """`bench edit`: every image to every target class at every scale, and what a judge sees."""
    where = resolve_device(device)
    scales = [Guidance(g) for g in parse_range(guidance, "--guidance")]
    found = find_run(place, run, method, dataset_name)
    data = found.data
    source = class_index(source_class, data, "--source-class")
    targets = _targets(target_classes, source, data)
    for g in scales:
        reason = found.method.supports(g, found.card.steps[0])
        if reason:
            raise UserError(f"Run {found.card.name!r} cannot be edited with: {reason}.", code=2)
    images = find_images(files, data, source_class, samples, "--source-class")
    judge = make_extractor("classifier", data, place.cache, None, False)
    folder = out or place.root / "edited" / found.card.name
    editor = make_editor(found, batch, where)
    edits = len(targets) * len(scales)
    inverted = _inverted(console, editor, images.split, f"invert {found.card.name}")
    made: dict[tuple[float, int], Tensor] = {}
    with Bar(f"edit {found.card.name}", edits * len(images.split), 0, console) as bar:
        for g in scales:
            for wanted in targets:
                labels = torch.full_like(images.split.labels, wanted)
                edited = from_model(_edited(editor, inverted.latents, labels, g))
                made[g.scale, wanted] = edited
                to = slug(data.class_names[wanted])
                for name, image in zip(images.names, edited, strict=True):
                    write_image(folder / f"{name}-to-{to}-g{g.scale:g}.png", image)
                bar.update(len(made) * len(images.split), f"g={g.scale:g}")
    _write_inverted(folder, found, editor, images, inverted)
    figures = []
    for g in scales:
        columns = [data.class_names[k] for k in targets]
        tiles = [made[g.scale, k] for k in targets]
        figures.append(folder / f"figure-g{g.scale:g}.png")
        shown = _grid(inverted, data, editor, tiles, columns, per_class=False)
        _write_figure(figures[-1], shown, f"{data.name}: {found.card.name}, g = {g.scale:g}")
    _print_edits(console, made, images.split, data, judge, editor)
    _say(console, f"{edits * len(images.split)} edits of {len(images.split)} images: {folder}.")
    _say(console, f"Look at {', '.join(str(figure) for figure in figures)}.")


def _inverted(console: Console, editor: Editor, split: Split, title: str) -> Inverted:
    """Invert and reconstruct under a bar; what is not finite is told in a sentence."""
    done = 0
    with Bar(title, 2 * len(split), 0, console) as bar:

        def tick(images: int) -> None:
            nonlocal done
            done += images
            bar.update(done)

        try:
            return invert_split(editor, split, tick)
        except Diverged as error:
            raise UserError(f"{editor.method.name} diverged: {error}.") from None


def _edited(editor: Editor, latents: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
    try:
        return editor.edit(latents, labels, guidance)
    except Diverged as error:
        raise UserError(
            f"{editor.method.name} diverged at g = {guidance.scale:g}: {error}."
        ) from None


def _targets(asked: Sequence[str], source: int, data: Dataset) -> list[int]:
    """Target classes in the order asked for, each once; 'all' is every one but the source."""
    found: list[int] = []
    for text in asked:
        if text == ALL and ALL not in data.class_names:
            found += [k for k in range(data.spec.num_classes) if k != source]
        else:
            found.append(class_index(text, data, "--target-class"))
    return list(dict.fromkeys(found))


def _write_inverted(
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


def _grid(
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


def _write_figure(path: Path, grid: EditGrid, title: str) -> None:
    from bench.report.figures.edit_grids import grid_figure
    from bench.report.figures.style import look, render

    with look():
        write_bytes(path, render(grid_figure(grid, title))[0])


def _print_scores(console: Console, inverted: Inverted, editor: Editor, data: Dataset) -> None:
    from bench.report.pages.inversions import AUTHORS, score_text

    found, exact = scores(inverted, AUTHORS_BATCH, *lpips_or_reason(data.spec.shape[1:]))
    table = Table("measure", f"mean ± standard error of {len(inverted.split)} images")
    for score in found:
        label = AUTHORS.get(score.name, score.label)
        shown = score_text(score) if score.value is not None else f"not measured: {score.reason}"
        table.add_row(label, shown)
    console.print(table)
    if exact:
        _say(console, f"{exact} exact in uint8, counted as one value off by one level.")
    nfe = f"{editor.inverts.inversion_nfe()} + {editor.inverts.edit_nfe(Guidance(1.0))}"
    _say(
        console,
        f"NFE {nfe} (inversion + reconstruction); inversion {inverted.seconds:.2g} s an image. "
        f"(authors'): as the authors of iGCT count, by batches of {AUTHORS_BATCH} images.",
    )


def _print_edits(
    console: Console,
    made: dict[tuple[float, int], Tensor],
    split: Split,
    data: Dataset,
    judge: Extractor,
    editor: Editor,
) -> None:
    scales = list(dict.fromkeys(scale for scale, _ in made))
    n = len(split)
    table = Table("edit to", *(f"g = {g:g}" for g in scales), title="recognised as the target")
    totals = dict.fromkeys(scales, 0)
    targets = list(dict.fromkeys(k for _, k in made))
    for wanted in targets:
        cells = []
        for g in scales:
            right = int((judged(judge, made[g, wanted]) == wanted).sum())
            totals[g] += right
            cells.append(_share(share(right, n)))
        table.add_row(data.class_names[wanted], *cells)
    if len(targets) > 1:
        whole = (_share(share(totals[g], n * len(targets))) for g in scales)
        table.add_row("together", *whole)
    real = share(int((judged(judge, split.samples[:]) == split.labels).sum()), n)
    table.add_row("unedited", *[_share(real)] * len(scales))
    nfe = ", ".join(f"{editor.inverts.edit_nfe(Guidance(g))} at g = {g:g}" for g in scales)
    console.print(table)
    _say(
        console,
        f"Share of {n} images with Wilson's 95% interval, unedited ones of their own "
        f"class; judge: extractor {judge.name}. NFE of an edit: {nfe}, after "
        f"{editor.inverts.inversion_nfe()} to invert.",
    )


def _share(found: Share) -> str:
    return f"{found.value:.3f} ({found.low:.3f}{DASH}{found.high:.3f})"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
