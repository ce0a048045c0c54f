"""The commands that take in files of others: import and data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    DEFAULT_RESULTS,
)

if TYPE_CHECKING:
    pass

from bench.cli.options import DryRunOption, ExperimentOption, PluginOption, ResultsOption, begin


def import_command(
    file: Annotated[Path, typer.Argument(help="Official .pkl, or .pt or .safetensors weights.")],
    name: Annotated[str, typer.Option("--as", help="Name of the run's folder.")],
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Method; by default by the file's class.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Data set; by default by its size.")
    ] = None,
    null_label: Annotated[
        bool | None,
        typer.Option(
            "--null-label/--no-null-label",
            help="Whether an edm network was trained with labels dropped; by default by the file.",
        ),
    ] = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Make a run of a checkpoint of another program, without running anything in it."""
    from bench.cli.importing import import_file

    console, place = begin(plugin, results, experiment)
    import_file(
        console,
        place,
        file,
        name,
        method=method,
        dataset=dataset,
        null_label=null_label,
        dry_run=dry_run,
    )


data_app = typer.Typer(help="Prepare data sets from archives and folders.", no_args_is_help=True)

DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        help="Folder of all prepared sets; by default $GUIDANCE_BENCH_DATA or a cache folder.",
    ),
]


@data_app.command("prepare")
def data_prepare_command(
    source: Annotated[Path, typer.Argument(help="Archive or folder of images or batches.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Its name; by default the source's.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Resize images to size x size.")
    ] = None,
    crop: Annotated[str, typer.Option(help="With --size: center or none.")] = "center",
    resize: Annotated[str, typer.Option(help="With --size: box or bicubic.")] = "box",
    data_root: DataRootOption = None,
) -> None:
    """Prepare a data set, once; training then starts at once and reads only what it needs."""
    from bench.cli.data import prepare_command

    console, _ = begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    prepare_command(
        console, source, name=dataset, size=size, crop=crop, resize=resize, root=data_root
    )


@data_app.command("list")
def data_list_command(data_root: DataRootOption = None) -> None:
    """List the prepared data sets and where they came from."""
    from bench.cli.data import list_command as list_prepared

    console, _ = begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    list_prepared(console, data_root)


@data_app.command("verify")
def data_verify_command(
    dataset: Annotated[str, typer.Argument(help="Name of a prepared data set.")],
    data_root: DataRootOption = None,
) -> None:
    """Read a prepared data set whole and compare it with its recorded hashes."""
    from bench.cli.data import verify_command

    console, _ = begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    verify_command(console, dataset, data_root)
