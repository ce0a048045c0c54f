"""The training loop: one for every method, resumed exactly by running the same command again."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
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
from bench.data import Dataset, Split
from bench.data.convert import one_hot, to_model
from bench.errors import UserError
from bench.progress import Bar
from bench.runs import WEIGHTS, RunCard, claim, make_method
from methods import Batch, BatchRNG, Method, Progress, TrainSettings
from methods.rng import derive_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG = "log.jsonl"
FLUSH_EVERY = 10
SLOW = 2.0  # seconds after which a single process looks at its losses anyway


class Stopped(Exception):
    """Training was asked to stop, and has written its checkpoint."""


@dataclass
class _StopFlag:
    asked: bool = False


class _Loss(nn.Module):
    """The loss as a module's forward, which is where distributed wrappers look for it."""

    def __init__(self, method: Method[Any], nets: nn.Module) -> None:
        super().__init__()
        self.method, self.nets = method, nets

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
        batch = Batch(x0, labels, decoupled)
        return self.method.loss(self.nets, batch, Progress(step, total), rng)


@dataclass
class Ema:
    """Exponential moving average of weights; whole numbers among them are copied."""

    beta: float
    ramp: bool
    weights: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def update(self, nets: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (0-based)."""
        beta = min(self.beta, (1 + step) / (10 + step)) if self.ramp else self.beta
        current = nets.state_dict()
        moving = [k for k, v in current.items() if v.is_floating_point()]
        averages = [self.weights[k] for k in moving]
        torch._foreach_lerp_(averages, [current[k] for k in moving], 1.0 - beta)
        for k in current.keys() - set(moving):
            self.weights[k].copy_(current[k])


def build_nets(method: Method[Any], seed: int) -> nn.Module:
    """Networks whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        try:
            return method.build()
        except ValueError as error:
            raise UserError(f"{method.name} cannot be built: {error}.", code=2) from None


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, a constant part, then linear decay to lr * final_lr at the last step."""
    lr = settings.lr
    if step < settings.warmup:
        return lr * (step + 1) / settings.warmup
    start = settings.decay_from * settings.iterations
    if step <= start or settings.decay_from >= 1.0:
        return lr
    share = (step - start) / max(settings.iterations - 1 - start, 1.0)
    return lr * (1.0 + (settings.final_lr - 1.0) * min(share, 1.0))


def make_optimizer(settings: TrainSettings, nets: nn.Module) -> torch.optim.Optimizer:
    """RAdam or Adam over all parameters."""
    kinds: dict[str, type[torch.optim.RAdam | torch.optim.Adam]]
    kinds = {"radam": torch.optim.RAdam, "adam": torch.optim.Adam}
    kind = kinds[settings.optimizer]
    # One call over all parameters instead of one each: on a CPU that is not the default.
    return kind(
        nets.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps, foreach=True
    )


def draw_batch(split: Split, method: Method[Any], rng: BatchRNG, device: torch.device) -> Batch:
    """The step's rows of a batch drawn with replacement."""
    picked = rng.randint(len(split)).to(split.samples.device)
    x0 = to_model(split.samples[picked].to(device))
    labels = one_hot(split.labels[picked].to(device), method.data.num_classes)
    if not method.wants_decoupled:
        return Batch(x0, labels)
    other = rng.randint(len(split)).to(split.samples.device)
    return Batch(x0, labels, to_model(split.samples[other].to(device)))


def train(
    card: RunCard,
    data: Dataset,
    folder: Path,
    *,
    fabric: Fabric,
    console: Console | None = None,
    initial: dict[str, Tensor] | None = None,
) -> Path:
    """Train `card` in `folder`, or go on where it stopped; returns the weights' file.

    Raises UserError for NaN in a loss term (the last good checkpoint stays) and `Stopped` after
    Ctrl-C or SIGTERM, when a checkpoint has been written.
    """
    settings = card.train
    if settings is None:
        raise UserError(f"{card.method} has nothing to train: sweep it as it is.")
    share = _rows(settings.batch, fabric)
    leader = fabric.is_global_zero
    method = make_method(card, data)
    nets = build_nets(method, card.seed)
    if initial is not None:
        load_into(nets, nets.state_dict() | initial, f"run {card.init_run}")
    if leader:
        claim(folder, card)
    fabric.barrier()
    weights_file = folder / WEIGHTS
    if weights_file.exists():
        check_weights(weights_file)
        return weights_file

    optimizer = make_optimizer(settings, nets)
    ema = Ema(settings.ema, settings.ema_ramp)
    first = 0
    if (folder / STATE).exists():
        state = load_state(folder / STATE)
        load_into(nets, state.weights, folder / STATE)
        load_optimizer(optimizer, state.optimizer)
        first = state.step
    loss, optimizer = fabric.setup(_Loss(method, nets), optimizer)
    nets = loss.module.nets if hasattr(loss, "module") else nets
    ema.weights = {
        k: (state.ema[k] if first else v).detach().clone().to(v.device)
        for k, v in nets.state_dict().items()
    }
    log = _Log(folder / LOG, first, fabric)

    def checkpoint(step: int) -> None:
        # A finite loss may have an infinite gradient, and the good checkpoint must not go.
        _check_finite(card.name, f"step {step - 1}", nets.state_dict())
        if leader:
            state = TrainingState(
                step, nets.state_dict(), ema.weights, optimizer_tensors(optimizer)
            )
            save_state(folder / STATE, state)
        fabric.barrier()

    total = settings.iterations
    with _stop_signals() as stop, Bar(card.name, total, first, console if leader else None) as bar:
        started = time.monotonic()
        for step in range(first, total):
            rng = BatchRNG(
                derive_seed("train", card.seed, step), settings.batch, *share, fabric.device
            )
            batch = draw_batch(data.train, method, rng, fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            terms = loss(batch.x0, batch.labels, batch.decoupled, step, total, rng)
            optimizer.zero_grad()
            fabric.backward(torch.stack([t.mean() for t in terms.values()]).sum())
            log.add(step, terms)
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
    if leader:
        _check_finite(card.name, "the last step", ema.weights)
        save_weights(weights_file, ema.weights)
        (folder / STATE).unlink(missing_ok=True)
    fabric.barrier()
    return weights_file


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


class _Log:
    """Loss terms: gathered on the device, checked and written every few steps."""

    def __init__(self, path: Path, first: int, fabric: Fabric) -> None:
        self.path, self.fabric = path, fabric
        self.last = ""
        self._looked = time.monotonic()
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        if fabric.is_global_zero:
            self._cut(first)

    def _cut(self, first: int) -> None:
        # Steps after the checkpoint are about to be done again.
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] < first:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                break
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Remember the means of a step's terms."""
        self._pending.append((step, {k: v.detach().mean() for k, v in terms.items()}))

    def due(self, step: int, total: int, checkpoint: bool, asked: bool) -> bool:
        """Whether to look now: every few steps, and before anything is written.

        A single process also looks when it is asked to stop or its steps are slow; several must
        look at the same step, since looking is a collective operation.
        """
        if checkpoint or step + 1 == total or (step + 1) % FLUSH_EVERY == 0:
            return True
        slow = time.monotonic() - self._looked > SLOW
        return self.fabric.world_size == 1 and (asked or slow)

    def flush(self, folder: Path, asked: bool) -> bool:
        """Check and write what is pending; True if any process was asked to stop."""
        self._looked = time.monotonic()
        names = [(step, name) for step, terms in self._pending for name in terms]
        means = [value for _, terms in self._pending for value in terms.values()]
        flag = torch.tensor(float(asked), device=self.fabric.device)
        values = torch.stack([flag, *(m.float() for m in means)])
        if self.fabric.world_size > 1:
            values = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        flag_mean, *numbers = values.tolist()
        by_step: dict[int, dict[str, float]] = {}
        for (step, name), number in zip(names, numbers, strict=True):
            if not math.isfinite(number):
                self._complain(folder, step, name, number)
            by_step.setdefault(step, {})[name] = number
        if self.fabric.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                for step, terms in by_step.items():
                    file.write(json.dumps({"step": step, "terms": terms}) + "\n")
        if by_step:
            newest = by_step[max(by_step)]
            self.last = "  ".join(f"{k} {v:.4g}" for k, v in newest.items())
        self._pending.clear()
        return bool(flag_mean > 0)

    def _complain(self, folder: Path, step: int, name: str, number: float) -> None:
        saved = (folder / STATE).exists()
        kept = f"the last good checkpoint is {folder / STATE}" if saved else "no checkpoint yet"
        raise UserError(
            f"The loss term {name!r} became {number} at step {step}; training stopped, {kept}. "
            "A smaller --set train.lr=... is the usual cure."
        )


@contextmanager
def _stop_signals() -> Iterator[_StopFlag]:
    """Turn Ctrl-C and SIGTERM into a flag, so that a step is never cut in two.

    A second signal does not wait for the step.
    """
    flag = _StopFlag()

    def ask(signum: int, frame: FrameType | None) -> None:
        if flag.asked:
            raise KeyboardInterrupt
        flag.asked = True

    watched = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {s: signal.signal(s, ask) for s in watched}
    except ValueError:  # not the main thread, where signals cannot be watched
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
