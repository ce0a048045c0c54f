"""One cell of a sweep: sampled, measured, and durable before the next starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset, Split
from bench.evaluation.plan import Measured
from bench.evaluation.prepare import Evaluation, accumulate, floor_split
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Row, Status, read_row, row_path, write_row
from bench.sweep.cells import Cell
from bench.sweep.divergence import Diverged as Diverged
from bench.sweep.divergence import refuse_constant
from bench.sweep.generate import generate as generate
from bench.sweep.preview import TILES, preview
from bench.sweep.saving import Keep
from bench.sweep.sharing import claim_path, in_turn
from bench.system.holder import Holder
from bench.system.progress import Say

FLOOR = "real"
FLOOR_RUN = "{}-" + FLOOR


@dataclass
class Outcome:
    """What a sweep did; `failed` holds one sentence a failed cell."""

    computed: int = 0
    kept: int = 0
    skipped: int = 0
    diverged: int = 0
    failed: list[str] = field(default_factory=list)

    def summary(self, what: str) -> str:
        """The counts in a sentence, where `what` is computed: "cells"."""
        diverged = f" ({self.diverged} diverged)" if self.diverged else ""
        return (
            f"{self.computed} {what} computed{diverged}, {self.kept} kept, {self.skipped} skipped "
            f"with a reason, {len(self.failed)} failed."
        )


class MetricsFailed(Exception):
    """Some metrics of a cell failed; the values of the others are stored."""


def is_done(cell: Cell, evaluation: Evaluation, experiment: Experiment) -> Row | None:
    """The stored row of a cell if it holds every planned value, else None."""
    path = row_path(experiment.cells, cell.run.name, cell.key)
    if not path.exists():
        return None
    row = read_row(path)
    if row.key != cell.key:  # a file of another cell under this name
        return None
    if row.status == "diverged":
        return row
    have = {value.signature for value in row.values}
    wanted = {p.signature for p in evaluation.plan if cell.n >= p.metric.minimum_n}
    return row if row.status == "ok" and wanted <= have else None


def make_row(
    cell: Cell,
    evaluation: Evaluation,
    experiment: Experiment,
    status: Status,
    *,
    reason: str = "",
    **more: Any,
) -> Row:
    """A row of a cell with everything that it depends on."""
    return Row(
        key=cell.key,
        status=status,
        reason=reason,
        experiment=experiment.name,
        dataset=cell.run.card.dataset,
        data_hash=cell.run.card.data_hash or evaluation.data.train.hash,
        method=cell.run.card.method,
        run=cell.run.name,
        train_seed=cell.run.card.seed,
        checkpoint=cell.run.checkpoint,
        null_checkpoint=cell.null_checkpoint,
        weak_checkpoint=cell.weak_checkpoint,
        code=cell.code,
        rule_code=cell.rule_code,
        guidance=cell.guidance.scale,
        rule=cell.rule,
        knobs=cell.guidance.rule.settings() if cell.rule else {},
        knobs_from=cell.knobs_from,
        steps=cell.steps,
        nfe=cell.nfe,
        nfe_weighted=cell.nfe_weighted,
        seed=cell.seed,
        n=cell.n,
        reference=evaluation.reference,
        reference_hash=evaluation.reference_hash,
        reference_n=evaluation.real.n,
        created=now(),
        provenance=provenance(),
        **more,
    )


def run_cell(
    cell: Cell,
    nets: nn.Module,
    evaluation: Evaluation,
    experiment: Experiment,
    *,
    batch: int,
    device: torch.device,
    tick: Callable[[int], None] = lambda _: None,
    keep: Keep = lambda *_: None,
) -> Row:
    """Sample, evaluate and store one cell; `tick` is told of every batch, `keep` gets it."""
    accumulator = evaluation.accumulator()
    samples: list[Tensor] = []
    labels: list[Tensor] = []
    shown = 0
    whole = not evaluation.data.spec.is_image  # a vector's preview needs every sample
    seconds = 0.0
    stream = generate(
        cell.run.method, nets, cell.guidance, cell.steps, cell.seed, cell.n,
        batch=batch, device=device,
    )  # fmt: skip
    try:
        started = time.perf_counter()
        for x, y in refuse_constant(stream):
            seconds += time.perf_counter() - started
            keep(x, y)
            accumulate(accumulator, x, y)
            if whole or shown < TILES:
                samples.append(x)
                labels.append(y)
                shown += len(y)
            tick(len(y))
            started = time.perf_counter()
    except Diverged as error:
        row = make_row(cell, evaluation, experiment, "diverged", reason=str(error))
        write_row(experiment.cells, row)
        return row
    found = evaluation.measure(accumulator.finish(), cell.guidance.scale)
    picture = preview(torch.cat(samples), torch.cat(labels), evaluation.data)
    row = make_row(
        cell,
        evaluation,
        experiment,
        "ok",
        **_merged(cell.run.name, cell.key, evaluation, experiment, found),
        preview=picture,
        seconds_per_image=seconds / cell.n,
    )
    write_row(experiment.cells, row)
    if found.problems:
        raise MetricsFailed("; ".join(found.problems))
    return row


def _merged(
    run: str, key: str, evaluation: Evaluation, experiment: Experiment, fresh: Measured
) -> dict[str, Any]:
    """`fresh` values with the stored ones of other metrics, of the same samples and reference."""
    path = row_path(experiment.cells, run, key)
    row = read_row(path) if path.exists() else None
    if row is None or (row.key, row.reference_hash) != (key, evaluation.reference_hash):
        return {"values": fresh.values, "unmeasured": fresh.unmeasured}
    names = {(v.metric, v.extractor) for v in fresh.values}
    old = [v for v in row.values if (v.metric, v.extractor) not in names]
    values = sorted([*fresh.values, *old], key=lambda v: (v.metric, v.extractor))
    have = {f"{v.metric} {v.extractor}".strip() for v in values}
    reasons = {**row.unmeasured, **fresh.unmeasured}
    return {"values": values, "unmeasured": {k: r for k, r in reasons.items() if k not in have}}


def floor_key(split: Split, evaluation: Evaluation) -> str:
    """The hash of all that a row of real samples depends on."""
    about = {"floor": split.hash, "reference": evaluation.reference_hash, "n": len(split)}
    return digest(about)


def floor_row(
    data: Dataset,
    evaluation: Evaluation,
    experiment: Experiment,
    n: int,
    tell: Say = lambda _: None,
) -> Row | None:
    """Real samples measured like a generated set, stored; None if there are not n of them.

    One process at a time measures them, since values of other metrics are kept.
    """
    split = floor_split(data, n)
    if split is None:
        return None
    key = floor_key(split, evaluation)
    path = row_path(experiment.cells, FLOOR_RUN.format(data.name), key)

    def stored() -> Row | None:
        row = read_row(path) if path.exists() else None
        if row is None or row.key != key:
            return None
        wanted = {p.signature for p in evaluation.plan}
        return row if wanted <= {v.signature for v in row.values} else None

    told = False

    def waiting(_: Path, holder: Holder | None) -> None:
        nonlocal told
        if not told:
            tell(f"{data.name}: {holder or 'another process'} measures real samples; waiting.")
        told = True

    row = None
    for _ in in_turn([path], claim_path, lambda _: stored() is not None, waiting):
        row = stored() or _measure_floor(data, evaluation, experiment, split, key, tell)
    return row


def _measure_floor(
    data: Dataset,
    evaluation: Evaluation,
    experiment: Experiment,
    split: Split,
    key: str,
    tell: Say,
) -> Row:
    n, run = len(split), FLOOR_RUN.format(data.name)
    accumulator = evaluation.accumulator()
    accumulate(accumulator, split.samples, split.labels, tell)
    found = evaluation.measure(accumulator.finish(), 1.0)
    shown = split.part(0, TILES) if data.spec.is_image else split
    row = Row(
        key=key,
        status="ok",
        experiment=experiment.name,
        dataset=data.name,
        data_hash=data.train.hash,
        method=FLOOR,
        run=run,
        train_seed=0,
        checkpoint="",
        guidance=1.0,
        steps=0,
        nfe=0,
        seed=0,
        n=n,
        reference=evaluation.reference,
        reference_hash=evaluation.reference_hash,
        reference_n=evaluation.real.n,
        **_merged(run, key, evaluation, experiment, found),
        preview=preview(shown.samples[:], shown.labels, data),
        created=now(),
        provenance=provenance(),
    )
    write_row(experiment.cells, row)
    return row
