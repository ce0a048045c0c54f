"""Training runs as work items: processes share the runs of a command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.stand_in import RandomImages
from bench.experiment.rows import Status
from bench.sweep.execute import execute
from bench.sweep.work import WorkItem
from bench.system.errors import UserError
from bench.system.leases import LEASE
from bench.system.memory import Batches
from bench.system.progress import SILENT, Tick, duration
from bench.system.workers import End, current_crew, is_worker
from bench.training.price import describe, parameters
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

    def is_stored(self, batch: int) -> bool:
        """Whether it has weights."""
        return self.path.exists()

    def compute(self, batch: int, tick: Tick) -> bool:
        """Train the run; False if it was trained already."""
        missing = [path.parent.name for path in self.after if not path.exists()]
        if missing:  # the runs that do not need it continue
            raise ValueError(f"{missing[0]}, which it starts from, has no weights")
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
    crew = current_crew()
    if (len(runs) == 1 and crew.alone) or trainer.fabric.world_size > 1:
        for run in runs:  # which torchrun's processes train together
            train_run(run, trainer)
            crew.end(trainer.weights(run.card().name), End("computed"))
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
    bar = SILENT.bar("train", 0)
    outcome = execute(items, trainer.experiment, bar, Batches(1), trainer.reporter.say)
    if outcome.failed and not is_worker():  # whose command reports it
        raise UserError(f"Training failed: {'; '.join(outcome.failed)}.")


def price_all(requests: Iterable[RunRequest], trainer: Trainer, workers: int) -> None:
    """Print settings, size and expected time of each run, and the time until all are trained.

    Includes the runs that they start from. Other seeds of a described run are only named.
    """
    runs, say = with_prerequisites(requests, trainer), trainer.reporter.say
    for data in {run.data.name: run.data for run in runs}.values():
        if isinstance(data, RandomImages):
            say(
                f"{data.name} is missing, and needed for training: bench data prepare SOURCE "
                f"--dataset {data.name}."
            )
    seconds: dict[str, float] = {}
    first: dict[str, str] = {}
    for run in runs:
        card = run.card().model_copy(update={"precision": trainer.precision})
        alike = first.setdefault(str(card.model_copy(update={"name": "", "seed": 0})), card.name)
        if alike == card.name:
            text, seconds[card.name] = describe(card, run.data, trainer.fabric.device)
            say(text)
        else:
            seconds[card.name] = seconds[alike]
            say(f"{card.name}: as {alike}, with seed {card.seed}.")
    todo = {name: seconds[name] for name in seconds if not trainer.weights(name).exists()}
    total, workers = _side_by_side(runs, todo, workers), max(1, min(workers, len(todo)))
    if not math.isnan(total):
        already = f"; {len(runs) - len(todo)} are trained already" if len(todo) < len(runs) else ""
        count = f"{workers} worker{'s' * (workers > 1)}"
        say(f"All runs: about {duration(total)} with {count}{already}.")


def _side_by_side(runs: Sequence[RunRequest], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until the runs are trained side by side, each after those that it starts from."""
    waiting = {name: after for name, _, after in _longest_first(runs) if name in seconds}
    ends: dict[str, float] = {}
    free = [0.0] * workers
    while waiting:
        now = min(free)
        starts = {
            name: max([now, *(ends.get(other, math.inf) for other in after if other in seconds)])
            for name, after in waiting.items()
        }
        name = min(starts, key=lambda name: starts[name])  # of several, the first
        ends[name] = starts[name] + seconds[name]
        free[free.index(now)] = ends[name]
        del waiting[name]
    return max(ends.values(), default=0.0)


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
