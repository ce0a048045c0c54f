"""What a training would cost, from a few measured steps on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from bench.data import Dataset
from bench.system.failures import is_out_of_memory
from bench.system.memory import available_bytes
from bench.system.precision import PRECISIONS, matmul_precision
from bench.training.initial import make_teacher, teacher_card
from bench.training.optim import make_optimizer
from bench.training.runs import RunCard, make_method, method_class
from bench.training.step import build_nets, draw_batch
from methods import BatchRNG, Progress, TrainSettings

STEPS = 3
SMALL, LARGE = 2_000_000, 20_000_000
"""Parameters from which a batch, and from which a few rows, are too much to measure on."""


def parameters(card: RunCard, data: Dataset) -> int:
    """Trainable parameters of a run's networks."""
    with torch.device("meta"):
        nets = make_method(card, data).build()
    return sum(p.numel() for p in nets.parameters() if p.requires_grad)


class NoRoom(Exception):
    """There is not enough memory to measure a training step."""


@dataclass(frozen=True)
class Rate:
    """Seconds of forward and backward of an image, and of an optimiser's step."""

    rows: int
    an_image: float
    a_step: float

    def seconds(self, settings: TrainSettings) -> float:
        """Of a whole training."""
        return settings.iterations * (settings.batch * self.an_image + self.a_step)

    def images_a_second(self, settings: TrainSettings) -> float:
        """Of a training with `settings`."""
        return settings.iterations * settings.batch / self.seconds(settings)


def train_rate(card: RunCard, data: Dataset, device: torch.device) -> Rate:
    """The speed of training, from a few steps after one to warm up.

    Large networks are measured on few rows, from which the batch is extrapolated. The average of
    the weights is left out. Raises NoRoom if memory is short.
    """
    settings = card.train
    if settings is None:
        raise ValueError(f"{card.method} has nothing to train")
    size = parameters(card, data)
    cls = method_class(card.method)
    teacher = None
    if cls.wants_teacher is not None:
        teacher = teacher_card(cls.wants_teacher, data, card.preset, {})
    _check_room(size, 0 if teacher is None else parameters(teacher, data), device)
    try:
        return _measure(card, settings, data, device, _rows(size, settings, device), teacher)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NoRoom(f"{device} ran out of memory") from None


def _rows(size: int, settings: TrainSettings, device: torch.device) -> int:
    """Rows a forward: the whole batch of small networks, few of large ones."""
    share = min(settings.batch, settings.micro_batch or settings.batch)
    if size < SMALL:
        return share
    few = 4 if size < LARGE else 1
    # A GPU that is not filled tells nothing of its speed.
    return min(share, 16 * few if device.type == "cuda" else few)


def _check_room(size: int, frozen: int, device: torch.device) -> None:
    """NoRoom unless weights, gradients, two moments and a margin for the rest fit."""
    needed = int(4 * (4 * size + frozen) * 1.3)
    have = available_bytes(device)
    if have is not None and needed > have:
        raise NoRoom(
            f"the weights, their gradients and the optimiser's state need about "
            f"{needed / 2**30:.1f} GiB, and {device} has {have / 2**30:.1f} GiB left"
        )


def _measure(
    card: RunCard,
    settings: TrainSettings,
    data: Dataset,
    device: torch.device,
    rows: int,
    teacher: RunCard | None,
) -> Rate:
    method = make_method(card, data)
    nets = build_nets(method, card.seed).to(device)
    optimizer = make_optimizer(settings, nets)
    frozen = None
    if teacher is not None:
        frozen = make_teacher(type(method), teacher, data, None, device)
    # A warm-up of large networks takes longer than what it makes more exact on a CPU.
    warm_up = device.type == "cuda" or rows > 1 or rows == settings.batch
    count = STEPS if rows == settings.batch else 1
    forward = step_time = 0.0
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=PRECISIONS[card.precision] == "bf16-mixed"
    )
    for step in range(1 - warm_up, count + 1):
        rng = BatchRNG(step, rows, 0, rows, device)
        started = _clock(device)
        batch = replace(draw_batch(data.train, method, rng, device), teacher=frozen)
        with matmul_precision(card.precision):
            with autocast:
                terms = method.loss(nets, batch, Progress(step, settings.iterations), rng)
                total = torch.stack([t.mean() for t in terms.values()]).sum()
            optimizer.zero_grad()
            torch.autograd.backward(total)
        middle = _clock(device)
        optimizer.step()
        if step > 0:
            forward += middle - started
            step_time += _clock(device) - middle
    return Rate(rows, forward / (count * rows), step_time / count)


def _clock(device: torch.device) -> float:
    """Seconds, once everything asked of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
