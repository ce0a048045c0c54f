"""What a training would be and cost, from a few measured steps, without training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.suite import Study
from bench.system.devices import PRECISIONS, matmul_precision
from bench.system.errors import UserError, counted
from bench.system.failures import is_out_of_memory
from bench.system.memory import available_bytes
from bench.system.progress import duration
from bench.training.card import RunCard, make_method, method_class
from bench.training.initial import make_teacher, teacher_card
from bench.training.step import build_nets, draw_batch, make_optimizer
from methods import BatchRNG, DataSpec, Progress, TrainSettings

_SHOWN = {"name", "method", "dataset", "preset", "config", "train", "seed"}

STEPS = 3
SMALL, LARGE = 2_000_000, 20_000_000
"""Parameters above which not a whole batch is measured, and above which only one row."""


def parameters(card: RunCard, data: Dataset) -> int:
    """Trainable parameters of a run's networks."""
    with torch.device("meta"):
        nets = make_method(card, data).build()
    return sum(p.numel() for p in nets.parameters() if p.requires_grad)


class NoRoom(Exception):
    """There is not enough memory to measure a training step."""


@dataclass(frozen=True)
class Rate:
    """Seconds per image, forward and backward, and per step of the optimiser."""

    rows: int
    per_image: float
    per_step: float

    def seconds(self, settings: TrainSettings) -> float:
        """Seconds of a whole training."""
        return settings.iterations * (settings.batch * self.per_image + self.per_step)

    def images_per_second(self, settings: TrainSettings) -> float:
        """Images per second of a training."""
        return settings.iterations * settings.batch / self.seconds(settings)


def train_rate(card: RunCard, data: Dataset, device: torch.device) -> Rate:
    """The speed of training, from a few steps after one warm-up step.

    Large networks are measured on a few rows, and the batch is extrapolated. The moving average
    of the weights is not measured. Raises NoRoom if memory is short.
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
    """Rows per forward: the whole batch for small networks, a few for large ones."""
    share = min(settings.batch, settings.micro_batch or settings.batch)
    if size < SMALL:
        return share
    few = 4 if size < LARGE else 1
    # A few rows do not show the speed of a GPU.
    return min(share, 16 * few if device.type == "cuda" else few)


def _check_room(size: int, frozen: int, device: torch.device) -> None:
    """Raise NoRoom unless weights, gradients, two moments and 30% more fit."""
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
    # On a CPU a warm-up of large networks takes long and improves little.
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
    """Seconds, after all work on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def data_or_stand_in(study: Study) -> Dataset:
    """The study's data set or, if it is missing, random images of its preset's shape."""
    try:
        return find_dataset(study.dataset)
    except UserError:
        for method in study.methods:
            preset = method_class(method).presets.get(study.preset or study.dataset)
            if preset is not None and preset.dataset == study.dataset and preset.shape is not None:
                assert preset.num_classes is not None
                return RandomImages(DataSpec(study.dataset, preset.shape, preset.num_classes))
        raise


def describe(card: RunCard, data: Dataset, device: torch.device) -> tuple[str, float]:
    """Settings, size and expected time of a run in text, and its seconds; NaN if unknown."""
    assert card.train is not None
    images = card.train.iterations * card.train.batch
    text = (
        f"{card.model_dump_json(indent=2, include=_SHOWN)}\n{card.name}: "
        f"{parameters(card, data):,} parameters, {images:,} images"
    )
    try:
        rate = train_rate(card, data, device)
    except NoRoom as problem:
        return f"{text}; its time could not be measured: {problem}.", math.nan
    kind = "random images" if isinstance(data, RandomImages) else "its own data"
    seconds = rate.seconds(card.train)
    return (
        f"{text}, about {duration(seconds)} at the rate measured now on {device}: "
        f"{rate.images_per_second(card.train):,.3g} images per second in {card.precision}, from "
        f"{counted(rate.rows, 'row')} of {kind} per forward."
    ), seconds
