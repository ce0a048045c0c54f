"""The metrics of a plan on one generated set: values with their errors, as rows store them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.experiment.identity import code_hash, digest
from bench.experiment.rows import Value
from bench.system.failures import system_error
from metrics import Accumulator
from metrics.base import Estimate, Extractor, Metric, SampleSet


@dataclass(frozen=True)
class Planned:
    """One metric with its extractor ('' where it uses none) and a hash of what it depends on."""

    metric: Metric
    extractor: str
    extractor_hash: str
    signature: str

    @property
    def key(self) -> str:
        """Metric and extractor, under which a row says why there is no value."""
        return f"{self.metric.name} {self.extractor}".strip()


@dataclass(frozen=True)
class Measured:
    """What one generated set gave: values, a sentence a failed metric, reasons for those left out.

    `unmeasured` has them by metric and extractor.
    """

    values: tuple[Value, ...]
    problems: tuple[str, ...]
    unmeasured: Mapping[str, str]


def plan_metric(metric: Metric, extractor: Extractor | None, reference_hash: str) -> Planned:
    """A metric with its extractor and the signature of its values."""
    name, hashed = ("", "") if extractor is None else (extractor.name, extractor.hash)
    signature = digest(
        {
            "metric": metric.name,
            "version": metric.version,
            "code": code_hash(type(metric)),
            "pass": code_hash(Accumulator),
            "extractor": hashed,
            "extractor code": "" if extractor is None else code_hash(type(extractor)),
            "reference": reference_hash,
        }
    )
    return Planned(metric, name, hashed, signature)


def fitting_plan(
    plan: Sequence[Planned], real: SampleSet
) -> tuple[tuple[Planned, ...], dict[str, str]]:
    """The part of a plan that a real side has everything for, and why not the rest."""
    refused = {p.key: p.metric.refuses(real=real, extractor=p.extractor) for p in plan}
    fitting = tuple(p for p in plan if refused[p.key] is None)
    return fitting, {key: reason for key, reason in refused.items() if reason is not None}


def measure(
    plan: Sequence[Planned], real: SampleSet, fake: SampleSet, unmeasured: Mapping[str, str]
) -> Measured:
    """Every planned metric whose minimum of samples is met, each with its error.

    `unmeasured` are the reasons known before, for metrics that are not in the plan.
    """
    values: list[Value] = []
    problems: list[str] = []
    reasons = dict(unmeasured)
    for p in plan:
        if fake.n < p.metric.minimum_n:
            reasons[p.key] = f"{p.metric.name} needs {p.metric.minimum_n} samples"
            continue
        try:
            found = p.metric.compute(real=real, fake=fake, extractor=p.extractor)
            values.append(_value(p, fake.n, found))
        except Exception as error:  # a metric may be a plugin's and fail in any way
            if system_error(error) is not None:  # no fault of the metric
                raise
            problems.append(f"metric {p.metric.name} failed: {type(error).__name__}: {error}")
    return Measured(tuple(values), tuple(problems), reasons)


def _value(planned: Planned, n: int, found: Estimate | float) -> Value:
    """A value as it is stored; ValueError if it is not finite.

    An error that is not finite is left out whole, rather than the value with it.
    """
    estimate = found if isinstance(found, Estimate) else Estimate(float(found))
    if not math.isfinite(estimate.value):
        raise ValueError(f"it gave {estimate.value}")
    stated = (estimate.se, estimate.low, estimate.high)
    numbers = [*(end for end in stated if end is not None), *estimate.replicates]
    if not all(map(math.isfinite, numbers)) or (estimate.se or 0.0) < 0:
        estimate = Estimate(estimate.value)
    return Value(
        metric=planned.metric.name,
        label=planned.metric.label,
        version=planned.metric.version,
        direction=planned.metric.direction,
        extractor=planned.extractor,
        extractor_hash=planned.extractor_hash,
        n=n,
        value=estimate.value,
        se=estimate.se,
        se_method=estimate.se_method,
        low=estimate.low,
        high=estimate.high,
        # Ten digits are far below any sampling error, and half of what a double takes as text.
        replicates=tuple(float(f"{value:.10g}") for value in estimate.replicates),
        signature=planned.signature,
        about=planned.metric.about,
    )
