"""Plans metrics on extractors, and computes the planned values with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from bench.evaluation.passes import pass_for
from bench.evaluation.reference import Reference
from bench.evaluation.result import NotMeasured
from bench.experiment.identity import code_hash, digest
from bench.experiment.protocols import Protocol, unknown_metric
from bench.experiment.rows import Value
from bench.system.errors import UserError, told
from bench.system.failures import system_error
from metrics import METRICS, Accumulator
from metrics.base import Estimate, Extractor, Metric, SampleSet, Unsuitable


@dataclass(frozen=True)
class Measurement:
    """One metric with its extractor ('' if it uses none) and a hash of what it depends on."""

    metric: Metric
    extractor: str
    extractor_hash: str
    signature: str

    @property
    def key(self) -> str:
        """Metric and extractor: the key of the reason for a missing value."""
        return f"{self.metric.name} {self.extractor}".strip()


@dataclass(frozen=True)
class Plan:
    """What is measured with which extractors, and why the rest is not."""

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[NotMeasured, ...]
    made: Mapping[str, Extractor]

    def extractors(self) -> dict[str, Extractor]:
        """Every extractor that a measurement uses, by its name."""
        used = {m.extractor for m in self.measurements if m.extractor}
        # Metrics of known densities name no extractor but use the features of vectors.
        if any(m.metric.needs - {"pixels"} for m in self.measurements if not m.extractor):
            used.add("identity")
        return {name: extractor for name, extractor in self.made.items() if name in used}

    def accumulator(self) -> Accumulator:
        """An accumulator of what the measurements need."""
        return pass_for(self.extractors(), (m.metric for m in self.measurements))

    def fitting(self, real: Callable[[Metric], SampleSet]) -> Plan:
        """The measurements for which the real set suffices, and the reasons against the others."""
        refused = {
            m: m.metric.refuses(real=real(m.metric), extractor=m.extractor)
            for m in self.measurements
        }
        lacking = tuple(
            NotMeasured(metric=m.metric.name, extractor=m.extractor, reason=reason)
            for m, reason in refused.items()
            if reason is not None
        )
        fitting = tuple(m for m, reason in refused.items() if reason is None)
        return Plan(fitting, (*self.unmeasured, *lacking), self.made)


@dataclass(frozen=True)
class Measured:
    """Values, messages of failed metrics, and reasons for unmeasured ones by their key."""

    values: tuple[Value, ...]
    problems: tuple[str, ...]
    unmeasured: Mapping[str, str]


def plan_measurements(
    metrics: Sequence[str],
    extractors: Iterable[Extractor],
    reference: Reference,
    *,
    image: bool,
    n: int | None = None,
    protocol: Protocol | None = None,
    unmatched: str = "",
    also: Sequence[str] = (),
    sampled: bool = False,
) -> Plan:
    """Plan every metric on every extractor that fits the data, or those of the protocol.

    `image`: whether the samples are images; `n`: number of generated samples, if known;
    `unmatched`: why their classes are not known; `sampled`: whether they are the samples of cells.
    Without `metrics` the default ones are planned, and those for other data are skipped silently.
    `also` are planned in any case. UserError with all reasons if nothing is left.
    """
    made = {extractor.name: extractor for extractor in extractors}
    planned: list[Measurement] = []
    refused: list[NotMeasured] = []
    unfit: list[str] = []
    usual = metrics or sorted(name for name, metric in METRICS.items() if metric.default)
    for name in dict.fromkeys([*usual, *also]):
        if name not in METRICS:
            raise unknown_metric(name, METRICS)
        metric = METRICS[name]()
        for extractor in made.values() if metric.uses_extractor else (None,):
            where = "" if extractor is None else extractor.name
            if protocol is not None and name not in also and not protocol.has(name, where):
                continue
            reason = metric.supports(
                domain="image" if image else "vector", extractor=extractor, exact=reference.exact
            )
            if reason is None and metric.of_sampling and not sampled:
                reason = f"{name} is measured while bench sweep samples, and not from images"
            if reason is not None and not metrics:
                unfit.append(reason)
                continue
            if reason is None and n is not None and n < metric.minimum_n:
                reason = f"it needs {metric.minimum_n:,} samples and there are {n:,}"
            if reason is None and metric.of_classes and unmatched:
                reason = unmatched
            reason = reason or reference.lacks(metric, where)
            if reason is None:
                planned.append(plan_metric(metric, extractor, reference.hash))
            else:
                refused.append(NotMeasured(metric=name, extractor=where, reason=reason))
    if not planned:
        raise nothing_fits(reference, [*unfit, *(lacking.reason for lacking in refused)])
    return Plan(tuple(planned), tuple(refused), made)


def nothing_fits(reference: Reference, reasons: Iterable[str]) -> UserError:
    """The error for an empty plan."""
    why = "; ".join(dict.fromkeys(reasons))
    return UserError(f"No metric can be computed against {reference.name}: {why}.", code=2)


def plan_metric(metric: Metric, extractor: Extractor | None, reference_hash: str) -> Measurement:
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
    return Measurement(metric, name, hashed, signature)


def measure(
    plan: Sequence[Measurement], real: SampleSet, fake: SampleSet, unmeasured: Mapping[str, str]
) -> Measured:
    """Compute all planned metrics for which there are enough samples.

    `unmeasured` holds the reasons already known, for metrics that are not in the plan.
    """
    values: list[Value] = []
    problems: list[str] = []
    reasons = dict(unmeasured)
    for m in plan:
        if fake.n < m.metric.minimum_n:
            reasons[m.key] = f"{m.metric.name} needs {m.metric.minimum_n} samples"
            continue
        try:
            found = m.metric.compute(real=real, fake=fake, extractor=m.extractor)
            values.append(_value(m, fake.n, found))
        except Unsuitable as error:
            reasons[m.key] = str(error)
        except Exception as error:  # a metric, perhaps a plugin's, may fail in any way
            if system_error(error) is not None:  # such as a full disk
                raise
            problems.append(f"metric {m.metric.name} failed: {told(error)}")
    return Measured(tuple(values), tuple(problems), reasons)


def _number(found: object) -> float:
    """A number, or an array or tensor of one; ValueError for anything else, NaN and infinity."""
    try:
        number = float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(found, "shape", None)
        what = f"a {type(found).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
        raise ValueError(f"it gave {what}, not a number or an Estimate") from None
    if not math.isfinite(number):
        raise ValueError(f"it gave {number}, not a finite number")
    return number


def _value(measurement: Measurement, n: int, found: Estimate | float) -> Value:
    """The value to store, without its error if that is not finite.

    ValueError if the value itself is not a finite number.
    """
    estimate = found if isinstance(found, Estimate) else Estimate(found)
    estimate = replace(estimate, value=_number(estimate.value))
    stated = (estimate.se, estimate.low, estimate.high)
    numbers = [*(end for end in stated if end is not None), *estimate.replicates]
    if not all(map(math.isfinite, numbers)) or (estimate.se or 0.0) < 0:
        estimate = Estimate(estimate.value)
    return Value(
        metric=measurement.metric.name,
        label=measurement.metric.label,
        version=measurement.metric.version,
        direction=measurement.metric.direction,
        extractor=measurement.extractor,
        extractor_hash=measurement.extractor_hash,
        n=n,
        signature=measurement.signature,
        about=measurement.metric.about,
        # Ten digits: far below any sampling error, and half the text of a full double.
        **{**asdict(estimate), "replicates": [float(f"{x:.10g}") for x in estimate.replicates]},
    )
