"""The evaluation of the cells of a sweep: extractors, plan and real set of a data set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.evaluation.compare import RealSets, real_sets
from bench.evaluation.makers import Makers
from bench.evaluation.passes import pass_for
from bench.evaluation.plan import Measured, Measurement, Plan, measure, plan_measurements
from bench.evaluation.reference import Reference, check_statistics
from bench.evaluation.sides import file_source, split_source
from bench.evaluation.statistics_files import read_statistics
from bench.experiment.protocols import find_protocol
from bench.system.files import sha256
from bench.system.progress import Count, Say, Tick
from metrics import Accumulator
from metrics.accuracy import ClassAccuracy
from metrics.base import Extractor, SampleSet
from metrics.displacement import TwinMetric, with_twins
from metrics.extractors.training import Rows
from metrics.tilt import at_guidance

BATCH = 256
SAY_EVERY = 15.0


class TakesLong(Exception):
    """Making the extractors or the real set would take long."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that turns the samples of a cell into values.

    `unmeasured` gives the reasons why requested or default metrics are not in the plan.
    """

    data: Dataset
    extractors: Mapping[str, Extractor]
    plan: tuple[Measurement, ...]
    real: SampleSet
    reference: str
    reference_hash: str
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    sets: RealSets | None = None
    """The real sets of metrics, if some get only the moments of a statistics file."""

    def accumulator(self) -> Accumulator:
        """A fresh pass over one generated set."""
        return pass_for(self.extractors, (m.metric for m in self.plan))

    @property
    def of_twins(self) -> bool:
        """Whether a planned metric needs the samples of the same noise at g = 1."""
        return any(isinstance(m.metric, TwinMetric) for m in self.plan)

    @property
    def of_sampling(self) -> bool:
        """Whether a planned metric is measured while sampling."""
        return any(m.metric.of_sampling for m in self.plan)

    def unsampled(self) -> Evaluation:
        """The same without metrics of sampling, for real samples."""
        plan = tuple(m for m in self.plan if not m.metric.of_sampling)
        return replace(self, plan=plan)

    def measure(
        self, fake: SampleSet, guidance: float, twins: SampleSet | None = None, **metered: Any
    ) -> Measured:
        """Values of all planned metrics; `guidance` is the scale of `fake`, 1 for real samples.

        `twins` are the samples of the same noise at g = 1, if `of_twins`. `metered` are other
        fields of `GuidedSamples`: the strength of guidance.
        """
        known = at_guidance(fake, guidance, **metered)
        if twins is not None:
            known = with_twins(known, twins)
        if self.sets is None:
            return measure(self.plan, self.real, known, self.unmeasured)
        found = [measure([m], self.sets.of(m.metric), known, {}) for m in self.plan]
        values = tuple(value for each in found for value in each.values)
        problems = tuple(problem for each in found for problem in each.problems)
        reasons = {key: why for each in found for key, why in each.unmeasured.items()}
        return Measured(values, problems, {**self.unmeasured, **reasons})


def prepare(
    data: Dataset,
    cache: Path,
    *,
    metrics: Sequence[str] | None = None,
    also: Sequence[str] = (),
    extractors: Sequence[str] | None = None,
    protocol: str | None = None,
    weights: Path | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    say: Say = lambda _: None,
    patient: bool = True,
) -> Evaluation:
    """Extractors, plan and real set for a data set.

    By default all default metrics that fit the data, on the extractors of the data set; with a
    `protocol`, those that it names. `also` are further metrics. The real set is cached, by its
    content and all code that it passes through. Slow work reports to `say`, or raises TakesLong
    if not `patient`.
    """
    meanwhile = say if patient else _give_up
    chosen = find_protocol(protocol) if protocol else None
    if chosen is not None:
        metrics, extractors = chosen.metrics, chosen.extractors
    wanted = tuple(extractors) if extractors else data.extractors
    makers = Makers(cache, weights, download, device, meanwhile)
    makers.check(wanted)  # all of them, before a classifier trains for minutes
    made = [makers.make(name, data.images) for name in wanted]
    reference = _reference(data)
    for line in check_statistics(reference, {extractor.name: extractor for extractor in made}):
        say(line)
    plan = plan_measurements(
        metrics or (),
        made,
        reference,
        image=data.spec.is_image,
        protocol=chosen,
        also=also,
        unmatched="" if reference.statistics is None else f"{reference.name} has no classes",
        sampled=True,
    )
    unmeasured = _unfit(plan)
    known = len(plan.unmeasured)
    plan, sets = real_sets(plan, reference, cache, _now_and_then(meanwhile))
    unmeasured |= {lacking.key: lacking.reason for lacking in plan.unmeasured[known:]}
    for reason in unmeasured.values():
        say(f"Not measured: {reason}.")
    return Evaluation(
        data, plan.extractors(), plan.measurements, sets.whole if sets.whole.n else sets.moments,
        reference.name, reference.hash, unmeasured, None if reference.statistics is None else sets,
    )  # fmt: skip


def _reference(data: Dataset) -> Reference:
    name, images = f"{data.name}/{data.reference_split}", data.images
    if images.statistics is None:
        return Reference(name, images.reference.hash, split_source(name, images.reference, images))
    found = read_statistics(images.statistics)
    side = file_source(found.path) if found.images else None
    return Reference(name, sha256(found.path), side, found)


def _unfit(plan: Plan) -> dict[str, str]:
    """The reasons why metrics are measured on no extractor, by metric."""
    measured = {m.metric.name for m in plan.measurements}
    reasons: dict[str, dict[str, None]] = {}
    for lacking in plan.unmeasured:
        if lacking.metric not in measured:
            reasons.setdefault(lacking.metric, {})[lacking.reason] = None
    return {name: "; ".join(found) for name, found in reasons.items()}


def _give_up(sentence: str) -> None:
    raise TakesLong(sentence)


def nothing_measured(data: Dataset) -> Evaluation:
    """An evaluation that finds every cell undone, for planning without preparation."""
    never = Measurement(ClassAccuracy(), "", "", "nothing has this signature")
    real = SampleSet(n=len(data.reference), labels=data.reference.labels.numpy())
    reference = _reference(data)
    return Evaluation(data, {}, (never,), real, reference.name, reference.hash)


def accumulate(
    accumulator: Accumulator, samples: Rows, labels: Tensor, tick: Tick = lambda _: None
) -> None:
    """Feed a whole set in batches; `tick` counts the samples."""
    for start in range(0, len(labels), BATCH):
        part = labels[start : start + BATCH]
        accumulator.update(samples[start : start + BATCH], part)
        tick(len(part))


def _now_and_then(say: Say) -> Count:
    """A counter of real samples that reports to `say` every SAY_EVERY seconds."""
    last = time.monotonic()

    def counted(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY:
            last = time.monotonic()
            say(f"Features of real samples: {done:,} of {total:,}.")

    return counted


def floor_split(data: Dataset, n: int) -> Split | None:
    """The first n training samples, or None if there are fewer."""
    train = data.images.train
    return train.part(0, n) if n <= len(train) else None
