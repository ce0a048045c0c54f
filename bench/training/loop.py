"""The training loop of every method; running the same command again resumes it exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.data import Dataset
from bench.system.devices import compile_nets, matmul_precision
from bench.system.errors import UserError
from bench.system.failures import is_out_of_memory
from bench.system.files import tidy
from bench.system.leases import tidy_leases
from bench.system.memory import Batches
from bench.system.progress import SILENT, Reporter, Tick
from bench.system.signals import stop_signals
from bench.training.card import (
    CARD,
    WEIGHTS,
    RunCard,
    check_claim,
    make_method,
    read_card,
    write_card,
)
from bench.training.checkpoint import (
    PREVIOUS,
    STATE,
    TrainingState,
    load_into,
    load_newest,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    remove_states,
    save_newest,
    save_state,
    save_weights,
)
from bench.training.grids import pictures
from bench.training.lock import RunLock, lock_run
from bench.training.log import LOG, Log
from bench.training.processes import any_process, leader_first
from bench.training.step import (
    Ema,
    Loss,
    accumulate_gradients,
    build_nets,
    learning_rate,
    make_optimizer,
    near,
)
from bench.training.watch import OnNan, Stopped, Unstable, check_finite
from methods import BatchRNG, Denoiser, Method, Progress, TrainSettings
from methods.rng import derive_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

WHOLE_GRADIENT = "the gradient is that of the whole batch, up to rounding and dropout masks"
ROLLBACKS = 3
"""Returns to a checkpoint after which a training stops."""


def train(
    card: RunCard,
    data: Dataset,
    folder: Path,
    *,
    fabric: Fabric,
    reporter: Reporter = SILENT,
    initial: Mapping[str, Tensor] | None = None,
    teacher: Denoiser | None = None,
    compiler: str | None = None,
    on_nan: OnNan = "stop",
    loggers: Sequence[str] = (),
    tick: Tick = lambda _: None,
) -> Path:
    """Train `card` in `folder`, or resume its training; returns the weights' file.

    `teacher` is for methods that distil one; `compiler` is a backend of torch.compile. `loggers`
    (`bench.training.loggers`) get a copy of the log, and samples at each checkpoint. `tick` counts
    the steps. Raises UserError if another process trains the run; `Stopped` once a checkpoint is
    written after Ctrl-C, SIGTERM or SIGUSR1; and `Unstable` if training failed (see
    `bench.training.watch`).
    The last good checkpoint is kept; with `on_nan` "rollback" training returns to it up to three
    times and continues with other random draws.
    """
    settings = card.train
    if settings is None:
        raise UserError(f"{card.method} has nothing to train: run bench sweep.")
    rows = _rows(settings.batch, fabric)
    reporter = reporter if fabric.is_global_zero else SILENT
    method = make_method(card, data)
    if method.wants_teacher is not None and teacher is None:
        raise UserError(f"{card.method} distils a run of {method.wants_teacher}: give --teacher.")
    nets = build_nets(method, card.seed)
    if initial is not None:
        load_into(nets, nets.state_dict() | dict(initial), f"run {card.init_run}")
        initial = None
    weights_file = folder / WEIGHTS
    # All follow what the first process sees, since files may appear meanwhile.
    if fabric.broadcast(weights_file.exists()):
        return _finished(card, folder, fabric.is_global_zero, reporter)
    with lock_run(folder, card.name, fabric) as lock:
        if fabric.broadcast(weights_file.exists()):
            return _finished(card, folder, fabric.is_global_zero, reporter)
        with leader_first(fabric) as first:
            if first:
                check_claim(folder, card)
                if not (folder / CARD).exists():
                    write_card(folder, card)
        training = _Training(
            card, settings, data, method, folder, fabric, reporter, lock, rows, loggers, tick
        )
        training.prepare(nets, teacher, compiler)
        while True:
            try:
                training.run(on_nan)
                return weights_file
            except Unstable as error:
                if on_nan != "rollback":
                    raise
                training.roll_back(error)


@dataclass
class _Training:
    """A training in progress: its networks, optimiser and files."""

    card: RunCard
    settings: TrainSettings
    data: Dataset
    method: Method[Any]
    folder: Path
    fabric: Fabric
    reporter: Reporter
    lock: RunLock
    rows: tuple[int, int]
    loggers: Sequence[str]
    tick: Tick

    def __post_init__(self) -> None:
        self.first = self.newest = 0
        self.rollbacks: tuple[str, ...] = ()
        self._noted: dict[str, str] = {}
        self.slices = Batches(self._slice(), self.reporter.note, WHOLE_GRADIENT)

    def prepare(self, nets: nn.Module, teacher: Denoiser | None, compiler: str | None) -> None:
        """Load the newest checkpoint, if there is one, and set up networks and optimiser."""
        settings, fabric, data = self.settings, self.fabric, self.data
        optimizer = make_optimizer(settings, nets)
        self.ema = Ema(settings.ema, settings.ema_ramp, share=settings.ema_share)
        average = self._load(nets, optimizer) or {}
        if compiler is not None:
            compile_nets(nets, compiler)
        if fabric.device.type == "cuda" and data.spec.is_image:
            # CUDA's convolutions are fastest in this layout; values do not change.
            nets = nets.to(memory_format=torch.channels_last)
        self.loss, self.optimizer = fabric.setup(Loss(self.method, nets, teacher), optimizer)
        self.nets: nn.Module = self.loss.module.nets if hasattr(self.loss, "module") else nets
        self._take_average(average)
        self.split = near(data.train, fabric.device)

    def run(self, on_nan: OnNan) -> None:
        """Train from the newest checkpoint to the end, and write the weights."""
        card, settings, folder = self.card, self.settings, self.folder
        fabric, optimizer = self.fabric, self.optimizer
        first, total = self.first, settings.iterations
        log = self.log = Log(folder / LOG, first, fabric)
        attempt = ("attempt", len(self.rollbacks)) if self.rollbacks else ()
        if on_nan == "rollback" and first == 0 and not self.rollbacks:
            self._checkpoint(0)  # a rollback needs one
        with (
            matmul_precision(card.precision),
            stop_signals() as stop,
            log.shared(self.loggers, card, first, len(self.rollbacks)),
            self.reporter.bar(card.name, total, first) as bar,
        ):
            started = time.monotonic()
            for step in range(first, total):
                seed = derive_seed("train", card.seed, step, *attempt)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(settings, step)
                means = self._gradients(seed, Progress(step, total))
                log.add(step, means)
                due = (step + 1) % settings.checkpoint_every == 0
                stopping = False
                if log.due(step, total, due, stop.asked):
                    self.lock.check()
                    stopping = log.flush(folder, stop.asked)
                optimizer.step()
                self.ema.update(self.nets, step)
                rate = (step + 1 - first) * settings.batch / (time.monotonic() - started)
                bar.update(step + 1, f"{log.last}  {rate:,.0f} images/s")
                self.tick(1)
                if stopping and step + 1 < total:
                    self._checkpoint(step + 1)
                    raise Stopped(
                        f"Stopped {card.name} at step {step + 1} of {total}; its checkpoint is "
                        "written. Run the same command to continue."
                    )
                if due and step + 1 < total:
                    self._checkpoint(step + 1)
                    self._show_samples(step)
            optimizer.zero_grad()
            check_finite(card.name, "the last step", self.ema.weights, folder)
            self._check_optimizer("the last step")
            self._sync()
            with leader_first(fabric) as leads:
                if leads:
                    save_weights(folder / WEIGHTS, self.ema.weights)
                    remove_states(folder)
            self._show_samples(total - 1)
            stopping = any_process(fabric, stop.asked)
        if stopping:  # before the next run starts
            raise Stopped(
                f"Stopped after the last step of {card.name}: its weights are written. "
                "Run the same command to continue with the next run."
            )

    def _show_samples(self, step: int) -> None:
        """Pass samples of the averaged weights after a step to the loggers."""
        if not self.log.loggers:
            return
        steps, rows = self.card.steps[-1], self.slices.size
        try:
            shown = list(pictures(self.method, self.nets, self.ema.weights, steps, rows))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.reporter.note(f"No memory for samples of {self.card.name} at step {step}.")
        else:
            for logger in self.log.loggers:
                logger.show(step, shown)

    def _slice(self) -> int:
        """How many of this process's rows go through the networks at once, if memory allows."""
        start, stop = self.rows
        return min(self.settings.micro_batch or stop - start, stop - start)

    def _gradients(self, seed: int, progress: Progress) -> dict[str, Tensor]:
        """Compute a step's gradients, in slices that are halved when memory runs out.

        Returns the means of the loss terms.
        """

        def work(rows: int) -> dict[str, Tensor]:
            self.optimizer.zero_grad()  # also after a failed attempt
            rng = BatchRNG(seed, self.settings.batch, *self.rows, self.fabric.device)
            return accumulate_gradients(
                self.loss, self.split, self.method, rng, progress,
                fabric=self.fabric, micro_batch=rows,
            )  # fmt: skip

        if self.fabric.world_size > 1:  # others would wait for the gradients of a failed attempt
            return work(self.slices.size)
        means = self.slices.run(f"{self.card.name}, step {progress.step}", work)
        self._note()
        return means

    def roll_back(self, error: Unstable) -> None:
        """Return to the last good checkpoint, and continue from there with other random draws.

        They depend on the training's seed, the step and the number of rollbacks, which is kept in
        the checkpoint. Raises `error` again if there were `ROLLBACKS` already.
        """
        if len(self.rollbacks) >= ROLLBACKS:
            raise Unstable(f"{error.what}, after {ROLLBACKS} rollbacks", self.folder)
        self.lock.check()
        self.optimizer.zero_grad()
        before = self.rollbacks
        # A training that was stopped and resumed must return to the same step as one that was not.
        average = self._load(self.nets, self.optimizer, due=True)
        if average is None:  # the checkpoint was removed
            raise error
        self._take_average(average)
        self.rollbacks = (*before, f"{error.what}: back to step {self.first}")
        with leader_first(self.fabric) as leads:
            if leads:
                save_state(self.folder / STATE, self._state(self.first))
                self._note()
        self.reporter.note(
            f"{error.what}; {self.card.name} returns to its checkpoint of step {self.first} and "
            f"continues with other random draws ({len(self.rollbacks)} of {ROLLBACKS} times)."
        )

    def _checkpoint(self, step: int) -> None:
        # A finite loss may have an infinite gradient, which must not replace a good checkpoint.
        weights = self.nets.state_dict()
        check_finite(self.card.name, f"step {step - 1}", weights, self.folder)
        self._check_optimizer(f"step {step - 1}")
        self.optimizer.zero_grad()  # frees memory for writing the file
        self._sync()
        with leader_first(self.fabric) as leads:
            if leads:
                stopped = self.newest % self.settings.checkpoint_every != 0
                save_newest(self.folder, self._state(step), keep_previous=stopped)
        self.newest = step

    def _check_optimizer(self, when: str) -> None:
        # The square of a huge gradient is infinite, which stops its weight from changing.
        tensors = optimizer_tensors(self.optimizer)
        check_finite(self.card.name, when, tensors, self.folder, "moments of the optimiser")

    def _sync(self) -> None:
        """Sync the log to disk, and check that this process still holds the folder's lock."""
        with leader_first(self.fabric):
            self.log.sync()
        self.lock.check()  # last, since a slow disk may have vanished meanwhile

    def _state(self, step: int) -> TrainingState:
        tensors = optimizer_tensors(self.optimizer)
        weights = self.nets.state_dict()
        return TrainingState(step, weights, self.ema.weights, tensors, self.rollbacks)

    def _load(
        self, nets: nn.Module, optimizer: torch.optim.Optimizer, *, due: bool = False
    ) -> dict[str, Tensor] | None:
        """Load the newest good checkpoint; returns its average of the weights, None without one.

        With `due` it skips a checkpoint that was written only because of a request to stop.
        """
        self.fabric.barrier()
        every = self.settings.checkpoint_every if due else 1
        found = load_newest(self.folder, self.reporter.note, every)
        self.fabric.barrier()  # all processes read before a file is renamed
        if found is None:
            return None
        state, used = found
        load_into(nets, state.weights, used)
        load_optimizer(optimizer, state.optimizer)
        self.first = self.newest = state.step
        self.rollbacks = state.rollbacks
        with leader_first(self.fabric) as leads:
            if leads:
                if used.name == PREVIOUS:  # replaces a damaged newest one
                    used.replace(self.folder / STATE)
                self._note()
        return state.ema

    def _take_average(self, average: Mapping[str, Tensor]) -> None:
        self.ema.weights = {
            k: torch.empty_like(v).copy_(average.get(k, v))
            for k, v in self.nets.state_dict().items()
        }

    def _note(self) -> None:
        """Record rollbacks and smaller slices in the run's card."""
        notes = {}
        if self.rollbacks:
            notes["rollbacks"] = "; ".join(self.rollbacks)
        if self.slices.size != self._slice():
            notes["smaller_micro_batch"] = str(self.slices.size)
        if notes and notes != self._noted:
            self._noted = notes
            card = read_card(self.folder)
            noted = {**card.provenance, **notes}
            if noted != card.provenance:
                write_card(self.folder, card.model_copy(update={"provenance": noted}))


def _finished(card: RunCard, folder: Path, leader: bool, reporter: Reporter) -> Path:
    """The weights of a trained run; UserError if they are another run's or damaged."""
    if not (folder / CARD).exists():
        raise UserError(
            f"{folder} has weights but no {CARD}, as after an interrupted import: repeat the "
            "import, or remove the folder."
        )
    check_claim(folder, card)
    load_weights(folder / WEIGHTS)
    if leader:  # in case a process was killed right after it wrote the weights
        remove_states(folder)
        tidy(folder)
        tidy_leases(folder)
    reporter.say(f"{card.name} is trained already.")
    return folder / WEIGHTS


def _rows(batch: int, fabric: Fabric) -> tuple[int, int]:
    """Rows [start, stop) of a batch for this process."""
    size, rank = fabric.world_size, fabric.global_rank
    if batch % size:
        raise UserError(
            f"A batch of {batch} cannot be divided equally among {size} processes: use "
            f"--set train.batch={math.ceil(batch / size) * size}.",
            code=2,
        )
    own = batch // size
    return rank * own, (rank + 1) * own
