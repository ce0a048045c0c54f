"""One cell of a sweep, or the floor, to a row: sampled, measured, and durable at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset, Split
from bench.data.samples.write import SampleWriter
from bench.evaluation.plan import Measured
from bench.evaluation.prepare import Evaluation, accumulate
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Row, Status, stored_row, write_row
from bench.sweep.cells import Cell
from bench.sweep.generate import Diverged, generate, refuse_constant
from bench.sweep.preview import TILES, preview
from bench.system.progress import Say, Tick

FLOOR = "real"
FLOOR_RUN = "{}-" + FLOOR


class MetricsFailed(Exception):
    """Some metrics of a cell failed; the values of the others are stored."""


def is_done(cell: Cell, evaluation: Evaluation, experiment: Experiment) -> Row | None:
    """The stored row of a cell if it holds every planned value, else None."""
    row = stored_row(experiment.cells, cell.run.name, cell.key)
    if row is None or row.status == "diverged":
        return row
    return row if row.status == "ok" and _has_values(row, evaluation) else None


def _has_values(row: Row, evaluation: Evaluation) -> bool:
    wanted = {p.signature for p in evaluation.plan if row.n >= p.metric.minimum_n}
    return wanted <= {value.signature for value in row.values}


def make_row(
    about: Mapping[str, Any],
    evaluation: Evaluation,
    experiment: Experiment,
    status: Status,
    **more: Any,
) -> Row:
    """A row with everything that it depends on: `about` its samples, such as `Cell.about`."""
    return Row(
        **about,
        status=status,
        experiment=experiment.name,
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
    tick: Tick = lambda _: None,
    writer: SampleWriter | None = None,
) -> Row:
    """Sample, evaluate and store one cell; `writer` gets its samples."""
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
            if writer is not None:
                writer.add(x, y)
            accumulate(accumulator, x, y)
            if whole or shown < TILES:
                samples.append(x)
                labels.append(y)
                shown += len(y)
            tick(len(y))
            started = time.perf_counter()
    except Diverged as error:
        row = make_row(cell.about(), evaluation, experiment, "diverged", reason=str(error))
        write_row(experiment.cells, row)
        return row
    found = evaluation.measure(accumulator.finish(), cell.guidance.scale)
    row = make_row(
        cell.about(),
        evaluation,
        experiment,
        "ok",
        **_merged(cell.run.name, cell.key, evaluation, experiment, found),
        preview=preview(torch.cat(samples), torch.cat(labels), evaluation.data),
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
    row = stored_row(experiment.cells, run, key)
    if row is None or row.reference_hash != evaluation.reference_hash:
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


def stored_floor(split: Split, evaluation: Evaluation, experiment: Experiment) -> Row | None:
    """The stored row of real samples if it holds every planned value, else None."""
    run, key = FLOOR_RUN.format(evaluation.data.name), floor_key(split, evaluation)
    row = stored_row(experiment.cells, run, key)
    return row if row is not None and _has_values(row, evaluation) else None


def measure_floor(
    data: Dataset, evaluation: Evaluation, experiment: Experiment, split: Split, tell: Say
) -> Row:
    """Measure and store real samples like a cell."""
    run, key = FLOOR_RUN.format(data.name), floor_key(split, evaluation)
    accumulator = evaluation.accumulator()
    accumulate(accumulator, split.samples, split.labels, tell)
    found = evaluation.measure(accumulator.finish(), 1.0)
    shown = split.part(0, TILES) if data.spec.is_image else split
    about = {"key": key, "run": run, "dataset": data.name, "data_hash": data.train.hash}
    about |= {"method": FLOOR, "checkpoint": ""}
    numbers = {"guidance": 1.0, "steps": 0, "nfe": 0, "seed": 0, "train_seed": 0, "n": len(split)}
    row = make_row(
        {**about, **numbers},
        evaluation,
        experiment,
        "ok",
        **_merged(run, key, evaluation, experiment, found),
        preview=preview(shown.samples[:], shown.labels, data),
    )
    write_row(experiment.cells, row)
    return row
