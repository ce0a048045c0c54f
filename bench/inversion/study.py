"""`bench sweep --inversion`: what the sweep of one data set adds, and what it would cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from bench.data import Split
from bench.experiment.place import Experiment
from bench.inversion.measure import invert_split
from bench.inversion.plan import (
    Bench,
    InversionCell,
    kept,
    make_editor,
    nfe_missing,
    plan_inversions,
    prepare_bench,
)
from bench.inversion.sweep import sweep_inversions
from bench.sweep.plan import Sweep
from bench.sweep.request import SweepRequest
from bench.system.progress import Reporter, Say, duration
from methods import Guidance, Inverts

PROBE = 8


def planned_rows(
    planned: Sweep, experiment: Experiment, say: Say
) -> tuple[Bench, list[InversionCell]] | None:
    """The rows of a data set; None, after saying why, if its samples are not images."""
    data, study = planned.evaluation.data, planned.study
    if not data.spec.is_image:
        say(f"{data.name}: no inversions, which are measured on images.")
        return None
    bench = prepare_bench(data, study.inversion_samples, experiment)
    scales = study.inversion_guidance or study.guidance
    return bench, [row for t, _ in planned.targets for row in plan_inversions(t, scales, bench)]


def invert_runs(
    planned: Sweep, request: SweepRequest, experiment: Experiment, reporter: Reporter
) -> list[str]:
    """Compute the missing rows of a data set; returns one sentence a failed row."""
    found = planned_rows(planned, experiment, reporter.say)
    if found is None:
        return []
    bench, rows = found
    outcome = sweep_inversions(
        rows, bench, experiment, batch=request.batch, device=request.device, reporter=reporter
    )
    reporter.say(f"{bench.data.name}: {outcome.summary('inversions')}")
    return outcome.failed


def price_inversions(
    planned: Sweep, request: SweepRequest, experiment: Experiment, say: Say
) -> None:
    """Say how many rows are missing and what they would take."""
    found = planned_rows(planned, experiment, say)
    if found is None:
        return
    bench, rows = found
    missing, nfe, seconds = 0, 0, 0.0
    for target in dict.fromkeys(id(row.target) for row in rows):
        own = [row for row in rows if id(row.target) == target]
        count, evaluations = nfe_missing(own, bench, experiment)
        missing, nfe = missing + count, nfe + evaluations
        if count:
            seconds += evaluations * _seconds_per_nfe(own, bench, experiment, request.device)
    say(
        f"{bench.data.name}, {len(bench.split)} images inverted and edited: {missing} of "
        f"{len(rows)} rows to compute, {nfe:,} network evaluations, about {duration(seconds)}."
    )


def _seconds_per_nfe(
    rows: Sequence[InversionCell], bench: Bench, experiment: Experiment, device: torch.device
) -> float:
    target = next(row.target for row in rows if not row.skip and not kept(row, experiment))
    assert isinstance(target.method, Inverts)
    few = Split(bench.split.samples[:PROBE], bench.split.labels[:PROBE])
    editor = make_editor(target, PROBE, device)
    started = time.perf_counter()
    invert_split(editor, few)
    once = target.method.inversion_nfe() + target.method.edit_nfe(Guidance(1.0))
    return (time.perf_counter() - started) / (len(few) * once)
