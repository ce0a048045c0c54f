"""Options that several commands take, and how each command begins."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from bench.experiment.place import Experiment

UNTIL_THE_END = ExitStack()
"""Left once a command has ended, before its errors are told."""
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


def begin(
    plugins: list[Path] | None, results: Path, experiment: str, out: Path | None = None
) -> tuple[Console, Experiment]:
    """Console and experiment, after plugins are loaded; a plugin's failure is a warning.

    If the folder of the results, or that of `out`, goes away before `UNTIL_THE_END` is left,
    nothing more is written, and the command fails.
    """
    from rich.console import Console

    from bench.experiment.place import Experiment
    from bench.plugins.load import load_plugins
    from bench.system.places import holding

    warnings = Console(stderr=True)
    for problem in load_plugins(plugins or ()):
        warnings.print(f"Warning: {problem}", style="yellow", markup=False, soft_wrap=True)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUND
    place = Experiment(results, experiment)
    UNTIL_THE_END.enter_context(holding(results, place.root, *([] if out is None else [out])))
    return console, place
