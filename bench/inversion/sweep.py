"""`bench sweep --inversion`: the rows that a sweep of one data set adds, and their price."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.data.convert import from_model
from bench.experiment.inversion_rows import EditGrid, InversionRow
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Status, row_path, write_reason, write_row
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
from bench.inversion.pictures import edit_grid, latent_image
from bench.inversion.plan import (
    EVERY_CLASS,
    Bench,
    InversionCell,
    edit_targets,
    kept,
    make_editor,
    plan_inversions,
    prepare_bench,
)
from bench.sweep.execute import Outcome, execute_all
from bench.sweep.plan import Sweep
from bench.sweep.request import SweepRequest
from bench.sweep.work import Latest, WorkItem
from bench.system.errors import counted
from bench.system.progress import SILENT, Reporter, Say, Tick, duration
from bench.training.run import Run
from methods import Guidance, Inverts

SHOWN = 10
"""Classes in a row's preview."""
PROBE = 8
"""Images that the price is measured on."""


@dataclass(frozen=True, kw_only=True)
class InversionWork(WorkItem):
    """A row to be computed; the rows of one run share its latents and reconstructions."""

    cell: InversionCell
    bench: Bench
    experiment: Experiment
    device: torch.device
    inverted: Latest[Run, tuple[Editor, Inverted]]

    def is_done(self, batch: int) -> bool:
        """Whether the row is stored."""
        return kept(self.cell, self.experiment)

    def compute(self, batch: int, tick: Tick) -> bool:
        """Invert, reconstruct and edit all images and store their scores."""

        def invert() -> tuple[Editor, Inverted]:
            editor = make_editor(self.cell.run, batch, self.device)
            return editor, invert_split(editor, self.bench.split, tick)

        editor, inverted = self.inverted.get(self.cell.run, invert)
        row = self._measure(replace(editor, batch=batch), inverted, tick)
        write_row(self.experiment.inversions, row)
        return True

    def store(self, status: Status, reason: str) -> None:
        """Store why there is no result."""
        write_reason(self.experiment.inversions, self._row(status, reason=reason))

    def _row(self, status: Status, **more: Any) -> InversionRow:
        run, bench = self.cell.run, self.bench
        return InversionRow(
            key=self.cell.key,
            status=status,
            experiment=self.experiment.name,
            dataset=run.card.dataset,
            data_hash=run.card.data_hash,
            method=run.card.method,
            run=run.name,
            train_seed=run.card.seed,
            checkpoint=run.checkpoint,
            guidance=self.cell.guidance.scale,
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

    def _measure(self, editor: Editor, inverted: Inverted, tick: Tick) -> InversionRow:
        bench, guidance, method = self.bench, self.cell.guidance, editor.inverts
        labels = bench.split.labels
        targets = edit_targets(labels, bench.data.spec.num_classes)
        started = time.perf_counter()
        edits = [
            from_model(editor.edit(inverted.latents, wanted, guidance, tick)) for wanted in targets
        ]
        seconds = (time.perf_counter() - started) / max(len(labels) * len(targets), 1)
        found, exact = scores(inverted, AUTHORS_BATCH, bench.lpips, bench.no_lpips)
        measured: dict[str, Any] = {}
        if edits:
            wanted = torch.cat(targets)
            right = judged(bench.judge, torch.cat(edits)) == wanted
            measured["pairs"] = pairs_of(labels.repeat(len(targets)), wanted, right)
            measured["edits"] = share(int(right.sum()), len(right))
        real = judged(bench.judge, bench.split.samples[:]) == labels
        return self._row(
            "ok",
            inversion_nfe=method.inversion_nfe(),
            reconstruction_nfe=method.edit_nfe(Guidance(1.0)),
            edit_nfe=method.edit_nfe(guidance),
            inversion_seconds=inverted.seconds,
            edit_seconds=seconds,
            scores=found,
            exact=exact,
            latents=latent_row(inverted.latents, method.latent_sigma()),
            real=share(int(real.sum()), len(real)),
            preview=_preview(inverted, edits, targets, bench.data, method.latent_sigma()),
            **measured,
        )


def sweep_inversions(
    cells: Sequence[InversionCell],
    bench: Bench,
    experiment: Experiment,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Compute the missing rows of one data set."""
    n = len(bench.split)
    edits = n * len(edit_targets(bench.split.labels, bench.data.spec.num_classes))
    inverted: Latest[Run, tuple[Editor, Inverted]] = Latest()
    first = {cell.run.name: cell for cell in reversed(cells) if not cell.skip}
    items = [
        InversionWork(
            what=f"inversion {cell.run.name} g={cell.guidance.scale:g}",
            path=row_path(experiment.inversions, cell.run.name, cell.key),
            group=cell.run.name,
            images=edits + (2 * n if cell is first.get(cell.run.name) else 0),
            skip=cell.skip,
            cell=cell,
            bench=bench,
            experiment=experiment,
            device=device,
            inverted=inverted,
        )
        for cell in cells
    ]
    return execute_all(items, experiment, f"inversion {bench.data.name}", batch, reporter)


def _plan(
    planned: Sweep, experiment: Experiment, say: Say
) -> tuple[Bench, list[InversionCell]] | None:
    """The rows of a data set; None, with a message, if its samples are not images."""
    data, study = planned.evaluation.data, planned.study
    if not data.spec.is_image:
        say(f"{data.name}: no inversions, which are measured on images.")
        return None
    bench = prepare_bench(data, study.inversion_samples, experiment)
    scales = study.inversion_guidance or study.guidance
    return bench, [cell for run in planned.runs for cell in plan_inversions(run, scales, bench)]


def invert_runs(
    planned: Sweep, request: SweepRequest, experiment: Experiment, reporter: Reporter
) -> list[str]:
    """Compute the missing rows of a data set; returns one sentence per failed row."""
    found = _plan(planned, experiment, reporter.say)
    if found is None:
        return []
    bench, cells = found
    outcome = sweep_inversions(
        cells, bench, experiment, batch=request.batch, device=request.device, reporter=reporter
    )
    reporter.say(f"{bench.data.name}: {outcome.summary('inversion')}")
    return outcome.failed


def price_inversions(
    planned: Sweep, request: SweepRequest, experiment: Experiment, say: Say
) -> float:
    """Print how many rows are missing and how long they would take; returns the seconds."""
    found = _plan(planned, experiment, say)
    if found is None:
        return 0.0
    bench, cells = found
    n, classes = len(bench.split), bench.data.spec.num_classes
    edits = n * len(edit_targets(bench.split.labels, classes))
    missing = [cell for cell in cells if not cell.skip and not kept(cell, experiment)]
    nfe, seconds = 0, 0.0
    for run in planned.runs:
        own = [cell for cell in missing if cell.run is run]
        if own:
            assert isinstance(run.method, Inverts)
            once = run.method.inversion_nfe() + run.method.edit_nfe(Guidance(1.0))
            count = n * once + sum(edits * run.method.edit_nfe(cell.guidance) for cell in own)
            few = Split(bench.split.samples[:PROBE], bench.split.labels[:PROBE])
            editor = make_editor(run, PROBE, request.device)
            started = time.perf_counter()
            invert_split(editor, few)
            seconds += count * (time.perf_counter() - started) / (len(few) * once)
            nfe += count
    rows = counted(len(cells), "row")
    say(
        f"{bench.data.name}, {counted(n, 'image')} inverted and edited: {len(missing)} of {rows} "
        f"to compute, {nfe:,} network evaluations, about {duration(seconds)}."
    )
    return seconds


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
