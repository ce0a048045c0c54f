"""Options that several commands take, and how each command begins."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.system.errors import UserError

if TYPE_CHECKING:
    from bench.system.progress import Reporter

UNTIL_THE_END = ExitStack()
"""Left once a command has ended, before its errors are reported."""
UNBOUND = 1000
"""Columns where no terminal wraps: a file and the next command of a pipe want whole lines."""

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of all experiments.")]
ExperimentOption = Annotated[
    str, typer.Option("--experiment", "-e", help="Folder of this experiment within --results.")
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with further methods, rules, metrics or data sets."),
]
SuiteOption = Annotated[
    str | None, typer.Option("--suite", help="TOML file, or a shipped suite such as 'demo'.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
NullOption = Annotated[
    str | None,
    typer.Option(
        "--null-checkpoint",
        help="Run, folder or .safetensors: the unconditional branch of every edm run here.",
    ),
]
WeakOption = Annotated[
    str | None,
    typer.Option(
        "--weak-checkpoint",
        help="Run, folder or .safetensors: what autoguidance leads every edm run here away from.",
    ),
]
RulesOption = Annotated[
    list[str] | None,
    typer.Option("--rule", help="Guidance rules: cfg,apg or interval+apg; bench list rules."),
]
RuleOption = Annotated[
    str | None, typer.Option("--rule", help="Guidance rule, such as apg; bench list rules.")
]
KnobOption = Annotated[
    list[str] | None,
    typer.Option("--knob", help="rule.knob=value, such as apg.eta=0.5; repeatable."),
]
TunedOption = Annotated[
    bool, typer.Option("--tuned", help="Rules with what bench tune found, where it has.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="File or folder of an extractor's weights.")
]
DownloadOption = Annotated[bool, typer.Option(help="Allow an extractor to fetch weights.")]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Refuse every connection to another machine.")
]

MethodsOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", help="Only these methods.")
]
DatasetsOption = Annotated[
    list[str] | None, typer.Option("--dataset", "-d", help="Only these data sets.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")]


def begin(
    plugins: list[Path] | None = None,
    results: Path = DEFAULT_RESULTS,
    experiment: str = DEFAULT_EXPERIMENT,
    *,
    out: Path | None = None,
    offline: bool = False,
    download: bool = False,
) -> tuple[Reporter, Experiment]:
    """Reporter and experiment, after plugins are loaded; a plugin's failure is a warning.

    If the folder of the results, or that of `out`, goes away before `UNTIL_THE_END` is left,
    nothing more is written, and the command fails. With `offline` no connection is made until
    then.
    """
    from rich.console import Console

    from bench.plugins.load import load_plugins
    from bench.system.offline import network
    from bench.system.places import holding
    from bench.system.progress import Reporter

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUND
    reporter = Reporter(console)
    UNTIL_THE_END.enter_context(network(offline=offline, download=download))
    for problem in load_plugins(plugins or ()):
        reporter.warn(problem)
    found = Experiment(results, experiment)
    UNTIL_THE_END.enter_context(holding(results, found.root, *([] if out is None else [out])))
    return reporter, found


def refuse_beside_suite(**options: object) -> None:
    """UserError for options that were given although a suite decides what they set."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UserError(
            f"--suite sets this itself: drop {', '.join(given)}, or write your own suite file.",
            code=2,
        )
