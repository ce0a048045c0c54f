"""The training loop: one for every method, resumed exactly by running the same command again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import Tensor, nn

from bench.data import Dataset
from bench.system.compiling import compile_nets
from bench.system.errors import UserError
from bench.system.files import tidy
from bench.system.leases import tidy_leases
from bench.system.memory import Batches
from bench.system.precision import matmul_precision
from bench.system.progress import Bar, say
from bench.system.signals import stop_signals
from bench.training.checkpoint import (
    STATE,
    TrainingState,
    check_weights,
    load_due,
    load_into,
    load_newest,
    load_optimizer,
    optimizer_tensors,
    remove_states,
    save_newest,
    save_state,
    save_weights,
    settle,
)
from bench.training.lock import RunLock, lock_run
from bench.training.log import LOG, Log
from bench.training.optim import Ema, learning_rate, make_optimizer
from bench.training.processes import any_process, leader_first
from bench.training.runs import (
    CARD,
    WEIGHTS,
    RunCard,
    check_claim,
    claim,
    make_method,
    read_card,
    write_card,
)
from bench.training.step import Loss as _Loss
from bench.training.step import accumulate_gradients, build_nets, near
from bench.training.watch import OnNan, Unstable, check_finite
from methods import BatchRNG, Denoiser, Progress
from methods.rng import derive_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

WHOLE_GRADIENT = "the gradient is that of the whole batch, up to rounding and masks of dropout"
ROLLBACKS = 3
"""Times that one training goes back to a checkpoint before it stops after all."""


class Stopped(Exception):
    """Training was asked to stop, and has written its checkpoint."""


def train(
    card: RunCard,
    data: Dataset,
    folder: Path,
    *,
    fabric: Fabric,
    console: Console | None = None,
    initial: Mapping[str, Tensor] | None = None,
    teacher: Denoiser | None = None,
    compiler: str | None = None,
    on_nan: OnNan = "stop",
) -> Path:
    """Train `card` in `folder`, or go on where it stopped; returns the weights' file.

    `teacher` is what a method that distils one is handed; `compiler` a backend of torch.compile.
    Raises UserError if another process trains the run, `Stopped` after Ctrl-C, SIGTERM or
    SIGUSR1, when a checkpoint has been written, and `Unstable` for numbers that are no training
    any more (see `bench.training.watch`). The last good checkpoint stays; with `on_nan` "rollback"
    training goes back to it up to three times, and on from there with other draws.
    """
    settings = card.train
    if settings is None:
        raise UserError(f"{card.method} has nothing to train: sweep it as it is.")
    rows = _rows(settings.batch, fabric)
    leader = fabric.is_global_zero
    method = make_method(card, data)
    if method.wants_teacher is not None and teacher is None:
        raise UserError(f"{card.method} distils a run of {method.wants_teacher}: give --teacher.")
    nets = build_nets(method, card.seed)
    if initial is not None:
        load_into(nets, nets.state_dict() | dict(initial), f"run {card.init_run}")
        initial = None
    weights_file = folder / WEIGHTS
    # What the first process sees holds for all: files may come into being meanwhile.
    if fabric.broadcast(weights_file.exists()):
        return _finished(card, folder, leader, console)
    with lock_run(folder, card.name, fabric) as lock:
        if fabric.broadcast(weights_file.exists()):
            return _finished(card, folder, leader, console)
        with leader_first(fabric) as first:
            if first:
                claim(folder, card)
        training = _Training(card, data, folder, fabric, console, lock, rows)
        training.prepare(nets, teacher, compiler)
        while True:
            try:
                training.run(on_nan)
                return weights_file
            except Unstable as error:
                if on_nan != "rollback":
                    raise
                training.roll_back(error)


class _Training:
    """A training while it runs: what is trained, and where its files are."""

    def __init__(
        self,
        card: RunCard,
        data: Dataset,
        folder: Path,
        fabric: Fabric,
        console: Console | None,
        lock: RunLock,
        rows: tuple[int, int],
    ) -> None:
        assert card.train is not None
        self.card, self.settings, self.folder = card, card.train, folder
        self.data, self.rows, self.lock = data, rows, lock
        self.method = make_method(card, data)
        self.fabric, self.leader = fabric, fabric.is_global_zero
        self.console = console if self.leader else None
        self.first = self.newest = 0
        self.rollbacks: tuple[str, ...] = ()
        self._noted: dict[str, str] = {}
        self.slices = Batches(self._slice(), self._tell, WHOLE_GRADIENT)

    def prepare(self, nets: nn.Module, teacher: Denoiser | None, compiler: str | None) -> None:
        """Put the newest checkpoint into the networks, if there is one, and set all up."""
        settings, fabric, data = self.settings, self.fabric, self.data
        optimizer = make_optimizer(settings, nets)
        self.ema = Ema(settings.ema, settings.ema_ramp)
        average = self._load(nets, optimizer) or {}
        if compiler is not None:
            compile_nets(nets, compiler)
        if fabric.device.type == "cuda" and data.spec.is_image:
            # The layout that convolutions there are made for; values are what they were.
            nets = nets.to(memory_format=torch.channels_last)
        self.loss, self.optimizer = fabric.setup(_Loss(self.method, nets, teacher), optimizer)
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
            self._checkpoint(0)  # so that there always is one to go back to
        with (
            matmul_precision(card.precision),
            stop_signals() as stop,
            Bar(card.name, total, first, self.console) as bar,
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
                if stopping and step + 1 < total:
                    self._checkpoint(step + 1)
                    raise Stopped(
                        f"Stopped {card.name} at step {step + 1} of {total}; its checkpoint is "
                        f"written. Run the same command to continue."
                    )
                if due and step + 1 < total:
                    self._checkpoint(step + 1)
            optimizer.zero_grad()
            check_finite(card.name, "the last step", self.ema.weights, folder)
            self._check_optimizer("the last step")
            self._sync()
            with leader_first(fabric) as leads:
                if leads:
                    save_weights(folder / WEIGHTS, self.ema.weights)
                    remove_states(folder)
            stopping = any_process(fabric, stop.asked)
        if stopping:  # otherwise the next run would train on
            raise Stopped(
                f"Stopped after the last step of {card.name}: its weights are written. "
                "Run the same command to continue with what is left."
            )

    def _slice(self) -> int:
        """How many of this process's rows go through the networks at once, memory permitting."""
        start, stop = self.rows
        return min(self.settings.micro_batch or stop - start, stop - start)

    def _gradients(self, seed: int, progress: Progress) -> dict[str, Tensor]:
        """The gradients of a step, in slices that are halved whenever it runs out of memory.

        Returns the means of the loss terms.
        """

        def work(rows: int) -> dict[str, Tensor]:
            self.optimizer.zero_grad()  # what a failed attempt left, too
            rng = BatchRNG(seed, self.settings.batch, *self.rows, self.fabric.device)
            return accumulate_gradients(
                self.loss, self.split, self.method, rng, progress,
                fabric=self.fabric, micro_batch=rows,
            )  # fmt: skip

        if self.fabric.world_size > 1:  # the others would wait for gradients of this attempt
            return work(self.slices.size)
        means = self.slices.run(f"{self.card.name}, step {progress.step}", work)
        self._note()
        return means

    def roll_back(self, error: Unstable) -> None:
        """Go back to the last good checkpoint, from where the draws are others.

        They are a function of the training's seed, the step and the number of rollbacks, which the
        checkpoint holds from now on. `error` again after the last rollback that is allowed.
        """
        if len(self.rollbacks) >= ROLLBACKS:
            raise Unstable(f"{error.what}, after {ROLLBACKS} rollbacks", self.folder)
        self.lock.check()
        self.optimizer.zero_grad()
        before = self.rollbacks
        # Where a training that nobody stopped goes back to, so that both go on alike.
        average = self._load(self.nets, self.optimizer, due=True)
        if average is None:  # somebody removed it
            raise error
        self._take_average(average)
        self.rollbacks = (*before, f"{error.what}: back to step {self.first}")
        with leader_first(self.fabric) as leads:
            if leads:
                save_state(self.folder / STATE, self._state(self.first))
                self._note()
        self._tell(
            f"{error.what}; {self.card.name} goes back to its checkpoint of step {self.first}, and "
            f"on from there with other draws ({len(self.rollbacks)} of {ROLLBACKS} times)."
        )

    def _checkpoint(self, step: int) -> None:
        # A finite loss may have an infinite gradient, and the good checkpoint must not go.
        weights = self.nets.state_dict()
        check_finite(self.card.name, f"step {step - 1}", weights, self.folder)
        self._check_optimizer(f"step {step - 1}")
        self.optimizer.zero_grad()  # its memory is wanted for the file
        self._sync()
        with leader_first(self.fabric) as leads:
            if leads:
                stopped = self.newest % self.settings.checkpoint_every != 0
                save_newest(self.folder, self._state(step), keep_previous=stopped)
        self.newest = step

    def _check_optimizer(self, when: str) -> None:
        # The square of a huge gradient is infinite, and its weight stands still from then on.
        tensors = optimizer_tensors(self.optimizer)
        check_finite(self.card.name, when, tensors, self.folder, "moments of the optimiser")

    def _sync(self) -> None:
        """Bring the log to the disk, and look whether the folder is still there and ours."""
        with leader_first(self.fabric):
            self.log.sync()
        self.lock.check()  # afterwards, since a slow disk may have vanished meanwhile

    def _state(self, step: int) -> TrainingState:
        tensors = optimizer_tensors(self.optimizer)
        weights = self.nets.state_dict()
        return TrainingState(step, weights, self.ema.weights, tensors, self.rollbacks)

    def _load(
        self, nets: nn.Module, optimizer: torch.optim.Optimizer, *, due: bool = False
    ) -> dict[str, Tensor] | None:
        """Put the newest good checkpoint back; its average of the weights, None without one.

        With `due` not one that was made out of turn, since a stop was asked for.
        """
        self.fabric.barrier()
        if due:
            found = load_due(self.folder, self.settings.checkpoint_every, self._tell)
        else:
            found = load_newest(self.folder, self._tell)
        self.fabric.barrier()  # all have read before a file is renamed
        if found is None:
            return None
        state, used = found
        load_into(nets, state.weights, used)
        load_optimizer(optimizer, state.optimizer)
        self.first = self.newest = state.step
        self.rollbacks = state.rollbacks
        with leader_first(self.fabric) as leads:
            if leads:
                settle(self.folder, used)
                self._note()
        return state.ema

    def _take_average(self, average: Mapping[str, Tensor]) -> None:
        self.ema.weights = {
            k: torch.empty_like(v).copy_(average.get(k, v))
            for k, v in self.nets.state_dict().items()
        }

    def _note(self) -> None:
        """Have the run's card say what the weights have gone through."""
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

    def _tell(self, text: str) -> None:
        if self.console is not None:
            say(self.console, text)


def _finished(card: RunCard, folder: Path, leader: bool, console: Console | None) -> Path:
    """The weights of a run that is trained; UserError if they are another's or damaged."""
    if not (folder / CARD).exists():
        raise UserError(
            f"{folder} holds weights but no {CARD} that says whose, as an import that was cut off "
            "leaves them: give the import again, or remove the folder."
        )
    check_claim(folder, card)
    check_weights(folder / WEIGHTS)
    if leader:  # a process may have been killed between the weights and this
        remove_states(folder)
        tidy(folder)
        tidy_leases(folder)
    if console is not None:
        say(console, f"{card.name} is trained already.")
    return folder / WEIGHTS


def _rows(batch: int, fabric: Fabric) -> tuple[int, int]:
    """The process's rows [start, stop) of a batch."""
    size, rank = fabric.world_size, fabric.global_rank
    if batch % size:
        raise UserError(
            f"A batch of {batch} cannot be shared equally by {size} processes; choose a multiple "
            f"with --set train.batch={math.ceil(batch / size) * size}.",
            code=2,
        )
    own = batch // size
    return rank * own, (rank + 1) * own
