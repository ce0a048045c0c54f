"""Training runs as work items: processes share the runs of a command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.experiment.rows import Status
from bench.sweep.execute import execute
from bench.sweep.work import WorkItem
from bench.system.errors import UserError
from bench.system.leases import LEASE
from bench.system.memory import Batches
from bench.system.progress import SILENT, Tick
from bench.training.price import parameters
from bench.training.study import RunRequest, Trainer, train_run, with_prerequisites


@dataclass(frozen=True, kw_only=True)
class RunWork(WorkItem):
    """A run to be trained, which shows a bar of its own."""

    request: RunRequest
    trainer: Trainer

    @property
    def lease(self) -> Path:
        """The lock of the run's folder, which imports respect too."""
        return self.path.with_name(LEASE)

    def is_done(self, batch: int) -> bool:
        """False: finished weights are checked by `compute`."""
        return False

    def compute(self, batch: int, tick: Tick) -> bool:
        """Train the run; False if it was trained already."""
        trained = self.path.exists()
        train_run(self.request, self.trainer)
        return not trained

    def store(self, status: Status, reason: str) -> None:
        """Store nothing: the run's folder keeps its checkpoints."""


def train_all(requests: Iterable[RunRequest], trainer: Trainer) -> None:
    """Train the runs and those that they start from; processes share them if there are several.

    UserError if one failed, after the others.
    """
    runs = with_prerequisites(requests, trainer)
    if len(runs) == 1 or trainer.fabric.world_size > 1:  # torchrun's train each run together
        for run in runs:
            train_run(run, trainer)
        return
    items = [
        RunWork(
            what=name,
            path=trainer.weights(name),
            images=0,
            after=[trainer.weights(needed) for needed in sources],
            request=run,
            trainer=trainer,
        )
        for name, run, sources in _longest_first(runs)
    ]
    bar = SILENT.bar("", 0)
    outcome = execute(items, trainer.experiment, bar, Batches(1), trainer.reporter.say)
    if outcome.failed:
        raise UserError(f"Training failed: {'; '.join(outcome.failed)}.")


def _longest_first(runs: Sequence[RunRequest]) -> list[tuple[str, RunRequest, list[str]]]:
    """Names, runs, and the runs that they start from.

    First comes whatever takes longest together with the runs that start from it.
    """
    by_name = {run.card().name: run for run in runs}
    sources = {
        name: [needed for s in run.prerequisites().values() if (needed := s.card().name) in by_name]
        for name, run in by_name.items()
    }

    def length(name: str) -> float:
        after = [length(other) for other in by_name if name in sources[other]]
        return _work(by_name[name]) + max(after, default=0.0)

    ordered = sorted(by_name, key=length, reverse=True)
    return [(name, by_name[name], sources[name]) for name in ordered]


def _work(run: RunRequest) -> float:
    """Pixels times parameters over a run's training, to which its time is about proportional."""
    card, spec = run.card(), run.data.spec
    assert card.train is not None
    pixels = math.prod(spec.shape[1:])
    return card.train.iterations * card.train.batch * parameters(card, run.data) * pixels
