"""Which metrics are computed with which extractors, and the real side they compare with."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.errors import UserError, unknown
from bench.identity import code_hash, digest
from bench.protocols import find_protocol
from bench.real_side import real_side
from bench.store import Value
from metrics import (
    EXTRACTORS,
    METRICS,
    Accumulator,
    plan_needs,
)
from metrics.base import Domain, Estimate, ExactMixture, Extractor, Metric, SampleSet
from metrics.extractors import (
    EfficientNetExtractor,
    MissingWeights,
    train_classifier,
    train_head,
)

BATCH = 256
TELL_EVERY = 15.0
INCEPTIONS = ("inception", "inception-clean", "inception-spatial")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """One metric with its extractor ('' where it uses none) and a hash of what it depends on."""

    metric: Metric
    extractor: str
    extractor_hash: str
    signature: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that turns the samples of a cell into values."""

    data: Dataset
    extractors: dict[str, Extractor]
    plan: tuple[Planned, ...]
    real: SampleSet
    reference: str
    reference_hash: str

    def accumulator(self) -> Accumulator:
        """A fresh pass over one generated set."""
        return Accumulator(self.extractors, plan_needs(p.metric for p in self.plan))

    def values(self, fake: SampleSet) -> tuple[tuple[Value, ...], list[str]]:
        """Every planned metric whose minimum of samples is met, and a sentence a failed one."""
        values, problems = [], []
        for p in self.plan:
            if fake.n < p.metric.minimum_n:
                continue
            try:
                found = p.metric.compute(real=self.real, fake=fake, extractor=p.extractor)
                number = found.value if isinstance(found, Estimate) else float(found)
                if not math.isfinite(number):
                    raise ValueError(f"it gave {number}")
            except Exception as error:  # a metric may be a plugin's and fail in any way
                problems.append(f"metric {p.metric.name} failed: {type(error).__name__}: {error}")
                continue
            values.append(
                Value(
                    metric=p.metric.name,
                    label=p.metric.label,
                    version=p.metric.version,
                    direction=p.metric.direction,
                    extractor=p.extractor,
                    extractor_hash=p.extractor_hash,
                    n=fake.n,
                    value=number,
                    signature=p.signature,
                )
            )
        return tuple(values), problems


def make_extractor(
    name: str,
    data: Dataset,
    cache: Path,
    weights: Path | None,
    download: bool,
    *,
    device: torch.device | str = "cpu",
    tell: Tell = lambda _: None,
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
            if not is_photographic(data):
                return train_classifier(samples, labels, cache=cache)
            network = _efficientnet(str(device))
            return train_head(samples, labels, network=network, cache=cache, tell=tell)
        if name == EfficientNetExtractor.name:
            return _efficientnet(str(device))
        if name in INCEPTIONS:
            return EXTRACTORS[name](weights, download=download, device=device)
        return EXTRACTORS[name](weights, download=download)
    except MissingWeights as error:
        text = str(error).replace("download=True", "--download")
        raise UserError(f"{text}.") from None
    except (OSError, RuntimeError) as error:  # no connection, or not the published bytes
        raise UserError(f"The weights of extractor {name!r} cannot be had: {error}.") from None
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
    tell: Tell = lambda _: None,
) -> Evaluation:
    """Extractors, plan and real side for a data set.

    By default all metrics that fit the data and are marked so, on the data set's own extractors;
    with a `protocol`, those that it names.
    The real side is computed once and cached under a key made of the content and everything it
    passes through. Extractors run on `device`; `tell` gets a sentence before and during what takes
    long.
    """
    domain: Domain = "image" if data.spec.is_image else "vector"
    chosen = find_protocol(protocol) if protocol else None
    if chosen is not None:
        metrics, extractors = chosen.metrics, chosen.extractors
    wanted = tuple(extractors) if extractors else data.extractors
    made = {
        name: make_extractor(name, data, cache, weights, download, device=device, tell=tell)
        for name in wanted
    }
    exact = exact_mixture(data)
    reference_hash = data.reference.hash
    plan: list[Planned] = []
    refused: list[str] = []
    for name in metrics or sorted(name for name, metric in METRICS.items() if metric.default):
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        metric = METRICS[name]()
        for extractor in made.values() if metric.uses_extractor else (None,):
            if chosen is not None and not chosen.has(name, extractor.name if extractor else ""):
                continue
            reason = metric.supports(domain=domain, extractor=extractor, exact=exact)
            if reason is None:
                plan.append(_planned(metric, extractor, reference_hash))
            else:
                refused.append(reason)
    if not plan:
        raise UserError(
            f"None of the metrics asked for fits {data.name!r}: {'; '.join(refused)}.", code=2
        )
    used = {p.extractor for p in plan if p.extractor}
    # Metrics of known densities name no extractor and look into the features of vectors.
    if any(p.metric.needs - {"pixels"} for p in plan if not p.extractor):
        used.add("identity")
    kept = {name: extractor for name, extractor in made.items() if name in used}
    real = _real_side(data, kept, plan, cache, exact, tell)
    reference = f"{data.name}/reference"
    return Evaluation(data, kept, tuple(plan), real, reference, reference_hash)


def _planned(metric: Metric, extractor: Extractor | None, reference_hash: str) -> Planned:
    name, hashed = ("", "") if extractor is None else (extractor.name, extractor.hash)
    signature = digest(
        {
            "metric": metric.name,
            "version": metric.version,
            "code": code_hash(type(metric)),
            "extractor": hashed,
            "reference": reference_hash,
        }
    )
    return Planned(metric, name, hashed, signature)


def exact_mixture(data: Dataset) -> ExactMixture | None:
    """The density of a data set in the form metrics take, or None where it is unknown."""
    mixture = data.spec.mixture
    if mixture is None:
        return None
    means = tuple(np.asarray(modes, dtype=np.float64) for modes in mixture.means)
    return ExactMixture(means, mixture.std)


def accumulate(
    accumulator: Accumulator, samples: Tensor, labels: Tensor, tell: Tell = lambda _: None
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
    tell: Tell,
) -> SampleSet:
    reference = data.reference

    def feed(accumulator: Accumulator) -> None:
        accumulate(accumulator, reference.samples, reference.labels, tell)

    return real_side(
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
    return Split(data.train.samples[:n], data.train.labels[:n])


def sampling_labels(
    indices: torch.Tensor, num_classes: int, classes: Sequence[int] | None = None
) -> Tensor:
    """Classes of sample indices: balanced over `classes` or all, a function of the index alone."""
    chosen = torch.arange(num_classes) if classes is None else torch.tensor(classes)
    return chosen[indices % len(chosen)]
