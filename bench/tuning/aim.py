"""The tuner's objective: one metric, averaged over guidance scales.

Distances are averaged as logarithms: otherwise an FD of 100 at g = 13 would outweigh one of 3 at
g = 4. Metrics that can be 0 or negative, such as KID, and metrics where higher is better are
averaged as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.data import Dataset
from bench.evaluation.prepare import Evaluation
from bench.experiment.protocols import unknown_metric
from bench.experiment.suite import TUNING_SEEDS
from bench.system.errors import UserError
from bench.tuning.store import Aim
from metrics import METRICS

LEAST = 1e-12
"""Smaller values count as this one in logarithms."""


def choose_metric(name: str | None, data: Dataset) -> str:
    """The metric by name; by default the leading metric for such data.

    That is FD of images, and W1 of data whose density is known.
    """
    if name is None:
        domains = ("any", "image" if data.spec.is_image else "vector")
        exact = data.spec.mixture is not None
        fitting = [
            m for m in METRICS.values() if m.domain in domains and (exact or not m.exact_only)
        ]
        return max(fitting, key=lambda m: m.about.lead).name
    if name not in METRICS:
        raise unknown_metric(name, METRICS)
    if METRICS[name].direction == "none":
        able = sorted(n for n, metric in METRICS.items() if metric.direction != "none")
        raise UserError(
            f"{name} has no better direction, so nothing can be tuned by it. These metrics have "
            f"one: {', '.join(able)}.",
            code=2,
        )
    return name


def check_scales(scales: Sequence[float]) -> None:
    """UserError for g = 1: no rule acts there."""
    if 1.0 in scales:
        raise UserError("No rule acts at guidance 1: drop 1 from --guidance.", code=2)


def make_aim(
    evaluation: Evaluation, scales: Sequence[float], steps: int, samples: int, block: int
) -> Aim:
    """The objective of an evaluation of one metric; UserError if it needs more samples."""
    (planned,) = evaluation.plan
    metric = planned.metric
    assert metric.direction != "none"
    if samples < metric.minimum_n:
        raise UserError(f"{metric.name} needs {metric.minimum_n} samples, got {samples}.", code=2)
    return Aim(
        metric=metric.name,
        extractor=planned.extractor,
        signature=planned.signature,
        direction=metric.direction,
        log=metric.about.ratios,
        guidance=tuple(scales),
        steps=steps,
        samples=samples,
        seed=TUNING_SEEDS + block,
        reference=evaluation.reference,
        reference_hash=evaluation.reference_hash,
    )


def score(aim: Aim, values: Sequence[float]) -> float:
    """The objective; lower is better."""
    if aim.log:
        return math.fsum(math.log(max(v, LEAST)) for v in values) / len(values)
    mean = math.fsum(values) / len(values)
    return mean if aim.direction == "lower" else -mean


def shown(aim: Aim, score: float | None) -> str:
    """A score as an average of the metric; '?' for None."""
    if score is None:
        return "?"
    if aim.log:
        return f"{math.exp(score):.4g}"
    return f"{score if aim.direction == 'lower' else -score:.4g}"
