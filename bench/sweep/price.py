"""What a sweep would cost, from a short measurement on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bench.experiment.place import Experiment
from bench.sweep.cells import Cell
from bench.sweep.generate import generate
from bench.sweep.plan import Sweep
from bench.sweep.run import is_done
from bench.training.run import Run, load_nets


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
    rule: str = ""
    """The guidance rule; '' where the method takes none."""


def price_cells(
    planned: Sweep, experiment: Experiment, device: torch.device, batch: int
) -> list[Price]:
    """A line a run, number of steps and guidance rule.

    The sampling time is measured on one small batch.
    """
    lines = []
    for target, cells in planned.targets:
        places = [(cell.steps, cell.guidance.rule.name) for cell in cells]
        for steps, rule in sorted(set(places), key=lambda place: (place[0], places.index(place))):
            own = [
                cell for cell, place in zip(cells, places, strict=True) if place == (steps, rule)
            ]
            open_cells = [
                c for c in own if not c.skip and is_done(c, planned.evaluation, experiment) is None
            ]
            images = sum(cell.n for cell in open_cells)
            nfe = sum(cell.n * cell.nfe for cell in open_cells)
            seconds = nfe * _seconds_per_nfe(target, open_cells[0], device, batch) if nfe else 0.0
            skipped = sum(bool(cell.skip) for cell in own)
            done = len(own) - skipped - len(open_cells)
            lines.append(
                Price(
                    target.card.name,
                    steps,
                    len(own),
                    skipped,
                    done,
                    nfe,
                    images,
                    seconds,
                    rule if target.method.takes_rules else "",
                )
            )
    return lines


def _seconds_per_nfe(target: Run, cell: Cell, device: torch.device, batch: int) -> float:
    nets = load_nets(target, device)
    n = min(batch, cell.n, 64)
    started = time.perf_counter()
    for _ in generate(
        target.method, nets, cell.guidance, cell.steps, cell.seed, n, batch=n, device=device
    ):
        pass
    return (time.perf_counter() - started) / (n * cell.nfe)
