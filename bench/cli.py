"""The command line: parse, call one function, print. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UserError
from bench.experiment import (
    DEFAULT_DATASET,
    DEFAULT_EXPERIMENT,
    DEFAULT_GUIDANCE,
    DEFAULT_INVERSIONS,
    DEFAULT_PRECISION,
    DEFAULT_RESULTS,
    DEFAULT_SEEDS,
)

if TYPE_CHECKING:
    from rich.console import Console

    from bench.experiment import Experiment

app = typer.Typer(
    name="bench",
    help="Benchmark of guidance methods for diffusion and consistency models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
STOPPED = "Stopped. What was finished is kept; the same command goes on."

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of all experiments.")]
ExperimentOption = Annotated[
    str, typer.Option("--experiment", "-e", help="Folder of this experiment within --results.")
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with further methods, metrics or data sets."),
]
SuiteOption = Annotated[
    str | None, typer.Option("--suite", help="TOML file, or a shipped suite such as 'demo'.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("guidance-bench"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Benchmark of guidance methods for diffusion and consistency models."""


@app.command("train")
def train_command(
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Method; repeat for several.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", "-d", help=f"Data set; by default the preset's, or {DEFAULT_DATASET}."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Archive or folder of images to train on; prepared first if needed."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings by name; by default those of the data set.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initial weights and all draws.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the preset; repeatable.")
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Run, folder or .safetensors to start from, or 'none'.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Run, folder or .safetensors to distil; by default the edm run."),
    ] = None,
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    precision: Annotated[
        str, typer.Option(help="32-true, tf32 or bf16-mixed.")
    ] = DEFAULT_PRECISION,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks with torch.compile.")
    ] = False,
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train methods; run the same command again to go on after a stop."""
    from bench.commands import train_all

    console, place = _begin(plugin, results, experiment)
    train_all(
        console,
        place,
        methods=method,
        dataset_name=dataset,
        data=data,
        preset=preset,
        seed=seed,
        name=name,
        settings=setting or [],
        init_from=init_from,
        teacher=teacher,
        suite=suite,
        device=device,
        precision=precision,
        compiled=compiled,
        dry_run=dry_run,
    )


@app.command("sweep")
def sweep_command(
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales: 1..13, 1..13:2 or 1,1.5,2; 1 is off.")
    ] = DEFAULT_GUIDANCE,
    steps: Annotated[
        str | None, typer.Option(help="Sampling steps, a range; by default the preset's.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=2, help="Samples a cell.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Sampling seeds, a range.")] = DEFAULT_SEEDS,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Only these methods.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="Only these data sets.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Only these metrics; repeatable.")
    ] = None,
    extractor: Annotated[
        list[str] | None, typer.Option(help="Features for the metrics; repeatable.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File or folder of an extractor's weights.")
    ] = None,
    download: Annotated[bool, typer.Option(help="Allow an extractor to fetch weights.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")] = 256,
    null_checkpoint: Annotated[
        str | None,
        typer.Option(help="Run, folder or .safetensors: edm's unconditional branch."),
    ] = None,
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
    save_samples: Annotated[
        str | None,
        typer.Option(help="Also keep each cell's samples: png (folders), zip or npz."),
    ] = None,
    inversion: Annotated[
        bool, typer.Option("--inversion", help="Also invert, reconstruct and edit real images.")
    ] = False,
    inversion_samples: Annotated[
        int, typer.Option(min=2, help="Images to invert, balanced over the classes.")
    ] = DEFAULT_INVERSIONS,
    inversion_guidance: Annotated[
        str | None, typer.Option(help="Scales of edits, a range; by default those of --guidance.")
    ] = None,
) -> None:
    """Sample all trained runs over guidance scales and measure; computes only what is missing."""
    from bench.commands import sweep_all

    console, place = _begin(plugin, results, experiment)
    sweep_all(
        console,
        place,
        guidance=guidance,
        steps=steps,
        samples=samples,
        seeds=seeds,
        methods=method,
        datasets=dataset,
        metrics=metric,
        extractors=extractor,
        weights=weights,
        download=download,
        batch=batch,
        suite=suite,
        device=device,
        dry_run=dry_run,
        null_checkpoint=null_checkpoint,
        save_samples=save_samples,
        inversion=inversion,
        inversion_samples=inversion_samples,
        inversion_guidance=inversion_guidance,
    )


@app.command("import")
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
    from bench.importing.command import import_file

    console, place = _begin(plugin, results, experiment)
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


@app.command("sample")
def sample_command(
    run: Annotated[str | None, typer.Option(help="Run of the experiment, by its name.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Instead: the only run of a method.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Instead: the only run on a data set.")
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", "-g", help="Guidance scale; 1 is off.")
    ] = 1.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps; by default the preset's first.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sampling seed.")] = 0,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="How many.")] = 64,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="Only this class, by name or index; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder, .zip, .npz or .png (a grid); by default below the experiment.",
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="png, zip, npz or grid; by default from --out.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")] = 256,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
) -> None:
    """Write the samples of one run to files: exactly those that a sweep measures."""
    from bench.sampling import sample_all

    console, place = _begin(plugin, results, experiment)
    sample_all(
        console,
        place,
        run=run,
        method=method,
        dataset_name=dataset,
        guidance=guidance,
        steps=steps,
        seed=seed,
        n=samples,
        classes=class_ or [],
        out=out,
        kind=format_,
        batch=batch,
        device=device,
    )


@app.command("report")
def report_command(
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Render tables, figures and a page from the rows of an experiment."""
    from bench.commands import report_all

    console, place = _begin(None, results, experiment)
    report_all(console, place, suite=suite)


