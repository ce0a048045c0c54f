"""Two sets through the extractors and into metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from bench.errors import UserError
from bench.evaluate import exact_mixture
from bench.evaluating.result import Measured, NotMeasured
from bench.evaluating.sides import Side
from bench.files import sha256
from bench.protocols import Protocol, title
from bench.real_side import real_side
from bench.statistics.base import Statistics
from metrics import METRICS, Accumulator, NonFiniteFeatures, plan_needs
from metrics.base import (
    Domain,
    Estimate,
    ExactMixture,
    Extractor,
    Metric,
    Moments,
    SampleSet,
)
from metrics.cache import keep_results

Tell = Callable[[int, int], None]
SPATIAL = "inception-spatial"


@dataclass(frozen=True)
class Reference:
    """The real side: samples, statistics of some, or both."""

    name: str
    hash: str
    side: Side | None
    statistics: Statistics | None

    @property
    def exact(self) -> ExactMixture | None:
        """The density, where it is a toy's."""
        data = self.side.data if self.side is not None else None
        return None if data is None else exact_mixture(data)


def make_reference(name: str, side: Side | None, statistics: Statistics | None) -> Reference:
    """A reference with the hash of what it holds: of the file where that is one of statistics."""
    if statistics is not None:
        return Reference(name, sha256(statistics.path), side, statistics)
    if side is None:
        raise ValueError("a reference is samples or statistics")
    return Reference(name, side.hash, side, None)


@dataclass(frozen=True)
class Planned:
    """A metric on an extractor's features; None for a metric that uses none."""

    metric: Metric
    extractor: Extractor | None
    moments_only: bool = False
    """Whether the real set has no more than moments for it."""

    @property
    def name(self) -> str:
        """The extractor's name, or ''."""
        return "" if self.extractor is None else self.extractor.name


@dataclass
class Plan:
    """What can be computed, and why the rest cannot."""

    planned: list[Planned] = field(default_factory=list)
    refused: list[NotMeasured] = field(default_factory=list)
    raw: dict[str, Extractor] = field(default_factory=dict)
    """Extractors of metrics that name none, and look at vectors as they are."""

    def extractors(self, planned: Iterable[Planned]) -> dict[str, Extractor]:
        """Every extractor of some of what is planned once."""
        return self.raw | {p.name: p.extractor for p in planned if p.extractor is not None}


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
    fake: Side,
    protocol: Protocol | None,
    *,
    asked: bool = True,
) -> Plan:
    """Every metric on every extractor that fits, or those of the protocol.

    What does not fit the data is told of only if it was `asked` for.
    """
    plan = Plan()
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
            if reason is None:
                plan.planned.append(Planned(metric, extractor, moments_only))
                if extractor is None and metric.needs - {"pixels"} and "identity" in extractors:
                    plan.raw["identity"] = extractors["identity"]
            else:
                plan.refused.append(NotMeasured(metric=name, extractor=where, reason=reason))
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


def real_sets(
    plan: Plan, reference: Reference, cache: Path, tell: Tell
) -> tuple[SampleSet | None, SampleSet | None]:
    """The real side with all that metrics ask for, and that of moments alone."""
    whole: SampleSet | None = None
    found = reference.statistics
    asked = [p for p in plan.planned if not p.moments_only]
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
        whole = real_side(
            cache,
            re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-"),
            side.hash,
            extractors,
            plan_needs(p.metric for p in asked),
            feed,
            exact=reference.exact,
            mixture=repr(side.data.spec.mixture if side.data is not None else None),
        )
    few = [p for p in plan.planned if p.moments_only]
    return whole, _set_of(found, few, cache) if found is not None and few else None


def _set_of(found: Statistics, planned: Iterable[Planned], cache: Path) -> SampleSet:
    """What a file holds, as the real side; what is computed of it is kept in `cache`."""
    moments: dict[str, Moments] = {}
    features = {}
    for p in planned:
        of = found.spatial if p.name == SPATIAL else found.moments
        if of is not None:
            moments[p.name] = of
        if found.features is not None and p.name != SPATIAL:
            features[p.name] = found.features
    labels = np.zeros(found.n, np.int64)
    labels.setflags(write=False)
    made = SampleSet(n=found.n, labels=labels, features=features, moments=moments)
    keep_results(made, cache)
    return made


def feed_side(accumulator: Accumulator, side: Side, tell: Tell) -> None:
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


def fake_set(plan: Plan, fake: Side, tell: Tell) -> SampleSet:
    """The generated side."""
    accumulator = Accumulator(
        plan.extractors(plan.planned), plan_needs(p.metric for p in plan.planned)
    )
    feed_side(accumulator, fake, tell)
    return accumulator.finish()


def compute(
    plan: Plan,
    real: SampleSet | None,
    moments: SampleSet | None,
    fake_samples: SampleSet,
    *,
    fake: Side,
    reference: Reference,
    protocol: str,
) -> tuple[list[Measured], list[NotMeasured]]:
    """All values, and what failed with its reason."""
    rows: list[Measured] = []
    failed: list[NotMeasured] = []
    for p in plan.planned:
        against = moments if p.moments_only else real
        if against is None:  # the metric looks at generated samples alone
            against = SampleSet(n=0, labels=np.zeros(0, np.int64))
        try:
            found = p.metric.compute(real=against, fake=fake_samples, extractor=p.name)
            estimate = found if isinstance(found, Estimate) else Estimate(float(found))
            if not math.isfinite(estimate.value):
                raise ValueError(f"it gave {estimate.value}")
        except Exception as error:  # a metric may be a plugin's and fail in any way
            reason = f"{type(error).__name__}: {error}"
            failed.append(
                NotMeasured(metric=p.metric.name, extractor=p.name, reason=reason, failed=True)
            )
            continue
        rows.append(_row(p, estimate, against, fake, reference, protocol))
    return rows, failed


def _row(
    p: Planned,
    estimate: Estimate,
    against: SampleSet,
    fake: Side,
    reference: Reference,
    protocol: str,
) -> Measured:
    metric = p.metric
    k: int | None = getattr(metric, "k", None)
    closed: bool | None = getattr(metric, "closed", None)
    ties: Literal["", "<=", "<"] = "" if closed is None else "<=" if closed else "<"
    finite = replace(estimate, se=_finite(estimate.se))
    low, high = _finite(estimate.low), _finite(estimate.high)
    if finite.se is not None and low is None:
        low, high = finite.value - 1.96 * finite.se, finite.value + 1.96 * finite.se
    return Measured(
        metric=metric.name,
        title=title(metric.label, metric.name, p.name, fake.n, protocol),
        version=metric.version,
        direction=metric.direction,
        value=finite.value,
        se=finite.se,
        se_method=finite.se_method,
        low=low,
        high=high,
        protocol=protocol,
        extractor=p.name,
        extractor_hash="" if p.extractor is None else p.extractor.hash,
        n=fake.n,
        n_real=against.n or None,
        k=k,
        ties=ties,
        samples=fake.name,
        samples_hash=fake.hash,
        reference=reference.name,
        reference_hash=reference.hash,
        replicates=estimate.replicates,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
