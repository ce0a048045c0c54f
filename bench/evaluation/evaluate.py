"""`bench evaluate`: sets of images, from any source, measured against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.decode import told_oddities
from bench.data.find import find_dataset
from bench.data.leftovers import told_left_out
from bench.evaluation.classes import match_classes
from bench.evaluation.compare import compute, feed_side, real_sets
from bench.evaluation.makers import Makers
from bench.evaluation.plan import Plan, plan_measurements
from bench.evaluation.reference import Reference, check_statistics
from bench.evaluation.result import Report
from bench.evaluation.sides import (
    SampleSource,
    check_exists,
    dataset_source,
    file_source,
    is_vectors,
    names_dataset,
)
from bench.evaluation.statistics_files import (
    Statistics,
    is_statistics,
    read_statistics,
    split_section,
)
from bench.experiment.formatting import kid_below_zero
from bench.experiment.protocols import LITE, PROTOCOLS, Protocol, unknown_metric
from bench.experiment.provenance import now, provenance
from bench.system.errors import UserError, plain
from bench.system.files import sha256
from bench.system.progress import Reporter
from metrics import METRICS

FEW = 10_000
"""Below this many images the Frechet distance of Inception features is mostly bias."""


@dataclass(frozen=True)
class Request:
    """What to compare, and how; empty `extractors` or `metrics` means the default ones."""

    samples: str | SampleSource
    reference: str | SampleSource
    protocol: Protocol | None
    extractors: tuple[str, ...]
    metrics: tuple[str, ...]
    statistics: Statistics | None = None
    labels: Path | None = None
    max_samples: int | None = None
    orient: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def limit(self) -> int | None:
        """The most samples to take."""
        limits = (self.max_samples, self.protocol.samples if self.protocol else None)
        return min((n for n in limits if n is not None), default=None)


def make_request(
    samples: str | SampleSource,
    reference: str | SampleSource,
    protocol: Protocol | None,
    extractors: Sequence[str],
    metrics: Sequence[str],
    *,
    labels: Path | None = None,
    max_samples: int | None = None,
    orient: bool = True,
) -> Request:
    """The checked request of the options; UserError if they are wrong. No image is read yet.

    Extractors and metrics are by default those of the reference, if its data set or statistics
    file names some, otherwise those of the protocol `offline`.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise unknown_metric(metric, METRICS)
    named = dict.fromkeys(given for given in (samples, reference) if isinstance(given, str))
    warnings = tuple(filter(None, map(check_exists, named)))
    if labels is not None and names_dataset(samples):
        raise UserError(f"--labels is for files, and {samples} has classes.", code=2)
    statistics: Statistics | None = None
    names: tuple[str, ...] = tuple(extractors)
    if names_dataset(reference):
        names = names or find_dataset(reference.partition(":")[0]).extractors
    elif isinstance(reference, str):
        path, section = split_section(reference)
        if section or is_statistics(path):
            statistics = read_statistics(path, section)
            recorded = statistics.card.extractor if statistics.card else statistics.extractor
            names = names or ((recorded,) if recorded else ())
    if protocol is None and not names:
        if _are_vectors(samples):
            names = ("identity",)
        elif metrics:
            names = (LITE,)
        else:
            protocol = PROTOCOLS["offline"]
    if protocol is not None:
        names, metrics = protocol.extractors, protocol.metrics
    return Request(
        samples, reference, protocol, names, tuple(metrics), statistics, labels, max_samples,
        orient, warnings,
    )  # fmt: skip


def _are_vectors(samples: str | SampleSource) -> bool:
    if isinstance(samples, SampleSource):
        return not samples.is_image
    return not names_dataset(samples) and is_vectors(Path(samples))


def evaluate(
    reporter: Reporter, cache: Path, request: Request, makers: Makers
) -> tuple[Report, Reference, SampleSource]:
    """The report of a request, and the two sides compared."""
    chosen = [METRICS[name] for name in request.metrics if name in METRICS]
    of_pixels = chosen and all(
        not metric.uses_extractor and metric.needs <= {"pixels"} for metric in chosen
    )
    names = () if of_pixels else request.extractors
    made = makers.networks(names)
    reference, fake = read_sides(reporter, request)
    data = reference.side.data if reference.side is not None else None
    made |= makers.of_data(names, data, fake.shape)
    warnings = [*request.warnings, *check_statistics(reference, made)]
    matched = match_classes(fake, reference.side, reference.name)
    plan = plan_measurements(
        request.metrics, made.values(), reference, image=fake.is_image, n=fake.n,
        protocol=request.protocol, unmatched=matched.reason,
    )  # fmt: skip
    if matched.refused and any(lacking.reason == matched.reason for lacking in plan.unmeasured):
        raise UserError(f"{matched.reason}.", code=2)
    if matched.labels is not None and any(m.metric.of_classes for m in plan.measurements):
        fake = fake.relabelled(matched.labels)
    warnings += _cautions(plan, fake, reference, request.protocol)
    for line in warnings:
        reporter.warn(line)
    with reporter.counting(f"features of {reference.name}") as count:
        plan, real = real_sets(plan, reference, cache, count)
    with reporter.counting(f"features of {fake.name}") as count:
        accumulator = plan.accumulator()
        feed_side(accumulator, fake, count)
    protocol = request.protocol
    rows, missing = compute(
        plan, real, accumulator.finish(), fake=fake, protocol=protocol.name if protocol else ""
    )
    for row in rows:
        if row.metric == "kid" and (line := kid_below_zero(row.value, row.se)):
            warnings.append(line)
            reporter.warn(line)
    report = Report(
        rows=tuple(rows), not_measured=tuple(missing), warnings=tuple(warnings),
        notes=protocol.notes if protocol else (), created=now(), provenance=provenance(),
    )  # fmt: skip
    return report, reference, fake


