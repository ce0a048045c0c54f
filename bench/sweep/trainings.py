"""Training runs as work items: processes share the runs of a command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.stand_in import RandomImages
from bench.experiment.rows import Status
from bench.sweep.execute import execute
from bench.sweep.work import WorkItem
from bench.system.errors import UserError, counted
from bench.system.leases import LEASE
from bench.system.memory import Batches
from bench.system.progress import Tick, duration
from bench.system.workers import End, current_crew, is_worker
from bench.training.checkpoint import trained_steps
from bench.training.price import NoRoom, describe, parameters, train_rate
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

    @property
    def measured(self) -> int:
        """None of its steps."""
        return 0

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
        train_run(self.request, replace(self.trainer, tick=tick))
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
    left = {run.card().name: _steps_left(run, trainer) for run in runs}
    work = _works(runs, trainer, measured=crew.alone)
    items = [
        RunWork(
            what=name,
            path=trainer.weights(name),
            images=left[name],
            work=work[name],
            after=[trainer.weights(needed) for needed in sources],
            request=run,
            trainer=trainer,
        )
        for name, run, sources in _longest_first(runs)
    ]
    with trainer.reporter.bar("train", sum(left.values()), shared=True) as bar:
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
    whole: dict[str, float] = {}
    todo: dict[str, float] = {}
    for run, alike in _alike(runs):
        card = run.card().model_copy(update={"precision": trainer.precision})
        if alike == card.name:
            text, whole[card.name] = describe(card, run.data, trainer.fabric.device)
            say(text)
        else:
            say(f"{card.name}: as {alike}, with seed {card.seed}.")
        if share := _share_left(run, trainer):
            todo[card.name] = whole[alike] * share
    total, workers = _side_by_side(runs, todo, workers), max(1, min(workers, len(todo)))
    if not math.isnan(total):
        already = f"; {len(runs) - len(todo)} are trained already" if len(todo) < len(runs) else ""
        say(f"All runs: about {duration(total)} with {counted(workers, 'worker')}{already}.")


def _alike(runs: Iterable[RunRequest]) -> Iterator[tuple[RunRequest, str]]:
    """Each run with the name of the first that differs by no more than its seed."""
    first: dict[str, str] = {}
    for run in runs:
        card = run.card()
        yield run, first.setdefault(str(card.model_copy(update={"name": "", "seed": 0})), card.name)


def _steps_left(run: RunRequest, trainer: Trainer) -> int:
    """The steps that a training has not done yet."""
    card = run.card()
    assert card.train is not None
    weights = trainer.weights(card.name)
    return 0 if weights.exists() else card.train.iterations - trained_steps(weights.parent)


def _share_left(run: RunRequest, trainer: Trainer) -> float:
    """The same as a share of all its steps."""
    card = run.card()
    assert card.train is not None
    return _steps_left(run, trainer) / card.train.iterations


def _works(runs: Sequence[RunRequest], trainer: Trainer, *, measured: bool) -> dict[str, float]:
    """What is left of each training, proportional to its time.

    If `measured`, from a few steps of each, as in a dry run: methods evaluate their networks more
    or less often per step. Otherwise, or if memory is short, by parameters and pixels.
    """
    found: dict[str, float] = {}
    by_name = {run.card().name: run for run in runs}
    cost: dict[str, float] = {}
    for run, alike in _alike(runs):
        share = _share_left(run, trainer)
        if measured and share and alike not in cost:
            card = by_name[alike].card().model_copy(update={"precision": trainer.precision})
            assert card.train is not None
            try:
                rate = train_rate(card, run.data, trainer.fabric.device)
            except NoRoom:
                measured = False
            else:
                cost[alike] = rate.seconds(card.train)
        found[run.card().name] = share * cost.get(alike, 0.0)
    if measured:
        return found
    return {name: _work(run) * _share_left(run, trainer) for name, run in by_name.items()}


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
