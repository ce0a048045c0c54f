"""The training loop: one for every method, resumed exactly by running the same command again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from rich.console import Console
from torch import Tensor, nn

from bench.checkpoint import (
    STATE,
    TrainingState,
    check_weights,
    load_into,
    load_optimizer,
    load_state,
    optimizer_tensors,
    save_state,
    save_weights,
)
from bench.compiling import compile_nets
from bench.data import Dataset, Split
from bench.data.convert import one_hot, to_model
from bench.errors import UserError
from bench.files import tidy
from bench.optim import Ema, learning_rate, make_optimizer
from bench.precision import matmul_precision
from bench.progress import Bar
from bench.runs import WEIGHTS, RunCard, claim, make_method
from bench.signals import stop_signals
from bench.train_log import LOG, Log
from methods import Batch, BatchRNG, Denoiser, Method, Progress
from methods.rng import derive_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RESIDENT_BYTES = 2 * 2**30


class Stopped(Exception):
    """Training was asked to stop, and has written its checkpoint."""


class _Loss(nn.Module):
    """The loss as a module's forward, which is where distributed wrappers look for it.

    The teacher is no submodule: it is neither trained, averaged, stored nor synchronised.
    """

    def __init__(self, method: Method[Any], nets: nn.Module, teacher: Denoiser | None) -> None:
        super().__init__()
        self.method, self.nets, self.teacher = method, nets, teacher

    # Mixed precision rebuilds the arguments of a forward, which frozen dataclasses do not allow.
    def forward(
        self,
        x0: Tensor,
        labels: Tensor,
        decoupled: Tensor | None,
        step: int,
        total: int,
        rng: BatchRNG,
    ) -> dict[str, Tensor]:
        batch = Batch(x0, labels, decoupled, self.teacher)
        return self.method.loss(self.nets, batch, Progress(step, total), rng)


def build_nets(method: Method[Any], seed: int) -> nn.Module:
    """Networks whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        try:
            return method.build()
        except ValueError as error:
            raise UserError(f"{method.name} cannot be built: {error}.", code=2) from None


def draw_batch(split: Split, method: Method[Any], rng: BatchRNG, device: torch.device) -> Batch:
    """The step's rows of a batch drawn with replacement."""
    picked = rng.randint(len(split)).to(split.samples.device)
    x0 = to_model(split.samples[picked].to(device))
    labels = one_hot(split.labels[picked].to(device), method.data.num_classes)
    if not method.wants_decoupled:
        return Batch(x0, labels)
    other = rng.randint(len(split)).to(split.samples.device)
    return Batch(x0, labels, to_model(split.samples[other].to(device)))


