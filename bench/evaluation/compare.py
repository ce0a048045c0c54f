"""Two sets through the extractors and into metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.evaluation.cache import ResultFiles
from bench.evaluation.plan import Planned, fitting_plan, measure, plan_metric
from bench.evaluation.prepare import exact_mixture
from bench.evaluation.reference import reference_set
from bench.evaluation.result import MeasuredValue, NotMeasured
from bench.evaluation.sides import SampleSource
from bench.evaluation.statistics.base import Statistics
from bench.experiment.protocols import Protocol, title
from bench.experiment.rows import Value
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.system.progress import Count
from metrics import METRICS, Accumulator, NonFiniteFeatures, plan_needs
from metrics.base import Domain, ExactMixture, Extractor, Metric, Moments, SampleSet
from metrics.memo import keep_in

SPATIAL = "inception-spatial"


@dataclass(frozen=True)
class Reference:
    """The real side: samples, statistics of some, or both."""

    name: str
    hash: str
    side: SampleSource | None
    statistics: Statistics | None

    @property
    def exact(self) -> ExactMixture | None:
        """The density, where it is a toy's."""
        data = self.side.data if self.side is not None else None
        return None if data is None else exact_mixture(data)


def make_reference(
    name: str, side: SampleSource | None, statistics: Statistics | None
) -> Reference:
    """A reference with the hash of what it holds: of the file where that is one of statistics."""
    if statistics is not None:
        return Reference(name, sha256(statistics.path), side, statistics)
    if side is None:
        raise ValueError("a reference is samples or statistics")
    return Reference(name, side.hash, side, None)


@dataclass
class Plan:
    """What can be computed with the extractors that were made, and why the rest cannot."""

    made: Mapping[str, Extractor]
    planned: list[Planned] = field(default_factory=list)
    unmeasured: list[NotMeasured] = field(default_factory=list)
    moments_only: set[str] = field(default_factory=set)
    """Keys of those for which the real set has no more than moments."""
    raw: set[str] = field(default_factory=set)
    """Extractors of metrics that name none, and look at vectors as they are."""

    def extractors(self, planned: Iterable[Planned]) -> dict[str, Extractor]:
        """Every extractor of some of what is planned once."""
        used = self.raw | {p.extractor for p in planned if p.extractor}
        return {name: extractor for name, extractor in self.made.items() if name in used}

    def refuse(self, metric: str, extractor: str, reason: str, *, failed: bool = False) -> None:
        """Keep the reason why there is no value."""
        self.unmeasured.append(
            NotMeasured(metric=metric, extractor=extractor, reason=reason, failed=failed)
        )

    def check(self) -> None:
        """UserError with all reasons if nothing can be computed."""
        if not self.planned:
            reasons = "; ".join(dict.fromkeys(lacking.reason for lacking in self.unmeasured))
            raise UserError(f"No metric can be computed: {reasons}.", code=2)


@dataclass(frozen=True)
class RealSets:
    """The real side with all that metrics ask for, and that of moments alone, where each is."""

    whole: SampleSet | None
    moments: SampleSet | None

    def of(self, plan: Plan, planned: Planned) -> SampleSet:
        """What a metric compares with; an empty set for one of generated samples alone."""
        found = self.moments if planned.key in plan.moments_only else self.whole
        return SampleSet(n=0, labels=np.zeros(0, np.int64)) if found is None else found


def check_statistics(reference: Reference, extractors: Mapping[str, Extractor]) -> list[str]:
    """UserError if an extractor is not what made a statistics file; warnings where that is open."""
    found = reference.statistics
    if found is None or found.moments is None:
        return []
    main = [e for name, e in extractors.items() if name != SPATIAL]
    for extractor in main:
        dim = len(found.moments.mean)
        if extractor.dim != dim:
            raise UserError(
                f"{reference.name} has features of {dim:,} dimensions and extractor "
                f"{extractor.name} gives {extractor.dim:,}: it was made with another one, which "
                "--extractor or --protocol can name."
            )
        if found.extractor and found.extractor != extractor.name:
            raise UserError(
                f"{reference.name} is of {found.extractor} features, not of {extractor.name}."
            )
        _check_hash(reference.name, found.card.extractor_hash if found.card else None, extractor)
    if SPATIAL in extractors and found.card is not None and found.spatial is not None:
        _check_hash(reference.name, found.card.spatial_hash, extractors[SPATIAL])
    if found.card is not None:
        return []
    names = ", ".join(e.name for e in main)
    return [
        f"{reference.name} does not say which network and resize made it; the values are right "
        f"only if that was {names}."
    ]


