"""The sweep of one data set: all cells that are missing, shared with other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bench.data import Dataset
from bench.data.samples.write import SampleWriter
from bench.evaluation.prepare import Evaluation, floor_split
from bench.experiment.place import Experiment
from bench.experiment.rows import Row, row_path, write_reason
from bench.sweep.cells import Cell
from bench.sweep.generate import generate
from bench.sweep.run import (
    FLOOR_RUN,
    floor_key,
    is_done,
    make_row,
    measure_floor,
    run_cell,
    stored_floor,
)
from bench.sweep.saving import SampleFiles
from bench.system import places
from bench.system.errors import UserError
from bench.system.failures import system_error
from bench.system.files import make_folder, tidy
from bench.system.leases import tidy_leases
from bench.system.memory import Batches
from bench.system.progress import SILENT, Bar, Reporter, Say, Tick
from bench.system.sharing import in_turn, lease_path
from bench.training.run import Run, load_nets


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
    """Execute the missing cells of one data set; `files` also get the samples of each.

    Other processes may do the same in this folder: a cell is computed by one of them. A failed
    cell is reported and tried again next time; it does not stop the others. A batch that does not
    fit into memory is halved, which changes no sample by more than rounding.
    """
    make_folder(experiment.root)
    places.hold(experiment.root)
    _tidy_up(
        experiment, [FLOOR_RUN.format(evaluation.data.name), *(cell.run.name for cell in cells)]
    )
    work = _Work(evaluation, experiment, Batches(batch, reporter.say), device, files)
    outcome = work.outcome
    able = [cell for cell in cells if not cell.skip]
    for cell in (cell for cell in cells if cell.skip):
        outcome.skipped += 1
        row = make_row(cell.about(), evaluation, experiment, "skip", reason=cell.skip)
        write_reason(experiment.cells, row)
    with reporter.bar(f"sweep {evaluation.data.name}", sum(cell.n for cell in able)) as bar:
        done = 0

        def waiting(cell: Cell, holder: str) -> None:
            bar.update(done, f"{cell.what}: waiting for {holder}")

        for cell in in_turn(able, work.lease_path, work.has_nothing_to_do, waiting):
            try:
                work.do(cell, partial(_ticker, bar, done, cell.what))
            except UserError:
                raise
            except Exception as error:  # the code of a method or metric may fail in any way
                if system_error(error) is not None:  # which the other cells would meet as well
                    raise
                reason = f"{type(error).__name__}: {error}"
                outcome.failed.append(f"{cell.what}: {reason}")
                row = make_row(cell.about(), evaluation, experiment, "failed", reason=reason)
                write_reason(experiment.cells, row)
            done += cell.n
            bar.update(done, cell.what)
    return outcome


class _Work:
    """What the cells of one sweep have in common."""

    def __init__(
        self,
        evaluation: Evaluation,
        experiment: Experiment,
        batches: Batches,
        device: torch.device,
        files: SampleFiles | None,
    ) -> None:
        self.evaluation, self.experiment, self.device = evaluation, experiment, device
        self.batches, self.files = batches, files
        self.outcome = Outcome()
        self._loaded: tuple[Run, nn.Module] | None = None

    def lease_path(self, cell: Cell) -> Path:
        return lease_path(row_path(self.experiment.cells, cell.run.name, cell.key))

    def has_nothing_to_do(self, cell: Cell) -> bool:
        row = is_done(cell, self.evaluation, self.experiment)
        return row is not None and self._unsaved(cell, row, self.batches.size) >= cell.n

    def do(self, cell: Cell, ticker: Callable[[], Tick]) -> None:
        """Compute a cell, or only its samples' files where its row is there; counts the outcome."""
        kept = is_done(cell, self.evaluation, self.experiment)
        if kept is not None:
            self.batches.run(cell.what, lambda size: self._save_only(kept, cell, size, ticker()))
            self.outcome.kept += 1
            return
        row = self.batches.run(cell.what, lambda size: self._measure(cell, size, ticker()))
        self.outcome.computed += 1
        self.outcome.diverged += row.status == "diverged"

    def _measure(self, cell: Cell, size: int, tick: Tick) -> Row:
        nets = self._nets(cell.run)
        with self._writer(cell) as writer:
            return run_cell(
                cell, nets, self.evaluation, self.experiment,
                batch=size, device=self.device, tick=tick, writer=writer,
            )  # fmt: skip

    def _save_only(self, row: Row, cell: Cell, size: int, tick: Tick) -> None:
        """Sample a cell that is measured already for its files alone."""
        start = self._unsaved(cell, row, size)
        if self.files is None or start >= cell.n:
            return
        stream = generate(
            cell.run.method, self._nets(cell.run), cell.guidance, cell.steps, cell.seed, cell.n,
            batch=size, device=self.device, start=start,
        )  # fmt: skip
        tick(start)
        with self.files.open(cell, self.evaluation.data, start) as writer:
            for x, y in stream:
                writer.add(x, y)
                tick(len(y))

    def _unsaved(self, cell: Cell, row: Row, size: int) -> int:
        """The first sample of a measured cell that has no file yet; `cell.n` if none is wanted."""
        if self.files is None or row.status != "ok":
            return cell.n
        return self.files.start(cell, self.evaluation.data, size)

    def _writer(self, cell: Cell) -> AbstractContextManager[SampleWriter | None]:
        return nullcontext() if self.files is None else self.files.open(cell, self.evaluation.data)

    def _nets(self, run: Run) -> nn.Module:
        """The networks of a run, held until another is asked for."""
        if self._loaded is None or self._loaded[0] is not run:
            self._loaded = None
            self._loaded = (run, load_nets(run, self.device))
        return self._loaded[1]


def _ticker(bar: Bar, done: int, what: str) -> Tick:
    """Counts the images of one cell on top of those already done."""
    total = done

    def tick(images: int) -> None:
        nonlocal total
        total += images
        bar.update(total, what)

    return tick


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
    path = row_path(experiment.cells, FLOOR_RUN.format(data.name), floor_key(split, evaluation))

    def waiting(_: Path, holder: str) -> None:
        tell(f"{data.name}: {holder} measures real samples; waiting.")

    def stored(_: Path) -> Row | None:
        return stored_floor(split, evaluation, experiment)

    row = None
    for _ in in_turn([path], lease_path, lambda path: stored(path) is not None, waiting):
        row = stored(path) or measure_floor(data, evaluation, experiment, split, tell)
    return row


def _tidy_up(experiment: Experiment, runs: Sequence[str]) -> None:
    """Remove what killed sweeps left of files that will not be written again."""
    tidy(experiment.cache)
    for run in runs:
        tidy_leases(experiment.cells / run)
        for folder in (experiment.cells, experiment.samples, experiment.inversions):
            tidy(folder / run)
