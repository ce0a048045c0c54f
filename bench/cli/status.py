"""`bench status`: what the last command in an experiment has done, does and has left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.system.errors import UserError

if TYPE_CHECKING:
    from bench.system.progress import Reporter

EVERY = 10.0
"""Seconds between two tables of --watch."""


def status_command(
    suite: options.Suite = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print it again every 10 s until nothing is left.")
    ] = False,
) -> None:
    """Show what is done, running and where, failed and left of the last command."""
    from bench.experiment.place import suite_experiment

    if suite is not None and experiment == DEFAULT_EXPERIMENT:
        experiment = suite_experiment(suite)
    reporter, found = options.begin(None, results, experiment, entry_points=False)
    while _show(found, reporter) and watch:
        time.sleep(EVERY)


def _show(experiment: Experiment, reporter: Reporter) -> int:
    """Print a table and who computes what; how many results are running or left."""
    from rich.table import Table

    from bench.system.launch.slurm import queue, read_jobs
    from bench.system.record import read_progress

    parts = read_progress(experiment.root)
    if not parts:
        raise UserError(
            f"No command has planned work in {experiment.root}: bench train, sweep and tune do. "
            "Give its --suite, or --experiment and --results."
        )
    table = Table("work", "done", "running", "failed", "left")
    for part in parts:
        counts = (part.done, part.busy, part.failed, part.left)
        table.add_row(part.title, *map(str, counts))
    reporter.show(table)
    for part in parts:
        for holder, names in sorted(part.running.items()):
            reporter.say(f"{holder}: {', '.join(names)}")
    for job in read_jobs(experiment.root):
        reporter.say(queue(job))
    return sum(part.left + part.busy for part in parts)