def _check_hash(name: str, recorded: str | None, extractor: Extractor) -> None:
    if recorded and recorded != extractor.hash:
        raise UserError(
            f"{name} was made with other weights, resize or preprocessing than extractor "
            f"{extractor.name} has here ({recorded[:12]}, not {extractor.hash[:12]}): make it "
            "again with bench stats make."
        )


def make_plan(
    metrics: Sequence[str],
    extractors: Mapping[str, Extractor],
    reference: Reference,
    fake: SampleSource,
    protocol: Protocol | None,
    *,
    asked: bool = True,
) -> Plan:
    """Every metric on every extractor that fits, or those of the protocol.

    What does not fit the data is told of only if it was `asked` for. UserError if nothing is left.
    """
    plan = Plan({extractor.name: extractor for extractor in extractors.values()})
    domain: Domain = "image" if fake.is_image else "vector"
    for name in metrics:
        metric = METRICS[name]()
        for extractor in extractors.values() if metric.uses_extractor else (None,):
            where = "" if extractor is None else extractor.name
            if protocol is not None and not protocol.has(name, where):
                continue
            reason = metric.supports(domain=domain, extractor=extractor, exact=reference.exact)
            if reason is not None and not asked:
                continue
            if reason is None and fake.n < metric.minimum_n:
                reason = f"it needs {metric.minimum_n:,} samples and there are {fake.n:,}"
            moments_only = False
            if reason is None:
                reason, moments_only = _from_statistics(metric, extractor, reference)
            if reason is not None:
                plan.refuse(name, where, reason)
                continue
            planned = plan_metric(metric, extractor, reference.hash)
            plan.planned.append(planned)
            if moments_only:
                plan.moments_only.add(planned.key)
            if extractor is None and metric.needs - {"pixels"}:
                plan.raw.add("identity")
    plan.check()
    return plan


def _from_statistics(
    metric: Metric, extractor: Extractor | None, reference: Reference
) -> tuple[str | None, bool]:
    """Why a statistics file does not suffice, if so, and whether its moments are used."""
    found = reference.statistics
    if found is None:
        return None, False
    needs = metric.needs_of_real()
    if not needs:
        return None, False
    spatial = extractor is not None and extractor.name == SPATIAL
    moments = found.spatial if spatial else found.moments
    if needs == {"moments"}:
        if moments is not None:
            return None, found.features is None
        return f"{reference.name} has no moments of spatial features", False
    if found.features is not None and not spatial and needs <= {"moments", "features"}:
        return None, False
    if reference.side is not None:
        return None, False
    has = "features" if found.features is not None else "moments"
    wants = " and ".join(sorted(needs - {"moments"}))
    return f"it needs {wants} of the real samples, and {reference.name} holds {has} alone", False


def real_sets(plan: Plan, reference: Reference, cache: Path, tell: Count) -> RealSets:
    """The real side; what it lacks something for leaves the plan, and a UserError if that is all.

    Real images without colour, for one, are known only now.
    """
    whole: SampleSet | None = None
    found = reference.statistics
    asked = [p for p in plan.planned if p.key not in plan.moments_only]
    side = reference.side
    if found is not None and found.features is not None:
        whole = _set_of(found, asked, cache)
    elif side is not None and any(found is None or p.metric.needs_of_real() for p in asked):
        extractors = plan.extractors(asked)

        def feed(accumulator: Accumulator) -> None:
            feed_side(accumulator, side, tell)

        name = side.name
        if side.data is not None and name == f"{side.data.name}/reference":
            name = side.data.name  # the cache of sweeps on it
        whole = reference_set(
            cache,
            re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-"),
            side.hash,
            extractors,
            plan_needs(p.metric for p in asked),
            feed,
            exact=reference.exact,
            mixture=repr(side.data.spec.mixture if side.data is not None else None),
        )
    few = [p for p in plan.planned if p.key in plan.moments_only]
    sets = RealSets(whole, _set_of(found, few, cache) if found is not None and few else None)
    for p in tuple(plan.planned):
        for reason in fitting_plan([p], sets.of(plan, p))[1].values():
            plan.planned.remove(p)
            plan.refuse(p.metric.name, p.extractor, reason)
    plan.check()
    return sets


