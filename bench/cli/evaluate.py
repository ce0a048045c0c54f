"""`bench evaluate`: measures the images of any model against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_RESULTS, SAMPLES_MOST
from bench.system.errors import UserError

if TYPE_CHECKING:
    from bench.evaluation.reference import Reference
    from bench.evaluation.result import Report
    from bench.evaluation.sides import SampleSource
    from bench.experiment.protocols import Protocol
    from bench.system.progress import Reporter


def evaluate_command(
    samples: Annotated[
        str,
        typer.Argument(
            help="Folder, zip, tar or npz of images, or a data set: digits or digits:train."
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", "-r", help="The same, or a statistics file; FILE.pkl#fid of EDM2."
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", "-p", help="Such as adm or offline: bench list protocols."),
    ] = None,
    extractor: Annotated[
        list[str] | None, typer.Option("--extractor", "-x", help="Features; repeatable.")
    ] = None,
    metric: options.Metrics = None,
    weights: options.Weights = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Classes of the samples: .npy, or text with one number per line."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write .json (everything) or .csv.")
    ] = None,
    download: options.Download = False,
    offline: options.Offline = False,
    device: options.Device = "auto",
    max_samples: Annotated[
        int | None,
        typer.Option(
            min=2, max=SAMPLES_MOST, help="Limit on the samples, drawn with a fixed seed."
        ),
    ] = None,
    orient: options.Orient = True,
    results: options.Results = DEFAULT_RESULTS,
    plugin: options.Plugins = None,
) -> None:
    """Measure the images of any model against a reference; needs no method and no run."""
    from bench.evaluation.evaluate import evaluate, make_request
    from bench.evaluation.makers import Makers
    from bench.evaluation.result import check_out, write_report
    from bench.system.devices import resolve_device

    reporter, found = options.begin(plugin, results, out=out, offline=offline, download=download)
    if out is not None:
        check_out(out)
    request = make_request(
        samples, reference, options.chosen_protocol(protocol, metric, extractor),
        extractor or (), metric or (), labels=labels, max_samples=max_samples, orient=orient,
    )  # fmt: skip
    makers = Makers(found.cache, weights, download, resolve_device(device), reporter.say)
    report, against, fake = evaluate(reporter, found.cache, request, makers)
    if out is not None:  # first: a failure to print loses nothing
        write_report(out, report)
    _show(reporter, report, fake, against, request.protocol)
    if out is not None:
        reporter.say(f"Written to {out}.")
    failed = dict.fromkeys(f.reason for f in report.not_measured if f.failed)
    if failed:
        raise UserError(f"Not everything could be measured: {'; '.join(failed)}.")


def _show(
    reporter: Reporter, report: Report, fake: SampleSource, reference: Reference,
    protocol: Protocol | None,
) -> None:  # fmt: skip
    from bench.evaluation.result import table

    reporter.say(f"Samples: {fake.name}, {fake.n:,} (SHA-256 {fake.hash[:12]}).")
    reporter.say(f"Reference: {reference.name} (SHA-256 {reference.hash[:12]}).")
    if protocol is not None:
        reporter.say(f"Protocol: {protocol.name}, {protocol.described}.")
    used = {row.extractor: row.extractor_hash for row in report.rows if row.extractor}
    for name, hashed in used.items():
        reporter.say(f"Features: {name} (hash {hashed[:12]}).")
    reporter.show(table(report))
    for line in report.notes:
        reporter.say(f"Note: {line}.")
    for reason in dict.fromkeys(missing.reason for missing in report.not_measured):
        names = [
            f"{missing.metric} on {missing.extractor}" if missing.extractor else missing.metric
            for missing in report.not_measured
            if missing.reason == reason
        ]
        reporter.say(f"Not measured: {', '.join(names)}: {reason}.")