RunOption = Annotated[
    str | None, typer.Option("--run", help="Trained run; by default the only one that inverts.")
]
OneMethodOption = Annotated[
    str | None, typer.Option("--method", "-m", help="Method, to choose the run.")
]
OneDatasetOption = Annotated[
    str | None, typer.Option("--dataset", "-d", help="Data set, to choose the run.")
]
FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="PNG or JPEG files of the model's size; none: the reference split."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder of the results; by default the experiment's.")
]
ImagesOption = Annotated[
    int, typer.Option("--samples", "-n", min=1, help="Images of the reference split.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images at a time; changes no result.")]


@app.command("invert")
def invert_command(
    files: FilesArgument = None,
    run: RunOption = None,
    method: OneMethodOption = None,
    dataset: OneDatasetOption = None,
    label: Annotated[
        str | None, typer.Option("--class", help="Class of the images, by name or index.")
    ] = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    plugin: PluginOption = None,
) -> None:
    """Map images to latents and back: latents, reconstructions and how close they are."""
    from bench.inversion.commands import invert_all

    console, place = _begin(plugin, results, experiment)
    invert_all(
        console,
        place,
        files=files or (),
        run=run,
        method=method,
        dataset_name=dataset,
        label=label,
        samples=samples,
        out=out,
        device=device,
        batch=batch,
    )


@app.command("edit")
def edit_command(
    source_class: Annotated[
        str, typer.Option(help="Class that the images have, by name or index.")
    ],
    target_class: Annotated[
        list[str], typer.Option(help="Class to edit to; repeat for several, or 'all'.")
    ],
    files: FilesArgument = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales, a range such as 1,7,13; 1 is off.")
    ] = "1",
    run: RunOption = None,
    method: OneMethodOption = None,
    dataset: OneDatasetOption = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    plugin: PluginOption = None,
) -> None:
    """Invert images of one class and sample them as another."""
    from bench.inversion.commands import edit_all

    console, place = _begin(plugin, results, experiment)
    edit_all(
        console,
        place,
        files=files or (),
        source_class=source_class,
        target_classes=target_class,
        guidance=guidance,
        run=run,
        method=method,
        dataset_name=dataset,
        samples=samples,
        out=out,
        device=device,
        batch=batch,
    )


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="methods, metrics, datasets, extractors or suites.")],
    plugin: PluginOption = None,
) -> None:
    """List what is registered, one line each, with its origin."""
    from bench.commands import list_all

    console, _ = _begin(plugin, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    list_all(console, what)


data_app = typer.Typer(help="Prepare data sets from archives and folders.", no_args_is_help=True)
app.add_typer(data_app, name="data")

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
    from bench.data.commands import prepare_command

    console, _ = _begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    prepare_command(
        console, source, name=dataset, size=size, crop=crop, resize=resize, root=data_root
    )


@data_app.command("list")
def data_list_command(data_root: DataRootOption = None) -> None:
    """List the prepared data sets and where they came from."""
    from bench.data.commands import list_command as list_prepared

    console, _ = _begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    list_prepared(console, data_root)


@data_app.command("verify")
def data_verify_command(
    dataset: Annotated[str, typer.Argument(help="Name of a prepared data set.")],
    data_root: DataRootOption = None,
) -> None:
    """Read a prepared data set whole and compare it with its recorded hashes."""
    from bench.data.commands import verify_command

    console, _ = _begin(None, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    verify_command(console, dataset, data_root)


def _begin(
    plugins: list[Path] | None, results: Path, experiment: str
) -> tuple[Console, Experiment]:
    """Console and experiment, after plugins are loaded; a plugin's failure is a warning."""
    from rich.console import Console

    from bench.experiment import Experiment
    from bench.plugins import load_plugins

    warnings = Console(stderr=True)
    for problem in load_plugins(plugins or ()):
        warnings.print(f"Warning: {problem}", style="yellow", markup=False, soft_wrap=True)
    return Console(), Experiment(results, experiment)


def main() -> None:
    """Entry point: a UserError is one sentence on stderr and an exit code, never a traceback."""
    from typer.main import get_command

    try:
        code = get_command(app)(prog_name="bench", standalone_mode=False)
        if code == INTERRUPTED:  # newer versions of typer turn Ctrl-C into an exit status
            _complain(STOPPED, INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _complain(str(error), error.code)
    except OSError as error:  # a full disk, a folder that may not be written, a closed pipe
        where = f" ({error.filename})" if error.filename else ""
        _complain(f"{error.strerror or error}{where}.", 1)
    except KeyboardInterrupt:
        _complain(STOPPED, INTERRUPTED)
    except Exception as error:
        from bench.usage import usage_error

        found = usage_error(error)
        if found is None:
            raise
        _complain(*found)


def _complain(message: str, code: int) -> None:
    print(f"Error: {message}" if code != INTERRUPTED else message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
