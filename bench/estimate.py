"""What a command would cost, from a short measurement on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bench.data import Dataset
from bench.experiment import Experiment
from bench.optim import make_optimizer
from bench.orchestrate import Sweep
from bench.plan import Cell, Target
from bench.runs import RunCard, make_method
from bench.sweep import generate, is_done, load_nets
from bench.train import build_nets, draw_batch
from methods import BatchRNG, Progress

STEPS = 3


def parameters(card: RunCard, data: Dataset) -> int:
    """Trainable parameters of a run's networks."""
    with torch.device("meta"):
        nets = make_method(card, data).build()
    return sum(p.numel() for p in nets.parameters() if p.requires_grad)


def train_seconds(card: RunCard, data: Dataset, device: torch.device) -> float:
    """Time of a whole training, extrapolated from a few steps after one to warm up."""
    if card.train is None:
        return 0.0
    method = make_method(card, data)
    nets = build_nets(method, card.seed).to(device)
    optimizer = make_optimizer(card.train, nets)
    started = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            _wait(device)
            started = time.perf_counter()
        rng = BatchRNG(step, card.train.batch, 0, card.train.batch, device)
        batch = draw_batch(data.train, method, rng, device)
        terms = method.loss(nets, batch, Progress(step, card.train.iterations), rng)
        optimizer.zero_grad()
        total = torch.stack([t.mean() for t in terms.values()]).sum()
        torch.autograd.backward(total)
        optimizer.step()
    _wait(device)
    return (time.perf_counter() - started) / STEPS * card.train.iterations


@dataclass(frozen=True)
class Price:
    """Cells of one run at one number of steps; seconds and images are of what is missing."""

    run: str
    steps: int
    cells: int
    skipped: int
    done: int
    nfe: int
    images: int
    seconds: float


def price_cells(
    planned: Sweep, experiment: Experiment, device: torch.device, batch: int
) -> list[Price]:
    """A line a run and number of steps, with the sampling time measured on one small batch."""
    lines = []
    for target, cells in planned.targets:
        for steps in sorted({cell.steps for cell in cells}):
            own = [cell for cell in cells if cell.steps == steps]
            open_cells = [
                c for c in own if not c.skip and is_done(c, planned.evaluation, experiment) is None
            ]
            images = sum(cell.n for cell in open_cells)
            nfe = sum(cell.n * cell.nfe for cell in open_cells)
            seconds = nfe * _seconds_per_nfe(target, open_cells[0], device, batch) if nfe else 0.0
            skipped = sum(bool(cell.skip) for cell in own)
            done = len(own) - skipped - len(open_cells)
            lines.append(
                Price(target.card.name, steps, len(own), skipped, done, nfe, images, seconds)
            )
    return lines


def _seconds_per_nfe(target: Target, cell: Cell, device: torch.device, batch: int) -> float:
    nets = load_nets(target, device)
    n = min(batch, cell.n, 64)
    started = time.perf_counter()
    for _ in generate(
        target.method, nets, cell.guidance, cell.steps, cell.seed, n, batch=n, device=device
    ):
        pass
    return (time.perf_counter() - started) / (n * cell.nfe)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