def accumulate_gradients(
    loss: nn.Module,
    split: Split,
    method: Method[Any],
    rng: BatchRNG,
    progress: Progress,
    *,
    fabric: Fabric,
    micro_batch: int | None,
) -> dict[str, Tensor]:
    """Add the gradient of the mean loss over `rng`'s rows; returns the means of the terms.

    With `micro_batch` the rows go forward and backward in slices. Their draws and the gradient
    are those of one batch, but for rounding and for dropout, whose masks are a slice's own.
    """
    slices = rng.split(micro_batch or len(rng))
    means: dict[str, Tensor] = {}
    for k, part in enumerate(slices):
        batch = draw_batch(split, method, part, fabric.device)
        share = len(part) / len(rng)
        # Processes exchange gradients once, with the last slice.
        waits = fabric.world_size > 1 and k + 1 < len(slices)
        with fabric.no_backward_sync(cast(Any, loss)) if waits else nullcontext():
            terms = loss(
                batch.x0, batch.labels, batch.decoupled, progress.step, progress.total, part
            )
            total = torch.stack([t.mean() for t in terms.values()]).sum()
            fabric.backward(total if len(slices) == 1 else total * share)
        for name, term in terms.items():
            mean = term.detach().mean()
            means[name] = mean * share + means[name] if name in means else mean * share
    return means


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
) -> Path:
    """Train `card` in `folder`, or go on where it stopped; returns the weights' file.

    `teacher` is what a method that distils one is handed; `compiler` a backend of torch.compile.
    Raises UserError for NaN in a loss term (the last good checkpoint stays) and `Stopped` after
    Ctrl-C, SIGTERM or SIGUSR1, when a checkpoint has been written.
    """
    settings = card.train
    if settings is None:
        raise UserError(f"{card.method} has nothing to train: sweep it as it is.")
    share = _rows(settings.batch, fabric)
    leader = fabric.is_global_zero
    method = make_method(card, data)
    if method.wants_teacher is not None and teacher is None:
        raise UserError(f"{card.method} distils a run of {method.wants_teacher}: give --teacher.")
    nets = build_nets(method, card.seed)
    if initial is not None:
        load_into(nets, nets.state_dict() | dict(initial), f"run {card.init_run}")
        initial = None
    if leader:
        claim(folder, card)
    fabric.barrier()
    weights_file = folder / WEIGHTS
    if weights_file.exists():
        check_weights(weights_file)
        if leader:  # a process may have been killed before it could tidy up
            (folder / STATE).unlink(missing_ok=True)
            tidy(folder)
        return weights_file

    optimizer = make_optimizer(settings, nets)
    ema = Ema(settings.ema, settings.ema_ramp)
    first, average = _resume(folder / STATE, nets, optimizer)
    if compiler is not None:
        compile_nets(nets, compiler)
    if fabric.device.type == "cuda" and data.spec.is_image:
        # The layout that convolutions there are made for; values are what they were.
        nets = nets.to(memory_format=torch.channels_last)
    loss, optimizer = fabric.setup(_Loss(method, nets, teacher), optimizer)
    nets = loss.module.nets if hasattr(loss, "module") else nets
    ema.weights = {
        k: torch.empty_like(v).copy_(average.get(k, v)) for k, v in nets.state_dict().items()
    }
    average.clear()
    split = near(data.train, fabric.device)
    log = Log(folder / LOG, first, fabric)

    def checkpoint(step: int) -> None:
        # A finite loss may have an infinite gradient, and the good checkpoint must not go.
        _check_finite(card.name, f"step {step - 1}", nets.state_dict())
        optimizer.zero_grad()  # its memory is wanted for the file
        log.sync()
        if leader:
            state = TrainingState(
                step, nets.state_dict(), ema.weights, optimizer_tensors(optimizer)
            )
            save_state(folder / STATE, state)
        fabric.barrier()

    total = settings.iterations
    with (
        matmul_precision(card.precision),
        stop_signals() as stop,
        Bar(card.name, total, first, console if leader else None) as bar,
    ):
        started = time.monotonic()
        for step in range(first, total):
            rng = BatchRNG(
                derive_seed("train", card.seed, step), settings.batch, *share, fabric.device
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimizer.zero_grad()
            means = accumulate_gradients(
                loss, split, method, rng, Progress(step, total),
                fabric=fabric, micro_batch=settings.micro_batch,
            )  # fmt: skip
            log.add(step, means)
            due = (step + 1) % settings.checkpoint_every == 0
            stopping = log.due(step, total, due, stop.asked) and log.flush(folder, stop.asked)
            optimizer.step()
            ema.update(nets, step)
            rate = (step + 1 - first) * settings.batch / (time.monotonic() - started)
            bar.update(step + 1, f"{log.last}  {rate:,.0f} images/s")
            if stopping and step + 1 < total:
                checkpoint(step + 1)
                raise Stopped(
                    f"Stopped {card.name} at step {step + 1} of {total}; its checkpoint is "
                    f"written, and the same command goes on from it."
                )
            if due and step + 1 < total:
                checkpoint(step + 1)
        optimizer.zero_grad()
        log.sync()
        if leader:
            _check_finite(card.name, "the last step", ema.weights)
            save_weights(weights_file, ema.weights)
            (folder / STATE).unlink(missing_ok=True)
        fabric.barrier()
    if stop.asked and fabric.world_size == 1:  # otherwise the next run would train on
        raise Stopped(
            f"Stopped after the last step of {card.name}: its weights are written, and the same "
            "command goes on with what is left."
        )
    return weights_file


def _resume(
    path: Path, nets: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor]]:
    """Put a checkpoint back, if there is one; its step and its average of the weights."""
    if not path.exists():
        return 0, {}
    state = load_state(path)
    load_into(nets, state.weights, path)
    load_optimizer(optimizer, state.optimizer)
    return state.step, state.ema


def near(split: Split, device: torch.device) -> Split:
    """A split that fits beside the networks of a GPU, moved there once; others as they are."""
    size = split.samples.numel() * split.samples.element_size()
    if device.type != "cuda" or size >= RESIDENT_BYTES:
        return split
    return replace(split, samples=split.samples.to(device), labels=split.labels.to(device))


def _check_finite(name: str, when: str, weights: Mapping[str, Tensor]) -> None:
    bad = [k for k, v in weights.items() if not v.isfinite().all()]
    if bad:
        raise UserError(
            f"{name}: the weights {bad[0]} are not finite after {when}; training stopped, and an "
            "earlier checkpoint is kept. A smaller --set train.lr=... is the usual cure."
        )


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
