"""Everything that turns the samples of a cell into values: extractors, plan and real set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.evaluation.compare import real_sets
from bench.evaluation.makers import Makers
from bench.evaluation.plan import Measured, Measurement, Plan, measure, plan_measurements
from bench.evaluation.reference import Reference
from bench.evaluation.sides import Batches, SampleSource
from bench.experiment.protocols import find_protocol
from bench.system.progress import Count, Say
from metrics import Accumulator, plan_needs
from metrics.accuracy import ClassAccuracy
from metrics.base import Extractor, SampleSet
from metrics.rows import Rows
from metrics.tilt import at_guidance

BATCH = 256
TELL_EVERY = 15.0


class TakesLong(Exception):
    """The extractors or the real set are not there yet, and making them takes long."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that turns the samples of a cell into values.

    `unmeasured` says why metrics that were asked for, or are computed by default, are not in the
    plan: the data or the real set lacks what they need.
    """

    data: Dataset
    extractors: dict[str, Extractor]
    plan: tuple[Measurement, ...]
    real: SampleSet
    reference: str
    reference_hash: str
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def accumulator(self) -> Accumulator:
        """A fresh pass over one generated set."""
        return Accumulator(self.extractors, plan_needs(m.metric for m in self.plan))

    def measure(self, fake: SampleSet, guidance: float) -> Measured:
        """Every planned metric whose minimum of samples is met, each with its error.

        `guidance` is the scale that the samples were asked for, 1 for real ones.
        """
        return measure(self.plan, self.real, at_guidance(fake, guidance), self.unmeasured)


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
    """Extractors, plan and real set for a data set.

    By default all metrics that fit the data and are marked so, on the data set's own extractors;
    with a `protocol`, those that it names.
    The real set is computed once and cached under a key made of the content and everything it
    passes through. Extractors run on `device`; `tell` gets a sentence before and during what takes
    long, which raises TakesLong instead where nobody is `patient`.
    """
    meanwhile = tell if patient else _give_up
    chosen = find_protocol(protocol) if protocol else None
    if chosen is not None:
        metrics, extractors = chosen.metrics, chosen.extractors
    wanted = tuple(extractors) if extractors else data.extractors
    makers = Makers(cache, weights, download, device, meanwhile)
    # All of them before the first, which may be a classifier that is trained for minutes.
    makers.check(wanted)
    made = [makers.make(name, data) for name in wanted]
    reference = _reference(data)
    plan = plan_measurements(
        metrics or (), made, reference, image=data.spec.is_image, protocol=chosen
    )
    unmeasured = _unfit(plan)
    known = len(plan.unmeasured)
    plan, real = real_sets(plan, reference, cache, _now_and_then(meanwhile))
    unmeasured |= {lacking.key: lacking.reason for lacking in plan.unmeasured[known:]}
    for reason in unmeasured.values():
        tell(f"Not measured: {reason}.")
    return Evaluation(
        data=data,
        extractors=plan.extractors(),
        plan=plan.measurements,
        real=real.whole,
        reference=reference.name,
        reference_hash=reference.hash,
        unmeasured=unmeasured,
    )


def _reference(data: Dataset) -> Reference:
    split, name = data.reference, f"{data.name}/{data.reference_split}"

    def batches() -> Batches:
        for start in range(0, len(split), BATCH):
            yield split.samples[start : start + BATCH], split.labels[start : start + BATCH]

    shape = tuple(split.samples.shape[1:])
    return Reference(
        name, split.hash, SampleSource(name, len(split), shape, split.hash, batches, data=data)
    )


def _unfit(plan: Plan) -> dict[str, str]:
    """Why metrics are measured on no extractor, by their names."""
    measured = {m.metric.name for m in plan.measurements}
    reasons: dict[str, dict[str, None]] = {}
    for lacking in plan.unmeasured:
        if lacking.metric not in measured:
            reasons.setdefault(lacking.metric, {})[lacking.reason] = None
    return {name: "; ".join(found) for name, found in reasons.items()}


def _give_up(sentence: str) -> None:
    raise TakesLong(sentence)


def nothing_measured(data: Dataset) -> Evaluation:
    """An evaluation by which no cell is done, for planning what has not been prepared."""
    never = Measurement(ClassAccuracy(), "", "", "nothing has this signature")
    real = SampleSet(n=len(data.reference), labels=data.reference.labels.numpy())
    reference = _reference(data)
    return Evaluation(data, {}, (never,), real, reference.name, reference.hash)


def accumulate(
    accumulator: Accumulator, samples: Rows, labels: Tensor, tell: Say = lambda _: None
) -> None:
    """Feed a whole set in batches; `tell` gets a sentence whenever it has taken long."""
    counted = _now_and_then(tell)
    for start in range(0, len(labels), BATCH):
        accumulator.update(samples[start : start + BATCH], labels[start : start + BATCH])
        counted(min(start + BATCH, len(labels)), len(labels))


def _now_and_then(tell: Say) -> Count:
    """A count of real samples for `tell`, which gets a sentence whenever it has taken long."""
    last = time.monotonic()

    def counted(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_EVERY:
            last = time.monotonic()
            tell(f"Features of real samples: {done:,} of {total:,}.")

    return counted


def floor_split(data: Dataset, n: int) -> Split | None:
    """The first n training samples, or None if there are not as many."""
    if n > len(data.train):
        return None
    return data.train.part(0, n)
