"""Options shared by several commands, and the set-up of each command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.experiment.place import BATCH_MOST, DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.system.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.experiment.protocols import Protocol
    from bench.plugins.catalogue import Lines
    from bench.system.progress import Reporter

_place = partial(typer.Option, rich_help_panel="Results and plugins")
_machine = partial(typer.Option, rich_help_panel="Machine")
_rules = partial(typer.Option, rich_help_panel="Guidance rules")
_choice = partial(typer.Option, rich_help_panel="Choice of runs")
_measures = partial(typer.Option, rich_help_panel="Measures")
"""Options of a panel of the help."""
UNTIL_THE_END = ExitStack()
"""Closed when a command has ended, before its errors are reported."""
LABELS = ("balanced", "random", "reference")
SAMPLERS = ("heun", "euler", "ddim", "dpmpp-2m", "sde")
GRIDS = ("edm", "linear", "cosine")
UNBOUND = 1000
"""Console width without a terminal: lines in files and pipes are not wrapped."""

Results = Annotated[Path, _place("--results", help="Folder of all experiments.")]
ExperimentName = Annotated[
    str, _place("--experiment", "-e", help="Folder of this experiment within --results.")
]
Plugins = Annotated[
    list[Path] | None,
    _place("--plugin", help="Python file with further methods, rules, metrics or data sets."),
]
Models = Annotated[
    list[str] | None,
    _choice(
        "--model",
        metavar="FILE:NAME",
        help="Your own model: a declared function, such as mymodel.py:denoise; with --dataset.",
    ),
]
OneModel = Annotated[
    str | None,
    _choice(
        "--model",
        metavar="FILE:NAME",
        help="Your own model, such as mymodel.py:denoise, instead of a run; with --dataset.",
    ),
]
Suite = Annotated[
    str | None, _place("--suite", help="TOML file, or a shipped suite such as 'demo'.")
]
Device = Annotated[str, _machine(help="auto, cpu, cuda or mps.")]
NullCheckpoint = Annotated[
    str | None,
    _rules(
        "--null-checkpoint",
        help="Run, folder or .safetensors: the unconditional branch of every run of its method.",
    ),
]
WeakCheckpoint = Annotated[
    str | None,
    _rules(
        "--weak-checkpoint",
        help="Run, folder or .safetensors: the weaker network of every run of its method.",
    ),
]
Rules = Annotated[
    list[str] | None,
    _rules("--rule", help="Guidance rules: cfg,apg or interval+apg; bench list rules."),
]
OneRule = Annotated[
    str | None, _rules("--rule", help="Guidance rule, such as apg; bench list rules.")
]
Knobs = Annotated[
    list[str] | None, _rules("--knob", help="rule.knob=value, such as apg.eta=0.5; repeatable.")
]
Tuned = Annotated[bool, _rules("--tuned", help="Use the knobs that bench tune found, if any.")]
SampleLabels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Classes of samples: balanced (default, unless a protocol has its own), random or "
        "reference.",
    ),
]
SamplerName = Annotated[
    str,
    typer.Option(
        "--sampler", help="Of edm, oracle, --model: heun, euler (or ddim), dpmpp-2m or sde."
    ),
]
GridName = Annotated[
    str, typer.Option("--grid", help="Spacing of its noise levels: edm, linear or cosine.")
]
Workers = Annotated[
    int | None,
    _machine(
        min=1,
        max=1024,
        envvar="GUIDANCE_BENCH_WORKERS",
        help="Processes side by side; default: one per GPU, or per physical core.",
    ),
]
LauncherName = Annotated[
    str | None,
    _machine(
        "--launcher",
        envvar="GUIDANCE_BENCH_LAUNCHER",
        help="How workers are started: bench list launchers; with settings: NAME:key=value,...",
    ),
]
Slurm = Annotated[
    str | None,
    _machine(help="Settings of --launcher slurm: partition=gpu,gpus_per_node=1,time=60."),
]
Ray = Annotated[str | None, _machine(help="Address of a Ray cluster, for --launcher ray.")]
DryRun = Annotated[bool, _machine("--dry-run", help="Print what would be done, then stop.")]
Detach = Annotated[
    bool, _machine("--detach", help="Start the workers of --launcher and return at once.")
]
Weights = Annotated[
    Path | None, _measures("--weights", help="File or folder of an extractor's weights.")
]
Download = Annotated[bool, _measures(help="Allow an extractor to fetch weights.")]
Orient = Annotated[
    bool, typer.Option("--orient/--no-orient", help="Turn images as their EXIF orientation says.")
]
Offline = Annotated[bool, _machine("--offline", help="Refuse every connection to another machine.")]

OneRun = Annotated[
    str | None, _choice("--run", help="Trained run; by default the only one that fits.")
]
OneMethod = Annotated[str | None, _choice("--method", "-m", help="Method, to choose the run.")]
OneDataset = Annotated[str | None, _choice("--dataset", "-d", help="Data set, to choose the run.")]
Methods = Annotated[list[str] | None, _choice("--method", "-m", help="Only these methods.")]
Metrics = Annotated[
    list[str] | None,
    _measures("--metric", help="Only these metrics: bench list metrics; repeatable."),
]
Datasets = Annotated[list[str] | None, _choice("--dataset", "-d", help="Only these data sets.")]
Batch = Annotated[int, _machine(min=1, max=BATCH_MOST, help="Batch size; does not change results.")]


def begin(
    plugins: list[Path] | None = None,
    results: Path = DEFAULT_RESULTS,
    experiment: str = DEFAULT_EXPERIMENT,
    *,
    entry_points: bool = True,
    out: Path | None = None,
    offline: bool = False,
    download: bool = False,
    silent: bool = False,
    moves: bool = False,
) -> tuple[Reporter, Experiment]:
    """Load the plugins and return reporter and experiment; a package's failure is a warning.

    Plugins import torch: a command that needs none sets `entry_points` to False.
    Until `UNTIL_THE_END` closes, `offline` refuses every connection, and the command fails, writing
    nothing more, if the folder of the results or of `out` disappears. With `moves` the command may
    remove or rename the experiment itself.
    """
    from rich.console import Console

    from bench.system.member import join_command
    from bench.system.offline import network
    from bench.system.places import holding
    from bench.system.progress import Reporter
    from bench.system.workers import is_worker

    if is_worker():
        reporter = join_command(plugins or ())
    elif silent:
        reporter = Reporter()
    else:
        console = Console()
        if not (console.is_terminal or console.is_jupyter or "COLUMNS" in os.environ):
            console.width = UNBOUND
        reporter = Reporter(console)
    UNTIL_THE_END.enter_context(network(offline=offline, download=download))
    if plugins or entry_points:
        warn_of_plugins(reporter, plugins or ())
    found = Experiment(results, experiment)
    held = (results, None if moves else found.root, out)
    UNTIL_THE_END.enter_context(holding(*(place for place in held if place is not None)))
    return reporter, found


def model_files(models: Sequence[str], datasets: Sequence[str]) -> list[Path]:
    """The files of --model FILE:NAME, which are plugins; UserError for other text or no data."""
    files = []
    for given in models:
        file, _, name = given.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            raise UserError(
                f"--model takes FILE.py:NAME, such as mymodel.py:denoise, got {given!r}.", code=2
            )
        if not Path(file).is_file():
            raise UserError(f"--model {given}: there is no file {file}.", code=2)
        files.append(Path(file))
    if models and not datasets:
        raise UserError(
            "--model needs the data set to compare with: --dataset NAME (bench data list).", code=2
        )
    return files


def warn_of_plugins(reporter: Reporter, plugins: Sequence[Path] = ()) -> None:
    """Load the plugins, those with entry points first; a failure is a warning."""
    from bench.plugins.catalogue import load

    for problem in load(plugins):
        reporter.warn(problem)


def registered(reporter: Reporter, plugins: Sequence[Path] | None) -> Lines:
    """What is registered: as `known_lines`, or after loading the plugins."""
    from bench.plugins.catalogue import known_lines, registered_lines

    known = None if plugins else known_lines()
    if known is None:
        warn_of_plugins(reporter, plugins or ())
    return known or registered_lines()


def kind_of(noun: str, text: str, kinds: Sequence[str], example: str = "") -> str:
    """The kind that a word in the singular or plural names, in the plural.

    UserError about an unknown `noun`, with what to type, for any other word.
    """
    for kind in kinds:
        if text in (kind, kind.removesuffix("s")):
            return kind
    raise unknown(noun, text, kinds, example)


def note_scales(scales: Iterable[float], reporter: Reporter) -> None:
    """Say once what scales below 1 mean: many papers write w = g - 1."""
    low = [g for g in scales if g < 1]
    if low:
        reporter.say(
            f"--guidance {min(low):g} is below 1: g = 1 is off, and g < 1 guides away from the "
            f"class. Papers that write w = g - 1 call this w = {min(low) - 1:g}; for their "
            f"w = {min(low):g} type --guidance {min(low) + 1:g}."
        )


def refuse_beside_suite(**options: object) -> None:
    """UserError for given options that a suite sets itself."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UserError(
            f"--suite sets this itself: drop {', '.join(given)}, or write your own suite file.",
            code=2,
        )


def check_sampling(labels: str | None, sampler: str, grid: str) -> None:
    """UserError for an unknown name given as --labels, --sampler or --grid."""
    given = (("labels", labels, LABELS), ("sampler", sampler, SAMPLERS), ("grid", grid, GRIDS))
    for name, value, choices in given:
        if value is not None and value not in choices:
            raise unknown(name, value, choices)


def chosen_protocol(
    name: str | None, metrics: list[str] | None, extractors: list[str] | None
) -> Protocol | None:
    """The protocol of --protocol, if given; UserError next to --metric or --extractor."""
    from bench.experiment.protocols import find_protocol

    if name is None:
        return None
    if metrics or extractors:
        raise UserError(
            "--protocol sets extractors and metrics: drop --extractor and --metric, or --protocol.",
            code=2,
        )
    return find_protocol(name)
