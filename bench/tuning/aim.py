"""The tuner's objective: one metric, over that of CFG at equal outcome, averaged over scales.

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
from bench.tuning.store import Aim, ScaleValue
from bench.tuning.target import LEAST, Target
from metrics import METRICS


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
    evaluation: Evaluation,
    scales: Sequence[float],
    steps: int,
    samples: int,
    block: int,
    outcomes: Sequence[str] = (),
) -> Aim:
    """The objective: the first measurement that is no outcome; UserError for too few samples."""
    planned = evaluation.plan[0]
    metric = planned.metric
    measured = {m.metric.name for m in evaluation.plan if samples >= m.metric.minimum_n}
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
        outcomes=tuple(name for name in outcomes if name in measured),
    )


def score(aim: Aim, found: Sequence[ScaleValue], target: Target | None = None) -> float:
    """The objective; lower is better. With a target, values count over those of CFG."""
    if target is not None:
        return math.fsum(target.excess(aim, entry) for entry in found) / len(found)
    values = [entry.value for entry in found]
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
