"""Cells and the floor to rows: sampled, measured, and each stored before the next starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.data import Split
from bench.evaluation.plan import Measured
from bench.evaluation.prepare import Evaluation, accumulate
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Row, Status, row_path, stored_row, write_reason, write_row
from bench.sweep.cells import Cell
from bench.sweep.execute import Outcome, execute_all
from bench.sweep.generate import Diverged, refuse_constant
from bench.sweep.preview import TILES, preview
from bench.sweep.ranks import stream
from bench.sweep.sampler import Sampler
from bench.sweep.saving import SampleFiles
from bench.sweep.twins import Twins
from bench.sweep.work import WorkItem
from bench.system.files import tidy
from bench.system.leases import tidy_leases
from bench.system.progress import SILENT, Reporter, Tick
from bench.system.record import record
from methods import Method
from methods.rules.needs import weighted
from methods.rules.record import Record
from metrics.base import SampleSet

FLOOR = "real"
FLOOR_RUN = "{}-" + FLOOR


class MetricsFailed(Exception):
    """Some metrics of a cell failed; the values of the others are stored."""


def complete_row(
    about: Mapping[str, Any], evaluation: Evaluation, experiment: Experiment
) -> Row | None:
    """The stored row if it diverged or holds every planned value, else None.

    `about` are the fields of the row that describe its samples. A row that was run only for
    comparisons does not count for a cell of its own.
    """
    row = stored_row(experiment.cells, about["run"], about["key"])
    if row is not None and row.only_matched and not about.get("only_matched"):
        return None
    if row is None or row.status == "diverged":
        return row
    wanted = {
        p.signature
        for p in evaluation.plan
        if row.n >= p.metric.minimum_n
        # Whether sampling can be metered depends on what the key covers.
        and not (p.metric.of_sampling and p.key in row.unmeasured)
    }
    whole = row.status == "ok" and wanted <= {value.signature for value in row.values}
    return row if whole else None


@dataclass(frozen=True, kw_only=True)
class RowWork(WorkItem):
    """A row to be measured: of a cell, or of the floor."""

    about: Mapping[str, Any]
    """The fields of the row that describe its samples, such as `Cell.about`."""
    evaluation: Evaluation
    experiment: Experiment

    def complete(self) -> Row | None:
        """The stored row, None if values are missing."""
        return complete_row(self.about, self.evaluation, self.experiment)

    def is_done(self, batch: int) -> bool:
        """Whether the row is complete."""
        return self.complete() is not None

    def store(self, status: Status, reason: str) -> None:
        """Store why there is no result."""
        write_reason(self.experiment.cells, self._row(status, reason=reason))

    def finish(self, found: Measured, **more: Any) -> None:
        """Store measured values with those of other metrics; MetricsFailed for problems."""
        values = _merged(
            self.about["run"], self.about["key"], self.evaluation, self.experiment, found
        )
        write_row(self.experiment.cells, self._row("ok", **values, **more))
        if found.problems:
            raise MetricsFailed("; ".join(found.problems))

    def _row(self, status: Status, **more: Any) -> Row:
        return Row(
            **{**self.about, **more},
            status=status,
            experiment=self.experiment.name,
            reference=self.evaluation.reference,
            reference_hash=self.evaluation.reference_hash,
            reference_n=self.evaluation.real.n,
            created=now(),
            provenance=provenance(),
        )


@dataclass(frozen=True, kw_only=True)
class CellWork(RowWork):
    """A cell to be sampled and measured; `files` also get its samples."""

    cell: Cell
    sampler: Sampler
    twins: Twins
    files: SampleFiles | None = None

    def is_done(self, batch: int) -> bool:
        """Whether the row is complete and no sample file is missing."""
        row = self.complete()
        return row is not None and self._unsaved(row, batch) >= self.cell.n

    def seconds_of_work(self) -> float | None:
        """The seconds of sampling in its row."""
        row = stored_row(self.experiment.cells, self.cell.run.name, self.cell.key)
        return row.seconds_per_image * row.n if row is not None and row.status == "ok" else None

    def compute(self, batch: int, tick: Tick) -> bool:
        """Sample, measure and store the cell, or only sample it for its files."""
        row = self.complete()
        if row is None:
            self._measure(batch, tick)
            return True
        start = self._unsaved(row, batch)
        if self.files is not None and start < self.cell.n:
            tick(start)
            with self.files.open(self.cell, self.evaluation.data, start) as writer:
                for x, y in stream(
                    self.cell, self.evaluation, self.sampler, batch, start, features=False
                ):
                    writer.add(x, y)
                    tick(len(y))
        return False

    def _measure(self, batch: int, tick: Tick) -> None:
        cell, data = self.cell, self.evaluation.data
        made = stream(cell, self.evaluation, self.sampler, batch)
        accumulator = replace(self.evaluation, extractors=made.extractors).accumulator()
        samples: list[Tensor] = []
        labels: list[Tensor] = []
        shown = 0
        whole = not data.spec.is_image  # a vector's preview needs every sample
        with nullcontext() if self.files is None else self.files.open(cell, data) as writer:
            try:
                for x, y in refuse_constant(iter(made)):
                    if writer is not None:
                        writer.add(x, y)
                    accumulate(accumulator, x, y, tick)
                    if whole or shown < TILES:
                        samples.append(x)
                        labels.append(y)
                        shown += len(y)
            except Diverged:
                if writer is not None:
                    writer.discard()
                raise
            measured = accumulator.finish()
            twins = self._unguided(measured, batch)
            metered, pushes = made.record.sums()
            found = self.evaluation.measure(
                measured, cell.guidance.scale, twins, metered=metered, pushes=pushes,
                unmetered=made.record.unmetered or _unmetered(cell.run.method),
            )  # fmt: skip
            shown_samples = preview(torch.cat(samples), torch.cat(labels), data)
            on_cpu = self.sampler.device.type == "cpu"
            self.finish(
                found, preview=shown_samples, seconds_per_image=made.seconds / cell.n,
                decoder_seconds_per_image=made.decoding / cell.n,
                cpu_share=made.cpu_share if on_cpu else None, **self._cost(made.record),
            )  # fmt: skip

    def _cost(self, record: Record) -> dict[str, float]:
        """The evaluations that were counted, if outputs decided how many there are."""
        guidance, method = self.cell.guidance, self.cell.run.method
        if not guidance.acts or not guidance.rule.data_dependent or not record.values:
            return {}
        counts = record.evaluations()
        cost = weighted(counts, method.costs())
        return {"nfe": round(sum(counts.values())), "nfe_weighted": cost}

    def _unguided(self, samples: SampleSet, batch: int) -> SampleSet | None:
        """The samples of the same noise at g = 1, whose time is not that of the cell."""
        if not self.evaluation.of_twins:
            return None
        cell = self.cell
        noise = (
            cell.run.name, cell.run.checkpoint, cell.steps, cell.seed, cell.n, cell.labels,
            cell.sampler,
        )  # fmt: skip
        if not cell.guidance.acts:  # some rules act at g = 1 too
            return self.twins.keep(noise, samples)
        return self.twins.get(
            noise, lambda: stream(cell, self.evaluation, self.sampler, batch, off=True)
        )

    def _unsaved(self, row: Row, batch: int) -> int:
        """The first sample of a measured cell that has no file yet; `cell.n` if none is wanted."""
        if self.files is None or row.status != "ok":
            return self.cell.n
        return self.files.start(self.cell, self.evaluation.data, batch)


def _unmetered(method: Method[Any]) -> str:
    """Why sampling with a method gives no strength of guidance."""
    if method.guidance == "embedded":
        return "guidance is learnt in training, so no two outputs are combined while sampling"
    if method.guidance == "none":
        return f"{method.name} takes no guidance"
    return f"{method.name} does not sample with methods.rules.trajectory.sample_guided"


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
    sampler, twins = Sampler(device), Twins()
    items = [
        CellWork(
            what=cell.what,
            path=row_path(experiment.cells, cell.run.name, cell.key),
            images=cell.n,
            skip=cell.skip,
            group=cell.run.name,
            work=cell.n * cell.nfe,
            about=cell.about(),
            cell=cell,
            evaluation=evaluation,
            experiment=experiment,
            sampler=sampler,
            twins=twins,
            files=files,
        )
        for cell in cells
    ]
    tidy(experiment.cache)
    tidy_leases(experiment.cache)
    for name in dict.fromkeys(cell.run.name for cell in cells):
        tidy(experiment.samples / name)
    return execute_all(items, experiment, _title(evaluation.data.name), batch, reporter)


def _title(data: str) -> str:
    return f"sweep {data}"


def record_cells(cells: Sequence[Cell], data: str, experiment: Experiment) -> None:
    """Record the cells of a data set before its turn comes, as `execute` does."""
    paths = [(row_path(experiment.cells, c.run.name, c.key), c.what) for c in cells if not c.skip]
    record(_title(data), paths)


def _merged(
    run: str, key: str, evaluation: Evaluation, experiment: Experiment, fresh: Measured
) -> dict[str, Any]:
    """`fresh` values and the stored values of other metrics, if the reference is the same."""
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
    """The key of a row of real samples."""
    about = {"floor": split.hash, "reference": evaluation.reference_hash, "n": len(split)}
    return digest(about)


@dataclass(frozen=True, kw_only=True)
class FloorWork(RowWork):
    """Real samples to be measured like a generated set."""

    split: Split

    def compute(self, batch: int, tick: Tick) -> bool:
        """Measure and store the samples."""
        split, data = self.split, self.evaluation.data
        accumulator = self.evaluation.accumulator()
        accumulate(accumulator, split.samples, split.labels, tick)
        found = self.evaluation.measure(accumulator.finish(), 1.0)
        shown = split.part(0, TILES) if data.spec.is_image else split
        self.finish(found, preview=preview(shown.samples[:], shown.labels, data))
        return True


def sweep_floor(
    split: Split, evaluation: Evaluation, experiment: Experiment, reporter: Reporter = SILENT
) -> Outcome:
    """Measure real samples that are not the reference, unless their row is stored."""
    data, n = evaluation.data, len(split)
    about = {"key": floor_key(split, evaluation), "run": FLOOR_RUN.format(data.name)}
    about |= {"dataset": data.name, "data_hash": data.train.hash}
    about |= {"method": FLOOR, "checkpoint": ""}
    numbers = {"guidance": 1.0, "steps": 0, "nfe": 0, "seed": 0, "train_seed": 0, "n": n}
    item = FloorWork(
        what=f"real samples of {data.name}",
        path=row_path(experiment.cells, about["run"], about["key"]),
        images=n,
        about={**about, **numbers},
        split=split,
        evaluation=evaluation.unsampled(),
        experiment=experiment,
    )
    return execute_all([item], experiment, _title(data.name), n, reporter)
