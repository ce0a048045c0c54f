"""`bench invert` and `bench edit`: latents, pictures and tables of one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, SAMPLES_MOST
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import Dataset, Split
    from bench.inversion.measure import Editor, Inverted
    from bench.system.progress import Reporter
    from metrics.base import Extractor

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Image files of the model's size; by default the reference split."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder of the results; by default the experiment's.")
]
ImagesOption = Annotated[
    int,
    typer.Option("--samples", "-n", min=1, max=SAMPLES_MOST, help="Images of the reference split."),
]


def invert_command(
    files: FilesArgument = None,
    run: options.OneRun = None,
    method: options.OneMethod = None,
    dataset: options.OneDataset = None,
    label: Annotated[
        str | None, typer.Option("--class", help="Class of the images, by name or index.")
    ] = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "auto",
    batch: options.Batch = 256,
    plugin: options.Plugins = None,
) -> None:
    """Map images to latents and back; writes both and measures the reconstructions."""
    from bench.inversion.find import find_images, find_run
    from bench.inversion.pictures import LATENTS, inverted_grid, write_figure, write_inverted
    from bench.inversion.plan import make_editor
    from bench.system.devices import resolve_device

    reporter, found = options.begin(plugin, results, experiment, out=out)
    where = resolve_device(device)
    ready = find_run(found, run, method, dataset)
    images = find_images(files or (), ready.data, label, samples, "--class")
    folder = out or found.root / "inverted" / ready.card.name
    editor = make_editor(ready, batch, where)
    inverted = _invert(reporter, editor, images.split, f"invert {ready.card.name}")
    write_inverted(folder, ready, editor, images, inverted)
    figure = folder / "figure.png"
    shown = inverted_grid(inverted, ready.data, editor, [], [], per_class=not (label or files))
    write_figure(figure, shown, f"{ready.data.name}: {ready.card.name}")
    _show_scores(reporter, inverted, editor, ready.data)
    latents = counted(len(images.split), "latent")
    reporter.say(f"Look at {figure}. Next to it: {latents} in {LATENTS}, and the pictures.")


def edit_command(
    source_class: Annotated[
        str, typer.Option(help="Class that the images have, by name or index.")
    ],
    target_class: Annotated[
        list[str], typer.Option(help="Class to edit to; repeat for several, or 'all'.")
    ],
    files: FilesArgument = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales, a range such as 1,7,13; 1 is off.")
    ] = "1",
    run: options.OneRun = None,
    method: options.OneMethod = None,
    dataset: options.OneDataset = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "auto",
    batch: options.Batch = 256,
    plugin: options.Plugins = None,
) -> None:
    """Invert images of one class and sample them as another."""
    import torch

    from bench.data.convert import from_model
    from bench.evaluation.makers import Makers
    from bench.experiment.ranges import parse_range
    from bench.inversion.find import class_index, edit_classes, find_images, find_run
    from bench.inversion.pictures import inverted_grid, write_figure, write_image, write_inverted
    from bench.inversion.plan import make_editor
    from bench.report.numbers.names import slug
    from bench.system.devices import resolve_device
    from methods import Guidance

    reporter, found = options.begin(plugin, results, experiment, out=out)
    where = resolve_device(device)
    scales = [Guidance(g) for g in parse_range(guidance, "--guidance")]
    ready = find_run(found, run, method, dataset)
    data = ready.data
    source = class_index(source_class, data, "--source-class")
    targets = edit_classes(target_class, source, data)
    for g in scales:
        reason = ready.method.supports(g, ready.card.steps[0])
        if reason:
            raise UserError(f"Run {ready.card.name!r} cannot be edited with: {reason}.", code=2)
    images = find_images(files or (), data, source_class, samples, "--source-class")
    judge = Makers(found.cache).make("classifier", data)
    folder = out or found.root / "edited" / ready.card.name
    editor = make_editor(ready, batch, where)
    edits = len(targets) * len(scales)
    inverted = _invert(reporter, editor, images.split, f"invert {ready.card.name}")
    made: dict[tuple[float, int], Tensor] = {}
    with reporter.bar(f"edit {ready.card.name}", edits * len(images.split)) as bar:
        for g in scales:
            for wanted in targets:
                labels = torch.full_like(images.split.labels, wanted)
                with _divergence_reported(editor, f" at g = {g.scale:g}"):
                    edited = from_model(editor.edit(inverted.latents, labels, g))
                made[g.scale, wanted] = edited
                to = slug(data.class_names[wanted])
                for name, image in zip(images.names, edited, strict=True):
                    write_image(folder / f"{name}-to-{to}-g{g.scale:g}.png", image)
                bar.update(len(made) * len(images.split), f"g={g.scale:g}")
    write_inverted(folder, ready, editor, images, inverted)
    figures = []
    columns = [data.class_names[k] for k in targets]
    for g in scales:
        tiles = [made[g.scale, k] for k in targets]
        figures.append(folder / f"figure-g{g.scale:g}.png")
        shown = inverted_grid(inverted, data, editor, tiles, columns, per_class=False)
        write_figure(figures[-1], shown, f"{data.name}: {ready.card.name}, g = {g.scale:g}")
    _show_edits(reporter, made, images.split, data, judge, editor)
    n = len(images.split)
    reporter.say(f"{counted(edits * n, 'edit')} of {counted(n, 'image')}: {folder}.")
    reporter.say(f"Look at {', '.join(str(figure) for figure in figures)}.")


@contextmanager
def _divergence_reported(editor: Editor, at: str = "") -> Iterator[None]:
    """Turn `Diverged` into a UserError; `at` names the guidance scale, if any."""
    from bench.sweep.generate import Diverged

    try:
        yield
    except Diverged as error:
        raise UserError(f"{editor.method.name} diverged{at}: {error}.") from None


def _invert(reporter: Reporter, editor: Editor, split: Split, title: str) -> Inverted:
    """Invert and reconstruct with a progress bar."""
    from bench.inversion.measure import invert_split

    with reporter.bar(title, 2 * len(split)) as bar, _divergence_reported(editor):
        return invert_split(editor, split, lambda images: bar.update(bar.done + images))


def _show_scores(reporter: Reporter, inverted: Inverted, editor: Editor, data: Dataset) -> None:
    from rich.table import Table

    from bench.inversion.measure import AUTHORS_BATCH, lpips_or_reason, scores
    from bench.report.pages.inversions import AUTHORS, score_text
    from methods import Guidance

    found, exact = scores(inverted, AUTHORS_BATCH, *lpips_or_reason(data.spec.shape[1:]))
    table = Table("measure", f"mean ± standard error of {len(inverted.split)} images")
    for score in found:
        label = AUTHORS.get(score.name, score.label)
        shown = score_text(score) if score.value is not None else f"not measured: {score.reason}"
        table.add_row(label, shown)
    reporter.show(table)
    if exact:
        reporter.say(f"{exact} exact in uint8, counted as one value off by one level.")
    nfe = f"{editor.inverts.inversion_nfe()} + {editor.inverts.edit_nfe(Guidance(1.0))}"
    reporter.say(
        f"NFE {nfe} (inversion + reconstruction); inversion {inverted.seconds:.2g} s per image. "
        f"(authors'): computed as by the authors of iGCT, in batches of {AUTHORS_BATCH} images.",
    )


def _show_edits(
    reporter: Reporter,
    made: dict[tuple[float, int], Tensor],
    split: Split,
    data: Dataset,
    judge: Extractor,
    editor: Editor,
) -> None:
    from rich.table import Table

    from bench.inversion.measure import judged, share
    from bench.report.pages.inversions import share_text
    from methods import Guidance

    scales, targets = ([*dict.fromkeys(keys)] for keys in zip(*made, strict=True))
    n = len(split)
    right = {key: int((judged(judge, images) == key[1]).sum()) for key, images in made.items()}
    table = Table("edit to", *(f"g = {g:g}" for g in scales), title="recognised as the target")
    for wanted in targets:
        shares = (share_text(share(right[g, wanted], n)) for g in scales)
        table.add_row(data.class_names[int(wanted)], *shares)
    if len(targets) > 1:
        totals = (sum(right[g, wanted] for wanted in targets) for g in scales)
        table.add_row("together", *(share_text(share(k, n * len(targets))) for k in totals))
    real = share(int((judged(judge, split.samples[:]) == split.labels).sum()), n)
    table.add_row("unedited", *[share_text(real)] * len(scales))
    nfe = ", ".join(f"{editor.inverts.edit_nfe(Guidance(g))} at g = {g:g}" for g in scales)
    reporter.show(table)
    reporter.say(
        f"Share of {n} images with Wilson's 95% interval, unedited ones by their own class; "
        f"judge: extractor {judge.name}. NFE of an edit: {nfe}, after "
        f"{editor.inverts.inversion_nfe()} to invert.",
    )
