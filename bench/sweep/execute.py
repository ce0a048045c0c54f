"""The sweep of one data set: all cells that are missing, shared with other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bench.data import Dataset
from bench.evaluation.prepare import Evaluation
from bench.experiment.place import Experiment
from bench.experiment.rows import Row, read_row, row_path, write_row
from bench.sweep.cells import Cell
from bench.sweep.run import FLOOR_RUN, Outcome, generate, is_done, make_row, run_cell
from bench.sweep.saving import Keep, Saver
from bench.sweep.sharing import claim_path, in_turn
from bench.system import places
from bench.system.claims import tidy_claims
from bench.system.errors import UserError
from bench.system.failures import system_error
from bench.system.files import make_folder, tidy
from bench.system.holder import Holder
from bench.system.memory import Batches
from bench.system.progress import SILENT, Bar, Reporter, Tick
from bench.training.run import Run, load_nets


def sweep(
    cells: Sequence[Cell],
    evaluation: Evaluation,
    experiment: Experiment,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
    saver: Saver | None = None,
) -> Outcome:
    """Execute the missing cells of one data set; a `saver` also keeps the samples of each.

    Other processes may do the same in this folder: a cell is computed by one of them. A failed
    cell is reported and tried again next time; it does not stop the others. A batch that does not
    fit into memory is halved, which changes no sample by more than rounding.
    """
    make_folder(experiment.root)
    places.hold(experiment.root)
    _tidy_up(
        experiment, [FLOOR_RUN.format(evaluation.data.name), *(cell.run.name for cell in cells)]
    )
    work = _Work(evaluation, experiment, Batches(batch, reporter.say), device, saver)
    outcome = work.outcome
    able = [cell for cell in cells if not cell.skip]
    for cell in (cell for cell in cells if cell.skip):
        outcome.skipped += 1
        _write_once(experiment, make_row(cell, evaluation, experiment, "skip", reason=cell.skip))
    with reporter.bar(f"sweep {evaluation.data.name}", sum(cell.n for cell in able)) as bar:
        done = 0

        def waiting(cell: Cell, holder: Holder | None) -> None:
            bar.update(done, f"{cell.what}: waiting for {holder or 'another process'}")

        for cell in in_turn(able, work.claim, work.has_nothing_to_do, waiting):
            try:
                work.do(cell, partial(_ticker, bar, done, cell.what))
            except UserError:
                raise
            except Exception as error:  # the code of a method or metric may fail in any way
                if system_error(error) is not None:  # which the other cells would meet as well
                    raise
                reason = f"{type(error).__name__}: {error}"
                outcome.failed.append(f"{cell.what}: {reason}")
                row = make_row(cell, evaluation, experiment, "failed", reason=reason)
                _write_failure(experiment, row)
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
        saver: Saver | None,
    ) -> None:
        self.evaluation, self.experiment, self.device = evaluation, experiment, device
        self.batches, self.saver = batches, saver
        self.outcome = Outcome()
        self._loaded: tuple[Run, nn.Module] | None = None

    def claim(self, cell: Cell) -> Path:
        return claim_path(row_path(self.experiment.cells, cell.run.name, cell.key))

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
        with self._keep(cell) as keep:
            return run_cell(
                cell, nets, self.evaluation, self.experiment,
                batch=size, device=self.device, tick=tick, keep=keep,
            )  # fmt: skip

    def _save_only(self, row: Row, cell: Cell, size: int, tick: Tick) -> None:
        """Sample a cell that is measured already for its files alone."""
        start = self._unsaved(cell, row, size)
        if self.saver is None or start >= cell.n:
            return
        stream = generate(
            cell.run.method, self._nets(cell.run), cell.guidance, cell.steps, cell.seed, cell.n,
            batch=size, device=self.device, start=start,
        )  # fmt: skip
        tick(start)
        with self.saver.keep(cell, self._data, start) as keep:
            for x, y in stream:
                keep(x, y)
                tick(len(y))

    @property
    def _data(self) -> Dataset:
        return self.evaluation.data

    def _unsaved(self, cell: Cell, row: Row, size: int) -> int:
        """The first sample of a measured cell that is still to be kept as a file."""
        if self.saver is None or row.status != "ok":
            return cell.n
        return self.saver.start(cell, self._data, size)

    def _keep(self, cell: Cell) -> AbstractContextManager[Keep]:
        if self.saver is None:
            return nullcontext(lambda *_: None)
        return self.saver.keep(cell, self._data)

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


def _write_failure(experiment: Experiment, row: Row) -> None:
    # Values that are stored already stay: a failure never replaces a result.
    path = row_path(experiment.cells, row.run, row.key)
    if not path.exists() or read_row(path).status == "failed":
        write_row(experiment.cells, row)


def _tidy_up(experiment: Experiment, runs: Sequence[str]) -> None:
    """Remove what killed sweeps left of files that will not be written again."""
    tidy(experiment.cache)
    for run in runs:
        tidy_claims(experiment.cells / run)
        for folder in (experiment.cells, experiment.samples, experiment.inversions):
            tidy(folder / run)


def _write_once(experiment: Experiment, row: Row) -> None:
    # A skip is decided anew each time; its row changes only if the reason does.
    path = row_path(experiment.cells, row.run, row.key)
    if not path.exists() or read_row(path).reason != row.reason:
        write_row(experiment.cells, row)
