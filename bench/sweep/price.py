"""The cost of a sweep, estimated from a short measurement on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bench.experiment.place import Experiment
from bench.sweep.cells import Cell
from bench.sweep.decoded import loaded
from bench.sweep.generate import generate
from bench.sweep.plan import Sweep
from bench.sweep.run import complete_row
from bench.training.run import Run
from methods import Guidance

FEW = 64
"""Samples that the price is measured on."""


@dataclass(frozen=True)
class Price:
    """Cells of one run at one number of steps; images, nfe and seconds count missing cells."""

    run: str
    steps: int
    cells: int
    skipped: int
    done: int
    nfe: int
    images: int
    seconds: float
    longest: float = 0.0
    """Seconds of the longest missing cell."""
    rule: str = ""
    """The guidance rule, '' if the method takes none."""


def price_cells(
    planned: Sweep, experiment: Experiment, device: torch.device, batch: int
) -> list[Price]:
    """One line per run, number of steps and guidance rule.

    The sampling time is measured on one small batch.
    """
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in planned.cells:
        groups.setdefault((cell.run.name, cell.steps, cell.guidance.rule.name), []).append(cell)
    names = [run.name for run in planned.runs]
    lines = []
    for key in sorted(groups, key=lambda key: (names.index(key[0]), key[1])):
        own, (name, steps, rule) = groups[key], key
        missing = [
            cell
            for cell in own
            if not cell.skip and complete_row(cell.about(), planned.evaluation, experiment) is None
        ]
        nfe, seconds = sum(cell.n * cell.nfe for cell in missing), 0.0
        most_nfe = max((cell.n * cell.nfe for cell in missing), default=0)
        if nfe:
            run, guidance, most = own[0].run, missing[0].guidance, min(batch, missing[0].n)
            seconds = nfe * seconds_per_nfe(run, guidance, steps, most, device)
        skipped = sum(bool(cell.skip) for cell in own)
        lines.append(
            Price(
                run=name,
                steps=steps,
                cells=len(own),
                skipped=skipped,
                done=len(own) - skipped - len(missing),
                nfe=nfe,
                images=sum(cell.n for cell in missing),
                seconds=seconds,
                longest=seconds * most_nfe / nfe if nfe else 0.0,
                rule=rule if own[0].run.method.takes_rules else "",
            )
        )
    return lines


def seconds_per_nfe(
    run: Run, guidance: Guidance, steps: int, most: int, device: torch.device
) -> float:
    """Seconds per network evaluation and sample, measured on one batch of at most `most`."""
    (method, nets), n = loaded(run, device), min(most, FEW)
    started = time.perf_counter()
    for _ in generate(method, nets, guidance, steps, 0, n, batch=n, device=device):
        pass
    return (time.perf_counter() - started) / (n * run.method.nfe(guidance, steps))
