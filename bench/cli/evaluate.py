"""`bench evaluate`, once its options are parsed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.data.find import find_dataset
from bench.evaluation.cautions import cautions
from bench.evaluation.compare import (
    Reference,
    Tell,
    check_statistics,
    compute,
    fake_set,
    make_plan,
    make_reference,
    real_sets,
)
from bench.evaluation.makers import Makers
from bench.evaluation.result import Report, check_out, table, write_report
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
from bench.experiment.place import Experiment
from bench.experiment.protocols import LITE, PROTOCOLS, Protocol, find_protocol
from bench.experiment.provenance import now, provenance
from bench.system.devices import resolve_device
from bench.system.errors import UserError, unknown
from bench.system.progress import Bar, say
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


def evaluate_all(
    console: Console,
    place: Experiment,
    samples: str,
    *,
    reference: str,
    protocol: str | None = None,
    extractors: Sequence[str] = (),
    metrics: Sequence[str] = (),
    weights: Path | None = None,
    labels: Path | None = None,
    out: Path | None = None,
    download: bool = False,
    device: str = "auto",
    max_samples: int | None = None,
) -> None:
    """`bench evaluate`."""
    if out is not None:
        check_out(out)
    request = make_request(
        samples, reference, protocol, extractors, metrics, labels=labels, max_samples=max_samples
    )
    makers = Makers(place.cache, weights, download, resolve_device(device), partial(say, console))
    report = evaluate(console, place, request, makers)
    if out is not None:
        write_report(out, report)
        say(console, f"Written to {out}.")
    failed = dict.fromkeys(f.reason for f in report.not_measured if f.failed)
    if failed:
        raise UserError(f"Not everything could be measured: {'; '.join(failed)}.")


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
            "--protocol says which extractors and metrics: leave --extractor and --metric away, or "
            "--protocol.",
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


def evaluate(console: Console, place: Experiment, request: Request, makers: Makers) -> Report:
    """Measure and show; returns everything that was found."""
    made = makers.networks(request.extractors)
    reference, fake = read_sides(console, request)
    data = reference.side.data if reference.side is not None else None
    made |= makers.of_data(request.extractors, data, fake.shape)
    warnings = check_statistics(reference, made)
    plan = make_plan(
        request.metrics or _default_metrics(), made, reference, fake, request.protocol,
        asked=bool(request.metrics),
    )  # fmt: skip
    warnings += cautions(plan, fake, reference, request.protocol)
    for line in warnings:
        Console(stderr=True).print(
            f"Warning: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    with progress(console, f"features of {reference.name}") as tell:
        real = real_sets(plan, reference, place.cache, tell)
    with progress(console, f"features of {fake.name}") as tell:
        seen = fake_set(plan, fake, tell)
    name = request.protocol.name if request.protocol else ""
    rows = compute(plan, real, seen, fake=fake, reference=reference, protocol=name)
    report = Report(
        rows=tuple(rows),
        not_measured=tuple(plan.unmeasured),
        warnings=tuple(warnings),
        notes=request.protocol.notes if request.protocol else (),
        created=now(),
        provenance=provenance(),
    )
    _show(console, report, fake, reference, request.protocol)
    return report


def read_sides(console: Console, request: Request) -> tuple[Reference, SampleSource]:
    """Both sides, read through once, so that damage is found before anything slow."""
    found, side = request.statistics, None
    most = request.protocol.reference_most if request.protocol else None
    if names_dataset(request.reference):
        side = dataset_source(request.reference, most)
    elif found is None or found.images:
        with progress(console, f"reading {request.reference}") as tell:
            side = file_source(Path(request.reference), most, tell=tell)
    if names_dataset(request.samples):
        fake = dataset_source(request.samples, request.limit)
    else:
        colour = side is not None and side.is_image and side.shape[0] == 3
        with progress(console, f"reading {request.samples}") as tell:
            fake = file_source(
                Path(request.samples),
                request.limit,
                labels=request.labels,
                channels=3 if colour else None,
                tell=tell,
            )
    name = side.name if side is not None else request.reference
    return make_reference(name, side, found), fake


def _default_metrics() -> list[str]:
    return sorted(name for name, metric in METRICS.items() if metric.default)


@contextmanager
def progress(console: Console, title: str) -> Iterator[Tell]:
    """A bar that is told how many of how many samples are done."""
    bar: Bar | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # the total is known only now
            bar = Bar(title, total, 0, console)
            bar.__enter__()
        bar.update(done)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.__exit__(None, None, None)


def _show(
    console: Console,
    report: Report,
    fake: SampleSource,
    reference: Reference,
    protocol: Protocol | None,
) -> None:
    say(console, f"Samples: {fake.name}, {fake.n:,} (SHA-256 {fake.hash[:12]}).")
    say(console, f"Reference: {reference.name} (SHA-256 {reference.hash[:12]}).")
    if protocol is not None:
        say(console, f"Protocol: {protocol.name}, {protocol.summary}.")
    used = {row.extractor: row.extractor_hash for row in report.rows if row.extractor}
    for name, hashed in used.items():
        say(console, f"Features: {name} (hash {hashed[:12]}).")
    console.print(table(report))
    for line in report.notes:
        say(console, f"Note: {line}.")
    for reason in dict.fromkeys(missing.reason for missing in report.not_measured):
        names = [
            f"{missing.metric} on {missing.extractor}" if missing.extractor else missing.metric
            for missing in report.not_measured
            if missing.reason == reason
        ]
        say(console, f"Not measured: {', '.join(names)}: {reason}.")
