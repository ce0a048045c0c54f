"""`bench rm` and `bench mv`: remove and rename what experiments have on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, SEED_MOST, STEPS_MOST
from bench.experiment.ranges import parse_ints, parse_range
from bench.system.errors import UserError, counted, unknown

if TYPE_CHECKING:
    from bench.experiment.place import Experiment
    from bench.experiment.stored import Filter
    from bench.system.progress import Reporter

KINDS = ("runs", "rows", "experiments")
SHOWN = 6
"""Names in a question, at most."""

Guidance = Annotated[
    str | None, typer.Option("--guidance", "-g", help="Only rows at these scales: 1..13 or 2,4.")
]
Steps = Annotated[str | None, typer.Option(help="Only rows with these numbers of steps.")]
Seeds = Annotated[str | None, typer.Option(help="Only rows of these sampling seeds.")]
Status = Annotated[
    list[str] | None, typer.Option(help="Only rows that are ok, skip, diverged or failed.")
]
OnlyRules = Annotated[list[str] | None, typer.Option("--rule", help="Only rows of these rules.")]


def make_filter(
    runs: Sequence[str], method: list[str] | None, dataset: list[str] | None,
    rule: list[str] | None, guidance: str | None, steps: str | None, seeds: str | None,
    status: list[str] | None,
) -> Filter:  # fmt: skip
    """The filter of the options; UserError for a status that does not exist."""
    from typing import get_args

    from bench.experiment.rows import Status as Known
    from bench.experiment.stored import Filter

    for name in status or ():
        if name not in get_args(Known):
            raise unknown("status", name, get_args(Known))
    return Filter(
        runs=tuple(runs), methods=tuple(method or ()), datasets=tuple(dataset or ()),
        rules=tuple(rule or ()), status=tuple(status or ()),
        guidance=parse_range(guidance, "--guidance") if guidance else (),
        steps=parse_ints(steps, "--steps", 1, STEPS_MOST) if steps else (),
        seeds=parse_ints(seeds, "--seeds", 0, SEED_MOST) if seeds else (),
    )  # fmt: skip


def remove_command(
    what: Annotated[str, typer.Argument(help="runs, rows or experiments.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of runs or experiments; rows of these runs.")
    ] = None,
    method: options.Methods = None,
    dataset: options.Datasets = None,
    rule: OnlyRules = None,
    guidance: Guidance = None,
    steps: Steps = None,
    seeds: Seeds = None,
    status: Status = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
) -> None:
    """Remove runs with all that was made from them, rows, or whole experiments; asks first."""
    from bench.experiment import stored

    example = f" Type it before the names: bench rm runs {what}."
    what = options.kind_of("kind to remove", what, KINDS, example)
    reporter, found = options.begin(None, results, experiment, entry_points=False, moves=True)
    wanted = make_filter(names or (), method, dataset, rule, guidance, steps, seeds, status)
    of_rows = (wanted.rules, wanted.guidance, wanted.steps, wanted.seeds, wanted.status)
    if what != "rows" and any(of_rows):
        raise UserError("--rule, --guidance, --steps, --seeds and --status are for rows.", code=2)
    if wanted == stored.Filter():
        raise UserError(
            f"Name the {what}, or choose them by --method or --dataset: bench list {what}.", code=2
        )
    if what == "experiments":
        if method or dataset:
            raise UserError("An experiment is removed by its name only.", code=2)
        _remove_experiments(results, names or (), yes, reporter)
        return
    if what == "runs":
        _remove_runs(found, wanted, yes, reporter)
        return
    rows = stored.stored_rows(found, wanted)
    if not rows:
        raise UserError(f"No such rows in {found.cells}.")
    runs = sorted({row.run for row in rows.values()})
    count = counted(len(rows), "row")
    _ask(f"This removes {count} of {_some(runs)} from {found.cells}.", yes, reporter)
    stored.remove(found.root, rows)
    reporter.say(f"Removed {count}.")


def _remove_runs(found: Experiment, wanted: Filter, yes: bool, reporter: Reporter) -> None:
    from bench.experiment import stored

    runs = [run.name for run in stored.stored_runs(found, stored.Filter())]
    for name in wanted.runs:
        if name not in runs:
            raise unknown("run", name, runs)
    chosen = stored.stored_runs(found, wanted)
    if not chosen:
        raise UserError(f"No such runs in {found.root}.")
    names = [run.name for run in chosen]
    rows = counted(sum(run.rows for run in chosen), "row")
    _ask(
        f"This removes {_some(names)} from {found.root}: weights, {rows}, samples, "
        "inversions and tuned knobs.",
        yes,
        reporter,
    )
    stored.refuse_running(found, names)
    for name in names:
        # What was made from the weights goes first: without them it could not be made again.
        stored.remove(found.root, reversed(stored.folders_of(found, name)))
    reporter.say(f"Removed {_some(names)}.")


def _remove_experiments(results: Path, names: Sequence[str], yes: bool, reporter: Reporter) -> None:
    from bench.experiment import stored

    have = {one.name: one for one in stored.stored_experiments(results)}
    for name in names:
        if name not in have:
            raise unknown("experiment", name, have)
    _ask(f"This removes {_some(names)} from {results}, with all runs and rows.", yes, reporter)
    for name in names:
        runs = [run.name for run in stored.stored_runs(have[name], stored.Filter())]
        stored.refuse_running(have[name], runs)
        stored.remove(results, [have[name].root])
    reporter.say(f"Removed {_some(names)}.")


def move_command(
    what: Annotated[str, typer.Argument(help="run or experiment.")],
    old: Annotated[str, typer.Argument(help="Its name.")],
    new: Annotated[str | None, typer.Argument(metavar="NEW", help="Its new name.")] = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
) -> None:
    """Rename a run or an experiment; if it is stopped, run the same command to continue."""
    from bench.experiment import stored

    example = "" if new else f" Type it before the names: bench mv run {what} {old}."
    kind = options.kind_of("kind to rename", what, ("runs", "experiments"), example)
    if new is None:
        raise UserError(f"Type the new name after the old one: bench mv {what} {old} NEW.", code=2)
    reporter, found = options.begin(None, results, experiment, entry_points=False, moves=True)
    if old == new:
        raise UserError("The new name is the old one.", code=2)
    if kind == "experiments":
        moved = stored.rename_experiment(results, old, new)
        reporter.say(f"{old} is now {new}. Next: bench report --experiment {moved.name}")
        return
    stored.rename_run(found, old, new)
    reporter.say(f"{old} is now {new} in {found.root}.")


def _ask(question: str, yes: bool, reporter: Reporter) -> None:
    """Go on after --yes or an answer; UserError without a terminal, exit after a no."""
    reporter.say(question)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("Nothing was removed: add --yes to remove it without a question.", code=2)
    if not typer.confirm("Remove it?"):
        reporter.say("Nothing was removed.")
        raise typer.Exit(1)


def _some(names: Sequence[str]) -> str:
    """Names in a sentence, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
