"""Which metrics are computed with which extractors, and the real side they compare with."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.evaluation.cache import ClassifierFiles
from bench.evaluation.plan import Measured, Planned, fitting_plan, measure, plan_metric
from bench.evaluation.reference import reference_set
from bench.evaluation.weights import check_weights, find_weights, not_loaded, verified
from bench.experiment.protocols import find_protocol
from bench.system.errors import UserError, unknown
from bench.system.failures import system_error
from bench.system.progress import Say
from metrics import (
    EXTRACTORS,
    METRICS,
    Accumulator,
    plan_needs,
)
from metrics.accuracy import ClassAccuracy
from metrics.base import Domain, ExactMixture, Extractor, SampleSet
from metrics.extractors import (
    EfficientNetExtractor,
    train_classifier,
    train_head,
)
from metrics.extractors.weights_table import WEIGHTS
from metrics.rows import Rows
from metrics.tilt import at_guidance

BATCH = 256
TELL_EVERY = 15.0


class TakesLong(Exception):
    """The extractors or the real side are not there yet, and making them takes long."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that turns the samples of a cell into values.

    `unmeasured` says why metrics that were asked for, or are computed by default, are not in the
    plan: the data or the real side lacks what they need.
    """

    data: Dataset
    extractors: dict[str, Extractor]
    plan: tuple[Planned, ...]
    real: SampleSet
    reference: str
    reference_hash: str
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def accumulator(self) -> Accumulator:
        """A fresh pass over one generated set."""
        return Accumulator(self.extractors, plan_needs(p.metric for p in self.plan))

    def measure(self, fake: SampleSet, guidance: float) -> Measured:
        """Every planned metric whose minimum of samples is met, each with its error.

        `guidance` is the scale that the samples were asked for, 1 for real ones.
        """
        return measure(self.plan, self.real, at_guidance(fake, guidance), self.unmeasured)


def make_extractor(
    name: str,
    data: Dataset,
    cache: Path,
    weights: Path | None,
    download: bool,
    *,
    device: torch.device | str = "cpu",
    tell: Say = lambda _: None,
) -> Extractor:
    """The extractor ready for use; missing weights are a UserError that says what to do.

    `classifier` is a small network of its own, or a head on efficientnet-lite0's features where
    that can see enough: colour images from 32x32. `tell` gets a sentence before and during what
    takes long.
    """
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS)
    try:
        if name == "identity":
            return EXTRACTORS[name](data.spec.shape[0])
        if name == "classifier":
            samples, labels = data.train.samples, data.train.labels
            store = ClassifierFiles(cache)
            if not is_photographic(data):
                return train_classifier(samples, labels, store=store)
            network = _efficientnet(str(device))
            return train_head(samples, labels, network=network, store=store, tell=tell)
        if name == EfficientNetExtractor.name:
            return _efficientnet(str(device))
        if name in WEIGHTS:
            found = find_weights(WEIGHTS[name], weights, download=download)
            return EXTRACTORS[name](verified(found, WEIGHTS[name]), device=device)
        return EXTRACTORS[name](weights, download=download)
    except (OSError, RuntimeError) as error:
        if system_error(error) is not None:
            raise
        raise not_loaded(name, error) from None
    except ValueError as error:
        raise UserError(f"Extractor {name!r} cannot be used on {data.name!r}: {error}.") from None


def is_photographic(data: Dataset) -> bool:
    """Whether a network trained on photographs can see enough: colour images from 32x32."""
    shape = data.spec.shape
    return data.spec.is_image and shape[0] == 3 and min(shape[1:]) >= 32


@functools.lru_cache(maxsize=1)
def _efficientnet(device: str) -> EfficientNetExtractor:
    # One for all who ask: it remembers its last batch, which the classifier then gets for nothing.
    return EfficientNetExtractor(device=device)


def prepare(
    data: Dataset,
    cache: Path,
    *,
    metrics: Sequence[str] | None = None,
    extractors: Sequence[str] | None = None,
    protocol: str | None = None,
    weights: Path | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    tell: Say = lambda _: None,
    patient: bool = True,
) -> Evaluation:
    """Extractors, plan and real side for a data set.

    By default all metrics that fit the data and are marked so, on the data set's own extractors;
    with a `protocol`, those that it names.
    The real side is computed once and cached under a key made of the content and everything it
    passes through. Extractors run on `device`; `tell` gets a sentence before and during what takes
    long, which raises TakesLong instead where nobody is `patient`.
    """
    meanwhile = tell if patient else _give_up
    domain: Domain = "image" if data.spec.is_image else "vector"
    chosen = find_protocol(protocol) if protocol else None
    if chosen is not None:
        metrics, extractors = chosen.metrics, chosen.extractors
    wanted = tuple(extractors) if extractors else data.extractors
    # All of them before the first, which may be a classifier that is trained for minutes.
    for name in wanted:
        if name not in EXTRACTORS:
            raise unknown("extractor", name, EXTRACTORS)
    check_weights(wanted, weights, download)
    made = {
        name: make_extractor(name, data, cache, weights, download, device=device, tell=meanwhile)
        for name in wanted
    }
    exact = exact_mixture(data)
    reference_hash = data.reference.hash
    plan: list[Planned] = []
    refused: list[str] = []
    unmeasured: dict[str, str] = {}
    for name in metrics or sorted(name for name, metric in METRICS.items() if metric.default):
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        metric = METRICS[name]()
        planned, reasons = len(plan), len(refused)
        for extractor in made.values() if metric.uses_extractor else (None,):
            if chosen is not None and not chosen.has(name, extractor.name if extractor else ""):
                continue
            reason = metric.supports(domain=domain, extractor=extractor, exact=exact)
            if reason is None:
                plan.append(plan_metric(metric, extractor, reference_hash))
            else:
                refused.append(reason)
        # By default it goes without saying that a metric of vectors is not for images.
        if metrics and len(plan) == planned:
            unmeasured[name] = "; ".join(dict.fromkeys(refused[reasons:]))
    if not plan:
        raise _nothing_fits(data, refused)
    used = {p.extractor for p in plan if p.extractor}
    # Metrics of known densities name no extractor and look into the features of vectors.
    if any(p.metric.needs - {"pixels"} for p in plan if not p.extractor):
        used.add("identity")
    kept = {name: extractor for name, extractor in made.items() if name in used}
    real = _real_side(data, kept, plan, cache, exact, meanwhile)
    fitting, lacking = fitting_plan(plan, real)
    if not fitting:
        raise _nothing_fits(data, list(lacking.values()))
    unmeasured |= lacking
    for reason in unmeasured.values():
        tell(f"Not measured: {reason}.")
    return Evaluation(
        data=data,
        extractors=kept,
        plan=fitting,
        real=real,
        reference=f"{data.name}/{data.reference_split}",
        reference_hash=reference_hash,
        unmeasured=unmeasured,
    )


def _give_up(sentence: str) -> None:
    raise TakesLong(sentence)


def nothing_measured(data: Dataset) -> Evaluation:
    """An evaluation by which no cell is done, for planning what has not been prepared."""
    never = Planned(ClassAccuracy(), "", "", "nothing has this signature")
    real = SampleSet(n=len(data.reference), labels=data.reference.labels.numpy())
    return Evaluation(
        data, {}, (never,), real, f"{data.name}/{data.reference_split}", data.reference.hash
    )


def _nothing_fits(data: Dataset, reasons: Sequence[str]) -> UserError:
    return UserError(
        f"None of the metrics asked for fits {data.name!r}: {'; '.join(reasons)}.", code=2
    )


def exact_mixture(data: Dataset) -> ExactMixture | None:
    """The density of a data set in the form metrics take, or None where it is unknown."""
    mixture = data.spec.mixture
    if mixture is None:
        return None
    means = tuple(np.asarray(modes, dtype=np.float64) for modes in mixture.means)
    return ExactMixture(means, mixture.std)


def accumulate(
    accumulator: Accumulator, samples: Rows, labels: Tensor, tell: Say = lambda _: None
) -> None:
    """Feed a whole set in batches; `tell` gets a sentence whenever it has taken long."""
    last = time.monotonic()
    for start in range(0, len(labels), BATCH):
        accumulator.update(samples[start : start + BATCH], labels[start : start + BATCH])
        if time.monotonic() - last >= TELL_EVERY:
            last = time.monotonic()
            done = min(start + BATCH, len(labels))
            tell(f"Features of real samples: {done:,} of {len(labels):,}.")


def _real_side(
    data: Dataset,
    extractors: dict[str, Extractor],
    plan: Sequence[Planned],
    cache: Path,
    exact: ExactMixture | None,
    tell: Say,
) -> SampleSet:
    reference = data.reference

    def feed(accumulator: Accumulator) -> None:
        accumulate(accumulator, reference.samples, reference.labels, tell)

    return reference_set(
        cache,
        data.name,
        reference.hash,
        extractors,
        plan_needs(p.metric for p in plan),
        feed,
        exact=exact,
        mixture=repr(data.spec.mixture),
    )


def floor_split(data: Dataset, n: int) -> Split | None:
    """The first n training samples, or None if there are not as many."""
    if n > len(data.train):
        return None
    return data.train.part(0, n)
