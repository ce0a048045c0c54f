"""Cells and the floor to rows: sampled, measured, and each stored before the next starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Split
from bench.evaluation.plan import Measured
from bench.evaluation.prepare import Evaluation, accumulate
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Row, Status, row_path, stored_row, write_reason, write_row
from bench.sweep.cells import Cell
from bench.sweep.execute import Outcome, execute
from bench.sweep.generate import Diverged, generate, refuse_constant
from bench.sweep.preview import TILES, preview
from bench.sweep.saving import SampleFiles
from bench.sweep.work import Latest, WorkItem
from bench.system.files import tidy
from bench.system.memory import Batches
from bench.system.progress import SILENT, Reporter, Tick
from bench.training.run import Run, load_nets

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


@dataclass(frozen=True, kw_only=True)
class CellWork(WorkItem):
    """A cell to be sampled and measured; `files` also get its samples."""

    cell: Cell
    evaluation: Evaluation
    experiment: Experiment
    device: torch.device
    nets: Latest[Run, nn.Module]
    files: SampleFiles | None = None

    def is_done(self, batch: int) -> bool:
        """Whether the row is complete and no sample file is missing."""
        row = is_done(self.cell, self.evaluation, self.experiment)
        return row is not None and self._unsaved(row, batch) >= self.cell.n

    def compute(self, batch: int, tick: Tick) -> bool:
        """Sample, measure and store the cell, or only sample it for its files."""
        row = is_done(self.cell, self.evaluation, self.experiment)
        if row is None:
            self._measure(batch, tick)
            return True
        start = self._unsaved(row, batch)
        if self.files is not None and start < self.cell.n:
            tick(start)
            with self.files.open(self.cell, self.evaluation.data, start) as writer:
                for x, y in self._generate(batch, start):
                    writer.add(x, y)
                    tick(len(y))
        return False

    def store(self, status: Status, reason: str) -> None:
        """Store why there is no result."""
        row = make_row(self.cell.about(), self.evaluation, self.experiment, status, reason=reason)
        write_reason(self.experiment.cells, row)

    def _measure(self, batch: int, tick: Tick) -> None:
        cell, data = self.cell, self.evaluation.data
        accumulator = self.evaluation.accumulator()
        samples: list[Tensor] = []
        labels: list[Tensor] = []
        shown = 0
        whole = not data.spec.is_image  # a vector's preview needs every sample
        seconds = 0.0
        stream = self._generate(batch)
        with nullcontext() if self.files is None else self.files.open(cell, data) as writer:
            try:
                started = time.perf_counter()
                for x, y in refuse_constant(stream):
                    seconds += time.perf_counter() - started
                    if writer is not None:
                        writer.add(x, y)
                    accumulate(accumulator, x, y, tick)
                    if whole or shown < TILES:
                        samples.append(x)
                        labels.append(y)
                        shown += len(y)
                    started = time.perf_counter()
            except Diverged:
                if writer is not None:
                    writer.discard()
                raise
            found = self.evaluation.measure(accumulator.finish(), cell.guidance.scale)
            _store(
                cell.about(),
                found,
                self.evaluation,
                self.experiment,
                preview=preview(torch.cat(samples), torch.cat(labels), data),
                seconds_per_image=seconds / cell.n,
            )

    def _generate(self, batch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        cell = self.cell
        nets = self.nets.get(cell.run, lambda: load_nets(cell.run, self.device))
        return generate(
            cell.run.method, nets, cell.guidance, cell.steps, cell.seed, cell.n,
            batch=batch, device=self.device, start=start,
        )  # fmt: skip

    def _unsaved(self, row: Row, batch: int) -> int:
        """The first sample of a measured cell that has no file yet; `cell.n` if none is wanted."""
        if self.files is None or row.status != "ok":
            return self.cell.n
        return self.files.start(self.cell, self.evaluation.data, batch)


def sweep(
    cells: Sequence[Cell],
    evaluation: Evaluation,
    experiment: Experiment,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
    files: SampleFiles | None = None,
) -> Outcome:
    """Compute the missing cells of one data set; `files` also get the samples of each."""
    nets: Latest[Run, nn.Module] = Latest()
    items = [
        CellWork(
            what=cell.what,
            path=row_path(experiment.cells, cell.run.name, cell.key),
            images=cell.n,
            skip=cell.skip,
            cell=cell,
            evaluation=evaluation,
            experiment=experiment,
            device=device,
            nets=nets,
            files=files,
        )
        for cell in cells
    ]
    tidy(experiment.cache)
    for name in dict.fromkeys(cell.run.name for cell in cells):
        tidy(experiment.samples / name)
    total = sum(item.images for item in items if not item.skip)
    with reporter.bar(f"sweep {evaluation.data.name}", total) as bar:
        return execute(items, experiment, bar, Batches(batch, reporter.say), reporter.say)


def _store(
    about: Mapping[str, Any],
    found: Measured,
    evaluation: Evaluation,
    experiment: Experiment,
    **more: Any,
) -> None:
    """Store measured values; MetricsFailed if there are problems."""
    values = _merged(about["run"], about["key"], evaluation, experiment, found)
    write_row(experiment.cells, make_row(about, evaluation, experiment, "ok", **values, **more))
    if found.problems:
        raise MetricsFailed("; ".join(found.problems))


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


@dataclass(frozen=True, kw_only=True)
class FloorWork(WorkItem):
    """Real samples to be measured like a generated set."""

    split: Split
    evaluation: Evaluation
    experiment: Experiment

    def is_done(self, batch: int) -> bool:
        """Whether the row is complete."""
        return stored_floor(self.split, self.evaluation, self.experiment) is not None

    def compute(self, batch: int, tick: Tick) -> bool:
        """Measure and store the samples."""
        split, data = self.split, self.evaluation.data
        accumulator = self.evaluation.accumulator()
        accumulate(accumulator, split.samples, split.labels, tick)
        found = self.evaluation.measure(accumulator.finish(), 1.0)
        about = self._about()
        shown = split.part(0, TILES) if data.spec.is_image else split
        picture = preview(shown.samples[:], shown.labels, data)
        _store(about, found, self.evaluation, self.experiment, preview=picture)
        return True

    def store(self, status: Status, reason: str) -> None:
        """Store why there is no result."""
        row = make_row(self._about(), self.evaluation, self.experiment, status, reason=reason)
        write_reason(self.experiment.cells, row)

    def _about(self) -> dict[str, Any]:
        data = self.evaluation.data
        about = {"key": floor_key(self.split, self.evaluation), "run": FLOOR_RUN.format(data.name)}
        about |= {"dataset": data.name, "data_hash": data.train.hash}
        about |= {"method": FLOOR, "checkpoint": ""}
        numbers = {"guidance": 1.0, "steps": 0, "nfe": 0, "seed": 0, "train_seed": 0}
        return {**about, **numbers, "n": len(self.split)}


def sweep_floor(
    split: Split, evaluation: Evaluation, experiment: Experiment, reporter: Reporter = SILENT
) -> Outcome:
    """Measure real samples that are not the reference, unless their row is stored."""
    data, n = evaluation.data, len(split)
    run, key = FLOOR_RUN.format(data.name), floor_key(split, evaluation)
    item = FloorWork(
        what=f"real samples of {data.name}",
        path=row_path(experiment.cells, run, key),
        images=n,
        split=split,
        evaluation=evaluation,
        experiment=experiment,
    )
    with reporter.bar(item.what, n) as bar:
        return execute([item], experiment, bar, Batches(n), reporter.say)
