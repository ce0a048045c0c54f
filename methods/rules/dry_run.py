"""Count the evaluations of a rule before sampling, in a dry run on closed-form denoisers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from methods.guidance import Guidance
from methods.rng import SampleRNG
from methods.rules.base import Branch, Networks, Rule
from methods.rules.record import Record
from methods.rules.trajectory import Trajectory
from methods.samplers import Churn
from methods.settings import Solver
from methods.spec import DataSpec

ANY_DATA = DataSpec(name="any", shape=(3, 8, 8), num_classes=10)
"""Data of a dry run where none are given."""


class _DryRun(Trajectory):
    dry = True


def evaluations(
    rule: Rule[Any],
    guidance: Guidance,
    sigmas: Tensor,
    churn: Churn | None = None,
    data: DataSpec = ANY_DATA,
    solver: Solver = "heun",
) -> dict[Branch, float]:
    """Evaluations per sample of the network ("main") and of other branches.

    They are counted in a dry run: one sample of the shape of `data`, with closed-form denoisers in
    place of the networks. For a rule that is `data_dependent` they are the most.
    """
    guided = replace(guidance, rule=rule, record=None)
    return dict(_counted(rule, guided.scale, tuple(sigmas.tolist()), churn, data, solver))


@lru_cache(maxsize=4096)
def _counted(
    rule: Rule[Any],
    g: float,
    levels: tuple[float, ...],
    churn: Churn | None,
    data: DataSpec,
    solver: Solver,
) -> dict[Branch, float]:
    record = Record()
    sigmas = torch.tensor(levels, dtype=torch.float64)
    x = levels[0] * torch.ones(1, *data.shape, dtype=torch.float64)
    labels = torch.eye(1, data.num_classes)
    rng = SampleRNG(0, [0], "dry run")
    _DryRun(
        _stand_ins(),
        x,
        sigmas,
        labels,
        Guidance(g, rule, record),
        rng,
        torch.float64,
        churn,
        solver,
    ).sample(x)
    return record.evaluations()


def _stand_ins() -> Networks:
    """Posterior means of Gaussians of unit variance in place of networks; labels move the mean."""

    def posterior(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        variance = sigma.to(x).reshape(shape) ** 2
        return (x + variance * labels.to(x).sum(1).reshape(shape)) / (1 + variance)

    return Networks(
        main=posterior,
        null=lambda x, sigma: posterior(x, sigma, x.new_zeros(len(x), 1)),
        weak=lambda x, sigma, labels: posterior(x, sigma, labels / 2),
        module=nn.Identity(),
    )