def _set_of(found: Statistics, planned: Iterable[Planned], cache: Path) -> SampleSet:
    """What a file holds, as the real side; what is computed of it is kept in `cache`."""
    moments: dict[str, Moments] = {}
    features = {}
    for p in planned:
        of = found.spatial if p.extractor == SPATIAL else found.moments
        if of is not None:
            moments[p.extractor] = of
        if found.features is not None and p.extractor != SPATIAL:
            features[p.extractor] = found.features
    labels = np.zeros(found.n, np.int64)
    labels.setflags(write=False)
    made = SampleSet(n=found.n, labels=labels, features=features, moments=moments)
    keep_in(ResultFiles(cache), made)
    return made


def feed_side(accumulator: Accumulator, side: SampleSource, tell: Count) -> None:
    """All samples of a side; UserError, with the sample's file, where features are not finite."""
    done = 0
    try:
        for x, y in side.batches():
            accumulator.update(x, y)
            done += len(x)
            tell(done, side.n)
    except NonFiniteFeatures as error:
        raise UserError(f"{side.where(error.first)} cannot be measured: {error}.") from None
    except ValueError as error:
        raise UserError(f"{side.name} cannot be measured: {error}.") from None


def fake_set(plan: Plan, fake: SampleSource, tell: Count) -> SampleSet:
    """The generated side."""
    accumulator = Accumulator(
        plan.extractors(plan.planned), plan_needs(p.metric for p in plan.planned)
    )
    feed_side(accumulator, fake, tell)
    return accumulator.finish()


def compute(
    plan: Plan,
    real: RealSets,
    fake_samples: SampleSet,
    *,
    fake: SampleSource,
    reference: Reference,
    protocol: str,
) -> list[MeasuredValue]:
    """All values; the plan keeps the reasons of those that are missing."""
    rows: list[MeasuredValue] = []
    for p in plan.planned:
        against = real.of(plan, p)
        found = measure([p], against, fake_samples, {})
        rows += [_row(p.metric, v, against, fake, reference, protocol) for v in found.values]
        for reason in found.unmeasured.values():
            plan.refuse(p.metric.name, p.extractor, reason)
        for problem in found.problems:
            plan.refuse(p.metric.name, p.extractor, problem, failed=True)
    return rows


def _row(
    metric: Metric,
    value: Value,
    against: SampleSet,
    fake: SampleSource,
    reference: Reference,
    protocol: str,
) -> MeasuredValue:
    k: int | None = getattr(metric, "k", None)
    closed: bool | None = getattr(metric, "closed", None)
    ties: Literal["", "<=", "<"] = "" if closed is None else "<=" if closed else "<"
    low, high = value.interval or (None, None)
    return MeasuredValue(
        metric=value.metric,
        title=title(value.label, value.metric, value.extractor, fake.n, protocol),
        version=value.version,
        direction=value.direction,
        value=value.value,
        se=value.se,
        se_method=value.se_method,
        low=low,
        high=high,
        protocol=protocol,
        extractor=value.extractor,
        extractor_hash=value.extractor_hash,
        n=value.n,
        n_real=against.n or None,
        k=k,
        ties=ties,
        samples=fake.name,
        samples_hash=fake.hash,
        reference=reference.name,
        reference_hash=reference.hash,
        replicates=value.replicates,
    )
