"""The command line: parse, call one function, print. Heavy imports wait inside the commands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.doctor_options import doctor_command
from bench.cli.files import data_app, import_command
from bench.cli.images import edit_command, invert_command, sample_command
from bench.cli.measure import evaluate_command, stats_app
from bench.cli.options import (
    UNTIL_THE_END,
    DeviceOption,
    DownloadOption,
    DryRunOption,
    ExperimentOption,
    KnobOption,
    NullOption,
    OfflineOption,
    PluginOption,
    ResultsOption,
    RulesOption,
    SuiteOption,
    TunedOption,
    WeakOption,
    WeightsOption,
    begin,
)
from bench.cli.tune_options import tune_command
from bench.cli.verify_options import verify_command
from bench.experiment.place import (
    DEFAULT_DATASET,
    DEFAULT_EXPERIMENT,
    DEFAULT_GUIDANCE,
    DEFAULT_INVERSIONS,
    DEFAULT_PRECISION,
    DEFAULT_RESULTS,
    DEFAULT_SEEDS,
)
from bench.system.errors import UserError
from bench.system.signals import StopFlag, signals_as_interrupts

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
    on_nan: Annotated[
        str,
        typer.Option(help="If losses or weights are unusable: stop, or rollback and go on."),
    ] = "stop",
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train methods; run the same command again to go on after a stop."""
    from bench.cli.train import train_all

    console, place = begin(plugin, results, experiment)
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
        on_nan=on_nan,
        dry_run=dry_run,
    )


@app.command("sweep")
def sweep_command(
    context: typer.Context,
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
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only these runs, by name; repeatable.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="Only these data sets.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Only these metrics, of bench list metrics; repeatable."),
    ] = None,
    extractor: Annotated[
        list[str] | None, typer.Option(help="Features for the metrics; repeatable.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Instead of both, such as offline: bench list protocols.")
    ] = None,
    weights: WeightsOption = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")] = 256,
    rule: RulesOption = None,
    knob: KnobOption = None,
    tuned: TunedOption = False,
    null_checkpoint: NullOption = None,
    weak_checkpoint: WeakOption = None,
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
    from bench.cli.sweep import sweep_all
    from bench.system.offline import network

    console, place = begin(plugin, results, experiment)
    context.with_resource(network(offline=offline, download=download))
    sweep_all(
        console,
        place,
        guidance=guidance,
        steps=steps,
        samples=samples,
        seeds=seeds,
        methods=method,
        runs=run,
        datasets=dataset,
        metrics=metric,
        extractors=extractor,
        protocol=protocol,
        weights=weights,
        download=download,
        batch=batch,
        suite=suite,
        device=device,
        dry_run=dry_run,
        rules=rule,
        knobs=knob,
        tuned=tuned,
        null_checkpoint=null_checkpoint,
        weak_checkpoint=weak_checkpoint,
        save_samples=save_samples,
        inversion=inversion,
        inversion_samples=inversion_samples,
        inversion_guidance=inversion_guidance,
    )


@app.command("report")
def report_command(
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Render tables, figures and a page from the rows of an experiment."""
    from bench.cli.report import report_all

    console, place = begin(None, results, experiment)
    report_all(console, place, suite=suite)


@app.command("list")
def list_command(
    what: Annotated[
        str,
        typer.Argument(help="methods, rules, metrics, datasets, extractors, protocols or suites."),
    ],
    plugin: PluginOption = None,
) -> None:
    """List what is registered, one line each, with its origin."""
    from bench.cli.report import list_all

    console, _ = begin(plugin, DEFAULT_RESULTS, DEFAULT_EXPERIMENT)
    list_all(console, what)


for _name, _command in (
    ("import", import_command),
    ("sample", sample_command),
    ("invert", invert_command),
    ("edit", edit_command),
    ("doctor", doctor_command),
    ("evaluate", evaluate_command),
    ("tune", tune_command),
    ("verify", verify_command),
):
    app.command(_name)(_command)
app.add_typer(data_app, name="data")
app.add_typer(stats_app, name="stats")


def main() -> None:
    """Entry point: a UserError is one sentence on stderr and an exit code, never a traceback."""
    from typer.main import get_command

    stop = StopFlag()
    try:
        with signals_as_interrupts() as stop, UNTIL_THE_END:
            code = get_command(app)(prog_name="bench", standalone_mode=False)
        sys.stdout.flush()  # what cannot be printed must not wait for the end of the interpreter
        if code == INTERRUPTED:  # newer versions of typer turn Ctrl-C into an exit status
            _complain(STOPPED, INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _complain(str(error), error.code)
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        _hush()
        sys.exit(1)
    except KeyboardInterrupt:
        _complain(STOPPED, INTERRUPTED)
    except Exception as error:
        if stop.asked:
            _complain(STOPPED, INTERRUPTED)
        from bench.cli.usage import usage_error
        from bench.system.failures import explain_failure

        trouble = explain_failure(error)
        found = usage_error(error) if trouble is None else (trouble, 1)
        if found is None:
            raise
        _complain(*found)


def _complain(message: str, code: int) -> None:
    with suppress(OSError):
        said = f"Error: {message}" if code != INTERRUPTED else message
        # One write with its line's end, since several processes may say something at once.
        print(f"{said}\n", end="", file=sys.stderr, flush=True)
    _hush()
    sys.exit(code)


def _hush() -> None:
    """Drop what a closed pipe or a full disk does not take: the interpreter would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
