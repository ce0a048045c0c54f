"""What a sweep consists of: cells, and what each of them depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import Dataset
from bench.errors import UserError
from bench.experiment import Experiment
from bench.files import sha256
from bench.identity import code_hash, digest
from bench.runs import WEIGHTS, RunCard, make_method
from methods import Guidance, Method


@dataclass(frozen=True)
class Cell:
    """One checkpoint at one guidance scale, number of steps and sampling seed.

    `skip` is the method's reason for not being able to, or ''.
    """

    card: RunCard
    checkpoint: str
    guidance: Guidance
    steps: int
    seed: int
    n: int
    nfe: int
    skip: str
    key: str
    null_checkpoint: str = ""
    """SHA-256 of the weights of a second network that this cell's guidance uses, or ''."""


@dataclass(frozen=True)
class Target:
    """A run that can be sampled: its card, its method, and the file and hash of its weights."""

    card: RunCard
    data: Dataset
    method: Method[Any]
    weights: Path | None
    checkpoint: str
    null_weights: Path | None = None
    null_checkpoint: str = ""
    """File and hash of a second network, the unconditional branch, where there is one."""


def target(card: RunCard, data: Dataset, experiment: Experiment) -> Target | None:
    """The run ready for sampling, or None while its training is unfinished."""
    method = make_method(card, data)
    if not method.trains:
        return Target(card, data, method, None, "")
    weights = experiment.runs / card.name / WEIGHTS
    if not weights.exists():
        return None
    return Target(card, data, method, weights, sha256(weights))


def expand(
    found: Target,
    guidance: Sequence[float],
    steps: Sequence[int] | None,
    seeds: Sequence[int],
    samples: int,
) -> list[Cell]:
    """All cells of a run, skipped ones included."""
    cells = []
    for seed in seeds:
        for count in steps or found.card.steps:
            for scale in guidance:
                cells.append(_cell(found, Guidance(scale), count, seed, samples))
    return cells


def _cell(found: Target, guidance: Guidance, steps: int, seed: int, n: int) -> Cell:
    try:
        reason = found.method.supports(guidance, steps) or ""
        nfe = 0 if reason else int(found.method.nfe(guidance, steps))
    except Exception as error:  # the code of a plugin may fail in any way
        raise UserError(
            f"Method {found.card.method!r} cannot say what it does at guidance "
            f"{guidance.scale:g} with {steps} steps: {type(error).__name__}: {error}."
        ) from None
    # Without guidance the second network is not used, and the row is the same with and without it.
    null_checkpoint = "" if guidance.is_off else found.null_checkpoint
    key = digest(
        {
            "method": found.card.method,
            "code": code_hash(type(found.method)),
            "config": found.card.config,
            "data": found.card.data_hash,
            "checkpoint": found.checkpoint,
            "guidance": guidance.scale,
            "steps": steps,
            "seed": seed,
            "n": n,
        }
        | ({"null_checkpoint": null_checkpoint} if null_checkpoint else {})
    )
    return Cell(
        card=found.card,
        checkpoint=found.checkpoint,
        guidance=guidance,
        steps=steps,
        seed=seed,
        n=n,
        nfe=nfe,
        skip=reason,
        key=key,
        null_checkpoint=null_checkpoint,
    )
