"""Two sets of samples, extracted and compared by metrics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.evaluation.cache import ResultFiles
from bench.evaluation.passes import is_of_images
from bench.evaluation.plan import Measurement, Plan, measure, nothing_fits
from bench.evaluation.reference import SPATIAL, Reference, reference_set
from bench.evaluation.result import MeasuredValue, NotMeasured
from bench.evaluation.sides import SampleSource
from bench.evaluation.statistics_files import Statistics
from bench.experiment.protocols import title
from bench.experiment.rows import Value
from bench.system.errors import UserError
from bench.system.progress import Count
from metrics import Accumulator, NonFiniteFeatures, plan_needs
from metrics.base import Metric, Moments, SampleSet
from metrics.images import Images, with_images
from metrics.memo import keep_in


@dataclass(frozen=True)
class RealSets:
    """The real set with everything that metrics need, and one of moments only; may be empty."""

    whole: SampleSet
    moments: SampleSet
    reference: Reference

    def of(self, metric: Metric) -> SampleSet:
        """The real set for a metric; empty for a metric of generated samples only."""
        return self.moments if self.reference.has_moments_alone(metric) else self.whole


def real_sets(plan: Plan, reference: Reference, cache: Path, count: Count) -> tuple[Plan, RealSets]:
    """The real sets, and the part of the plan that they suffice for; UserError if that is empty.

    Only now is it known, for example, that the real images have no colour.
    """
    found, side = reference.statistics, reference.side
    few = [m for m in plan.measurements if reference.has_moments_alone(m.metric)]
    asked = replace(plan, measurements=tuple(m for m in plan.measurements if m not in few))
    whole = moments = SampleSet(n=0, labels=np.zeros(0, np.int64))
    if found is not None and few:
        moments = _set_of(found, few, cache)
    if found is not None and found.features is not None:
        whole = _set_of(found, asked.measurements, cache)
    elif side is not None and any(
        found is None or m.metric.needs_of_real() for m in asked.measurements
    ):
        name = side.name
        if side.data is not None and name == f"{side.data.name}/reference":
            name = side.data.name  # the cache of sweeps on it
        whole = reference_set(
            cache,
            re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-"),
            side.hash,
            asked.extractors(),
            plan_needs(m.metric for m in asked.measurements),
            lambda accumulator: feed_side(accumulator, side, count),
            exact=reference.exact,
            mixture=repr(side.data.spec.mixture if side.data is not None else None),
        )
        if whole.pixels is not None and any(is_of_images(m.metric) for m in asked.measurements):
            whole = replace(whole, pixels=with_images(whole.pixels, partial(_images, side)))
    sets = RealSets(whole, moments, reference)
    fitting = plan.fitting(sets.of)
    if not fitting.measurements:
        raise nothing_fits(reference, (lacking.reason for lacking in fitting.unmeasured))
    return fitting, sets


def _images(side: SampleSource) -> Images:
    return np.concatenate([x.cpu().numpy() for x, _ in side.batches()])


def _set_of(found: Statistics, measurements: Sequence[Measurement], cache: Path) -> SampleSet:
    """A statistics file as the real set; results computed from it are kept in `cache`."""
    moments: dict[str, Moments] = {}
    features = {}
    for m in measurements:
        of = found.spatial if m.extractor == SPATIAL else found.moments
        if of is not None:
            moments[m.extractor] = of
        if found.features is not None and m.extractor != SPATIAL:
            features[m.extractor] = found.features
    labels = np.zeros(found.n, np.int64)
    labels.setflags(write=False)
    made = SampleSet(n=found.n, labels=labels, features=features, moments=moments)
    keep_in(ResultFiles(cache), made)
    return made


def feed_side(accumulator: Accumulator, side: SampleSource, count: Count) -> None:
    """Feed all samples of a side; UserError naming the file of a sample without finite features."""
    done = 0
    try:
        for x, y in side.batches():
            accumulator.update(x, y)
            done += len(x)
            count(done, side.n)
    except NonFiniteFeatures as error:
        raise UserError(f"{side.where(error.first)} cannot be measured: {error}.") from None
    except ValueError as error:
        raise UserError(f"{side.name} cannot be measured: {error}.") from None


def compute(
    plan: Plan, real: RealSets, samples: SampleSet, *, fake: SampleSource, protocol: str
) -> tuple[list[MeasuredValue], list[NotMeasured]]:
    """All values, and the reasons for missing ones, including failures of metrics."""
    rows: list[MeasuredValue] = []
    missing = list(plan.unmeasured)
    for m in plan.measurements:
        against = real.of(m.metric)
        found = measure([m], against, samples, {})
        rows += [_row(m.metric, v, against, fake, real.reference, protocol) for v in found.values]
        missing += [
            NotMeasured(metric=m.metric.name, extractor=m.extractor, reason=reason, failed=failed)
            for failed, reasons in ((False, found.unmeasured.values()), (True, found.problems))
            for reason in reasons
        ]
    return rows, missing


def _row(
    metric: Metric, value: Value, against: SampleSet, fake: SampleSource,
    reference: Reference, protocol: str,
) -> MeasuredValue:  # fmt: skip
    closed: bool | None = getattr(metric, "closed", None)
    shared = value.model_dump(include=MeasuredValue.model_fields.keys() - {"low", "high"})
    low, high = value.interval or (None, None)
    return MeasuredValue(
        **shared,
        title=title(value.label, value.metric, value.extractor, fake.n, protocol),
        low=low,
        high=high,
        protocol=protocol,
        n_real=against.n or None,
        k=getattr(metric, "k", None),
        ties="" if closed is None else "<=" if closed else "<",
        samples=fake.name,
        samples_hash=fake.hash,
        reference=reference.name,
        reference_hash=reference.hash,
    )