def read_sides(reporter: Reporter, request: Request) -> tuple[Reference, SampleSource]:
    """Both sides. Each is read once, so that damage is found before anything slow."""
    found, side = request.statistics, None
    most = request.protocol.reference_most if request.protocol else None
    if isinstance(request.reference, SampleSource):
        side = request.reference
    elif names_dataset(request.reference):
        side = dataset_source(request.reference, most)
    elif found is None or found.images:
        with reporter.counting(f"reading {request.reference}") as count:
            side = file_source(Path(request.reference), most, orient=request.orient, count=count)
    if isinstance(request.samples, SampleSource):
        fake = request.samples
    elif names_dataset(request.samples):
        fake = dataset_source(request.samples, request.limit)
    else:
        colour = side is not None and side.is_image and side.shape[0] == 3
        with reporter.counting(f"reading {request.samples}") as count:
            fake = file_source(
                Path(request.samples), request.limit, labels=request.labels,
                channels=3 if colour else None, orient=request.orient, count=count,
            )  # fmt: skip
    name, content = (side.name, side.hash) if side else (plain(str(request.reference)), "")
    return Reference(name, sha256(found.path) if found else content, side, found), fake


def _cautions(
    plan: Plan, fake: SampleSource, reference: Reference, protocol: Protocol | None
) -> list[str]:
    """One sentence per warning; UserError if the two sides cannot be compared at all."""
    side = reference.side
    found = [] if side is None else _sizes(fake, side)
    for each in (fake, side):
        if each is not None and each.left_out:
            found.append(told_left_out(each.left_out, f"{each.name}: left out"))
        if each is not None:
            found += [f"Images of {each.name}: {line}." for line in told_oddities(each.oddities)]
    found += [_copies(each) for each in (fake, side) if each is not None and each.copies]
    for p in plan.measurements:
        if not p.metric.about.plug_in or not p.extractor:
            continue
        dim = plan.made[p.extractor].dim
        if fake.n <= dim:
            found.append(
                f"{fake.n:,} samples do not exceed the {dim:,} dimensions of {p.extractor}, so "
                f"{p.metric.name} is mostly bias, and fd_corrected does not remove it here: "
                "compare it only at this n, or use kid."
            )
        elif fake.n < FEW and p.extractor.startswith("inception"):
            found.append(
                f"{p.metric.name} of {fake.n:,} samples is well above that of {FEW:,} or 50,000: "
                "compare it only at this n, or use fd_corrected or kid."
            )
    if protocol is None:
        return found
    real = side.n if side is not None else reference.statistics.n if reference.statistics else 0
    for what, n, wanted in (
        ("generated", fake.n, protocol.samples),
        ("real", real, protocol.reference),
    ):
        if n and wanted is not None and n != wanted:
            found.append(f"{protocol.name} uses {wanted:,} {what} images; here are {n:,}.")
    return found


def _sizes(fake: SampleSource, real: SampleSource) -> list[str]:
    if fake.is_image != real.is_image or (not fake.is_image and fake.shape != real.shape):
        kinds = [f"{'images' if s.is_image else 'vectors'} {s.shape}" for s in (fake, real)]
        raise UserError(
            f"{fake.name} holds {kinds[0]} and {real.name} {kinds[1]}: they cannot be compared.",
            code=2,
        )
    found = []
    if fake.shape[1:] != real.shape[1:]:
        found.append(
            f"samples have {_pixels(fake)} and the reference {_pixels(real)}: each is resized "
            "separately, which changes the distance."
        )
    if fake.shape[0] != real.shape[0] and fake.is_image:
        found.append("one side is grey and the other in colour.")
    return found


def _copies(side: SampleSource) -> str:
    if side.copies == side.n - 1:
        return f"all {side.n:,} samples of {side.name} are equal: metrics of them mean nothing."
    return f"{side.copies:,} of the {side.n:,} samples of {side.name} are copies of others in it."


def _pixels(side: SampleSource) -> str:
    return f"{side.shape[2]} x {side.shape[1]} pixels"
