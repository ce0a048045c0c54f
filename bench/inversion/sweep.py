"""Inversions as part of a sweep: the missing rows of every run, each durable at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.data import Dataset
from bench.data.convert import from_model
from bench.experiment.inversion_rows import EditGrid, InversionRow
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Status, write_reason, write_row
from bench.inversion.choose import EVERY_CLASS, edit_targets
from bench.inversion.grid import edit_grid, latent_image
from bench.inversion.measure import (
    AUTHORS_BATCH,
    Editor,
    Inverted,
    invert_split,
    judged,
    latent_row,
    pairs_of,
    scores,
    share,
)
from bench.inversion.plan import Bench, InversionCell, kept, make_editor
from bench.sweep.execute import Outcome
from bench.sweep.generate import Diverged
from bench.system import places
from bench.system.errors import UserError
from bench.system.failures import system_error
from bench.system.files import make_folder
from bench.system.progress import SILENT, Reporter, Tick
from methods import Guidance

SHOWN = 10


def sweep_inversions(
    rows: Sequence[InversionCell],
    bench: Bench,
    experiment: Experiment,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Compute the missing rows; a failed one is reported and does not stop the others.

    The rows of one run share its latents and reconstructions, which are made once.
    """
    make_folder(experiment.root)
    places.hold(experiment.root)
    outcome = Outcome()
    edits = len(bench.split) * len(edit_targets(bench.split.labels, bench.data.spec.num_classes))
    open_rows = [p for p in rows if not p.skip and not kept(p, experiment)]
    runs = {p.target.card.name for p in open_rows}
    total = len(open_rows) * edits + 2 * len(bench.split) * len(runs)
    held: tuple[str, Editor, Inverted] | None = None
    with reporter.bar(f"inversion {bench.data.name}", total) as bar:
        done = 0
        for planned in rows:
            name = planned.target.card.name
            what = f"{name} g={planned.guidance.scale:g}"
            if planned.skip:
                outcome.skipped += 1
                row = make_row(planned, bench, experiment, "skip", planned.skip)
                write_reason(experiment.inversions, row)
                continue
            # Another process may have made it meanwhile.
            if planned not in open_rows or kept(planned, experiment):
                outcome.kept += 1
                continue

            def tick(images: int, what: str = what) -> None:
                nonlocal done
                done += images
                bar.update(done, what)

            try:
                if held is None or held[0] != name:
                    editor = make_editor(planned.target, batch, device)
                    held = (name, editor, invert_split(editor, bench.split, tick))
                row = _measure(planned, held[1], held[2], bench, experiment, tick)
                outcome.computed += 1
            except Diverged as error:
                row = make_row(planned, bench, experiment, "diverged", str(error))
                outcome.computed += 1
                outcome.diverged += 1
            except UserError:
                raise
            except Exception as error:  # the code of a method may fail in any way
                if system_error(error) is not None:  # which the other rows would meet as well
                    raise
                reason = f"{type(error).__name__}: {error}"
                outcome.failed.append(f"inversion {what}: {reason}")
                row = make_row(planned, bench, experiment, "failed", reason)
            write = write_reason if row.status == "failed" else write_row
            write(experiment.inversions, row)
    return outcome


def make_row(
    planned: InversionCell,
    bench: Bench,
    experiment: Experiment,
    status: Status,
    reason: str = "",
    **more: Any,
) -> InversionRow:
    """A row with everything that it depends on."""
    card = planned.target.card
    return InversionRow(
        key=planned.key,
        status=status,
        reason=reason,
        experiment=experiment.name,
        dataset=card.dataset,
        data_hash=card.data_hash,
        method=card.method,
        run=card.name,
        train_seed=card.seed,
        checkpoint=planned.target.checkpoint,
        guidance=planned.guidance.scale,
        n=len(bench.split),
        reference=f"{bench.data.name}/reference",
        reference_hash=bench.split.hash,
        judge=bench.judge.name,
        judge_hash=bench.judge.hash,
        authors_batch=AUTHORS_BATCH,
        created=now(),
        provenance=provenance(),
        **more,
    )


def _measure(
    planned: InversionCell,
    editor: Editor,
    inverted: Inverted,
    bench: Bench,
    experiment: Experiment,
    tick: Tick,
) -> InversionRow:
    labels = bench.split.labels
    targets = edit_targets(labels, bench.data.spec.num_classes)
    started = time.perf_counter()
    edits = [
        from_model(editor.edit(inverted.latents, wanted, planned.guidance, tick))
        for wanted in targets
    ]
    seconds = (time.perf_counter() - started) / max(len(labels) * len(targets), 1)
    found, exact = scores(inverted, AUTHORS_BATCH, bench.lpips, bench.no_lpips)
    method = editor.inverts
    measured: dict[str, Any] = {}
    if edits:
        wanted = torch.cat(targets)
        right = judged(bench.judge, torch.cat(edits)) == wanted
        measured["pairs"] = pairs_of(labels.repeat(len(targets)), wanted, right)
        measured["edits"] = share(int(right.sum()), len(right))
    real = judged(bench.judge, bench.split.samples[:]) == labels
    return make_row(
        planned,
        bench,
        experiment,
        "ok",
        inversion_nfe=method.inversion_nfe(),
        reconstruction_nfe=method.edit_nfe(Guidance(1.0)),
        edit_nfe=method.edit_nfe(planned.guidance),
        inversion_seconds=inverted.seconds,
        edit_seconds=seconds,
        scores=found,
        exact=exact,
        latents=latent_row(inverted.latents, method.latent_sigma()),
        real=share(int(real.sum()), len(real)),
        preview=_preview(inverted, edits, targets, bench.data, method.latent_sigma()),
        **measured,
    )


def _preview(
    inverted: Inverted,
    edits: Sequence[Tensor],
    targets: Sequence[Tensor],
    data: Dataset,
    sigma_max: float,
) -> EditGrid:
    """The first image of each of the first classes, beside its latent, reconstruction and edits."""
    source, labels, names = inverted.split.samples[:], inverted.split.labels, data.class_names
    every = len(names) <= EVERY_CLASS
    noise = latent_image(inverted.latents, sigma_max)
    back = from_model(inverted.reconstructed)
    rows: list[list[Tensor | None]] = []
    titles: list[str] = []
    for label in sorted(set(labels.tolist()))[:SHOWN]:
        i = int((labels == label).nonzero()[0])
        made = {int(t[i]): edit[i] for t, edit in zip(targets, edits, strict=True)}
        shown = [made.get(k) for k in range(len(names))] if every else list(made.values())
        rows.append([source[i], noise[i], back[i], *shown])
        title = names[label] if every else " → ".join([names[label], *(names[k] for k in made)])
        titles.append(title)
    columns = ["source", "latent", "reconstruction", *(names if every else ["edit"] * bool(edits))]
    return edit_grid(rows, columns, titles)
