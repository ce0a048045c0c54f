"""Sets of images, whoever made them, against a reference: what `bench evaluate` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.find import find_dataset
from bench.evaluation.cautions import cautions
from bench.evaluation.compare import compute, feed_side, real_sets
from bench.evaluation.makers import Makers
from bench.evaluation.plan import plan_measurements
from bench.evaluation.reference import Reference, check_statistics, make_reference
from bench.evaluation.result import Report
from bench.evaluation.sides import (
    SampleSource,
    check_exists,
    dataset_source,
    file_source,
    is_vectors,
    names_dataset,
)
from bench.evaluation.statistics.base import Statistics
from bench.evaluation.statistics.read import is_statistics, read_statistics, split_section
from bench.experiment.protocols import LITE, PROTOCOLS, Protocol, find_protocol
from bench.experiment.provenance import now, provenance
from bench.system.errors import UserError, unknown
from bench.system.progress import Reporter
from metrics import METRICS


@dataclass(frozen=True)
class Request:
    """What is to be compared, and how; empty `extractors` and `metrics` are the default ones."""

    samples: str
    reference: str
    protocol: Protocol | None
    extractors: tuple[str, ...]
    metrics: tuple[str, ...]
    statistics: Statistics | None = None
    labels: Path | None = None
    max_samples: int | None = None

    @property
    def limit(self) -> int | None:
        """The most samples to take."""
        own = self.protocol.samples if self.protocol else None
        return min((n for n in (self.max_samples, own) if n is not None), default=None)


def make_request(
    samples: str,
    reference: str,
    protocol: str | None,
    extractors: Sequence[str],
    metrics: Sequence[str],
    *,
    labels: Path | None,
    max_samples: int | None,
) -> Request:
    """What the options mean; a UserError if they mean nothing. No image is read yet.

    Without protocol, extractor or metric these are those of the data set or statistics file
    compared with, where that says so, and the protocol `offline` elsewhere.
    """
    if protocol is not None and (extractors or metrics):
        raise UserError(
            "--protocol sets extractors and metrics: drop --extractor and --metric, or --protocol.",
            code=2,
        )
    chosen = find_protocol(protocol) if protocol is not None else None
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
    for text in (samples, reference):
        check_exists(text)
    if labels is not None and names_dataset(samples):
        raise UserError(f"--labels is for files, and {samples} has classes.", code=2)
    statistics: Statistics | None = None
    names: tuple[str, ...] = tuple(extractors)
    if names_dataset(reference):
        names = names or find_dataset(reference.partition(":")[0]).extractors
    else:
        path, section = split_section(reference)
        if section or is_statistics(path):
            statistics = read_statistics(path, section)
            recorded = statistics.card.extractor if statistics.card else statistics.extractor
            names = names or ((recorded,) if recorded else ())
    if chosen is None and not names:
        if not names_dataset(samples) and is_vectors(Path(samples)):
            names = ("identity",)
        elif metrics:
            names = (LITE,)
        else:
            chosen = PROTOCOLS["offline"]
    if chosen is not None:
        names, metrics = chosen.extractors, chosen.metrics
    return Request(
        samples, reference, chosen, names, tuple(metrics), statistics, labels, max_samples
    )


def evaluate(
    reporter: Reporter, cache: Path, request: Request, makers: Makers
) -> tuple[Report, Reference, SampleSource]:
    """Measure what was asked for: everything found, and the two sides that were compared."""
    made = makers.networks(request.extractors)
    reference, fake = read_sides(reporter, request)
    data = reference.side.data if reference.side is not None else None
    made |= makers.of_data(request.extractors, data, fake.shape)
    warnings = check_statistics(reference, made)
    plan = plan_measurements(
        request.metrics, made.values(), reference,
        image=fake.is_image, n=fake.n, protocol=request.protocol,
    )  # fmt: skip
    warnings += cautions(plan, fake, reference, request.protocol)
    for line in warnings:
        reporter.warn(line)
    with reporter.counting(f"features of {reference.name}") as count:
        plan, real = real_sets(plan, reference, cache, count)
    with reporter.counting(f"features of {fake.name}") as count:
        accumulator = plan.accumulator()
        feed_side(accumulator, fake, count)
    protocol = request.protocol
    name = protocol.name if protocol else ""
    rows, missing = compute(plan, real, accumulator.finish(), fake=fake, protocol=name)
    report = Report(
        rows=tuple(rows),
        not_measured=tuple(missing),
        warnings=tuple(warnings),
        notes=protocol.notes if protocol else (),
        created=now(),
        provenance=provenance(),
    )
    return report, reference, fake


def read_sides(reporter: Reporter, request: Request) -> tuple[Reference, SampleSource]:
    """Both sides, read through once, so that damage is found before anything slow."""
    found, side = request.statistics, None
    most = request.protocol.reference_most if request.protocol else None
    if names_dataset(request.reference):
        side = dataset_source(request.reference, most)
    elif found is None or found.images:
        with reporter.counting(f"reading {request.reference}") as count:
            side = file_source(Path(request.reference), most, tell=count)
    if names_dataset(request.samples):
        fake = dataset_source(request.samples, request.limit)
    else:
        colour = side is not None and side.is_image and side.shape[0] == 3
        with reporter.counting(f"reading {request.samples}") as count:
            fake = file_source(
                Path(request.samples),
                request.limit,
                labels=request.labels,
                channels=3 if colour else None,
                tell=count,
            )
    name = side.name if side is not None else request.reference
    return make_reference(name, side, found), fake
