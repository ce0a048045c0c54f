"""What a search would cost, from a short measurement on this machine."""

from __future__ import annotations

import time

import torch

from bench.experiment.place import Experiment
from bench.sweep.generate import generate
from bench.system.progress import duration
from bench.training.run import load_nets
from bench.tuning.store import read_trials
from bench.tuning.tune import Job
from methods import Guidance

FEW = 64
"""Samples that are measured on."""


def price(job: Job, experiment: Experiment, budget: int, batch: int, device: torch.device) -> str:
    """Trials, evaluations and time of a search that are left, in a sentence.

    Knobs may change how often a network is evaluated; this counts with the default ones.
    """
    trials = read_trials(experiment.tuned, job.target.card.name, job.rule.name, job.key)
    done = sum(trial.status != "failed" for trial in trials)
    left = max(budget - done, 0)
    method, aim = job.target.method, job.aim
    scales = [Guidance(g, job.rule) for g in aim.guidance]
    nfe = left * aim.samples * sum(method.nfe(guidance, aim.steps) for guidance in scales)
    seconds = nfe * _seconds_per_nfe(job, batch, device) if nfe else 0.0
    return (
        f"{job.name}: {done} trials done, {left} to do, of {len(scales)} x {aim.samples:,} "
        f"samples: {nfe:,} NFE, about {duration(seconds)} on {device}."
    )


def _seconds_per_nfe(job: Job, batch: int, device: torch.device) -> float:
    nets = load_nets(job.target, device)
    guidance = Guidance(job.aim.guidance[0], job.rule)
    n = min(batch, job.aim.samples, FEW)
    started = time.perf_counter()
    for _ in generate(
        job.target.method, nets, guidance, job.aim.steps, job.aim.seed, n, batch=n, device=device
    ):
        pass
    return (time.perf_counter() - started) / (n * job.target.method.nfe(guidance, job.aim.steps))
