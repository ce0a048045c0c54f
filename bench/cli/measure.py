"""The commands that measure files of others: evaluate and stats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import (
    DeviceOption,
    DownloadOption,
    OfflineOption,
    PluginOption,
    ResultsOption,
    WeightsOption,
    begin,
)
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS


def evaluate_command(
    context: typer.Context,
    samples: Annotated[
        str,
        typer.Argument(
            help="Folder, zip, tar or npz of images, or a data set's name, as in digits or "
            "digits:train."
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
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Metric; repeatable.")
    ] = None,
    weights: WeightsOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Classes of the samples: .npy, or text with one number a line."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write .json (everything) or .csv.")
    ] = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    max_samples: Annotated[
        int | None, typer.Option(min=2, help="At most so many samples, drawn with a fixed seed.")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginOption = None,
) -> None:
    """Measure the images of any model against a reference; no method and no run is involved."""
    from bench.cli.evaluate import evaluate_all
    from bench.system.offline import network

    console, place = begin(plugin, results, DEFAULT_EXPERIMENT, out)
    context.with_resource(network(offline=offline, download=download))
    evaluate_all(
        console,
        place,
        samples,
        reference=reference,
        protocol=protocol,
        extractors=extractor or (),
        metrics=metric or (),
        weights=weights,
        labels=labels,
        out=out,
        download=download,
        device=device,
        max_samples=max_samples,
    )


stats_app = typer.Typer(
    help="Make and look at statistics files of EDM, ADM, clean-fid and others.",
    no_args_is_help=True,
)


@stats_app.command("make")
def stats_make_command(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="Folder, zip, tar or npz of images, or a data set's name.")
    ],
    extractor: Annotated[str, typer.Option("--extractor", "-x", help="Features.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file, or a folder, where it gets its name.")
    ],
    format_: Annotated[
        str, typer.Option("--format", help="edm, adm, clean-fid or torch-fidelity.")
    ] = "edm",
    weights: WeightsOption = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginOption = None,
) -> None:
    """Write the mean and covariance of features, as others' programs read them."""
    from bench.cli.stats import make_all
    from bench.system.offline import network

    console, place = begin(plugin, results, DEFAULT_EXPERIMENT, out)
    context.with_resource(network(offline=offline, download=download))
    make_all(
        console,
        place,
        source,
        extractor=extractor,
        out=out,
        kind=format_,
        weights=weights,
        download=download,
        device=device,
    )


@stats_app.command("show")
def stats_show_command(
    file: Annotated[str, typer.Argument(help="Statistics file; FILE.pkl#fid of EDM2.")],
) -> None:
    """Check a statistics file and say what is in it."""
    from bench.cli.stats import show_all

    console, _ = begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    show_all(console, file)
