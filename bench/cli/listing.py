"""`bench list`: everything registered, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.stored import Guidance, OnlyRules, Seeds, Status, Steps, make_filter
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from bench.experiment.stored import Filter

KINDS = (
    *("methods", "rules", "metrics", "datasets", "extractors", "protocols", "suites"),
    *("launchers", "experiments", "runs", "rows"),
)


def list_command(
    what: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    plugin: options.Plugins = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only these runs, or rows of them.")
    ] = None,
    method: options.Methods = None,
    dataset: options.Datasets = None,
    rule: OnlyRules = None,
    guidance: Guidance = None,
    steps: Steps = None,
    seeds: Seeds = None,
    status: Status = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
) -> None:
    """List what is registered, with its origin, or what is stored, one line each."""
    from rich.table import Table

    what = options.kind_of("list", what, KINDS)
    chosen = (method, dataset, rule, guidance, steps, seeds, status)
    wanted = make_filter(run or (), *chosen)
    if what not in ("runs", "rows") and (run or any(chosen)):
        raise UserError("These options choose among runs or rows: bench list rows.", code=2)
    own: dict[str, Callable[[], Iterable[tuple[str, ...]]]] = {
        "protocols": _protocols,
        "suites": _suites,
        "experiments": lambda: _experiments(results),
        "runs": lambda: _runs(Experiment(results, experiment), wanted),
        "rows": lambda: _rows(Experiment(results, experiment), wanted),
    }
    shown: dict[str, Callable[[Iterable[tuple[str, ...]]], Iterable[tuple[str, ...]]]] = {
        "methods": iter,
        "rules": iter,
        "metrics": iter,
        "datasets": _with_prepared,
        "extractors": _with_weights,
        "launchers": iter,
    }
    reporter, _ = options.begin(entry_points=False)
    lines = own[what]() if what in own else shown[what](options.registered(reporter, plugin)[what])
    table = Table.grid(padding=(0, 2))
    # Metrics that a sweep measures by default come first.
    first = what == "metrics"
    ordered = lines if what == "rows" else sorted(lines, key=lambda v: (first and v[1], v))
    for line in ordered:
        table.add_row(*line)
    if not table.row_count:
        reporter.say(f"There are no {what}.")
        return
    reporter.show(table)


def _experiments(results: Path) -> Iterator[tuple[str, ...]]:
    from bench.experiment.stored import Filter, stored_experiments, stored_runs

    for experiment in stored_experiments(results):
        runs = stored_runs(experiment, Filter())
        rows = sum(run.rows for run in runs)
        page = experiment.report / "index.html"
        have = counted(len(runs), "run"), counted(rows, "row")
        yield experiment.name, *have, str(page) * page.exists()


def _runs(experiment: Experiment, wanted: Filter) -> Iterator[tuple[str, ...]]:
    from bench.experiment.stored import stored_runs

    for run in stored_runs(experiment, wanted):
        seed = "" if run.seed is None else f", seed {run.seed}"
        yield run.name, f"{run.method} on {run.dataset}{seed}", run.state, counted(run.rows, "row")


def _rows(experiment: Experiment, wanted: Filter) -> Iterator[tuple[str, ...]]:
    from bench.experiment.stored import stored_rows

    found = stored_rows(experiment, wanted).values()
    for row in sorted(found, key=lambda r: (r.run, r.rule, r.steps, r.guidance, r.seed, r.n)):
        steps = counted(row.steps, "step")
        cell = f"g = {row.guidance:g}", steps, f"seed {row.seed}", f"n = {row.n}"
        values = counted(len(row.values), "value") if row.status == "ok" else row.reason
        yield row.run, row.rule or "cfg", *cell, row.status, values


def _with_prepared(registered: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    from bench.data.card import prepared_cards

    yield from registered
    yield from ((card.name, card.summary, "(prepared)") for card in prepared_cards())


def _protocols() -> Iterator[tuple[str, ...]]:
    from bench.experiment.protocols import PROTOCOLS

    return ((name, protocol.described) for name, protocol in PROTOCOLS.items())


def _suites() -> Iterator[tuple[str, ...]]:
    from bench.experiment.place import builtin_suites

    return ((name, str(path)) for name, path in builtin_suites().items())


def _with_weights(registered: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    from bench.evaluation.weights import find_files
    from metrics.catalogue import SUMMARIES, WEIGHTS

    for name, summary, origin in registered:
        about = SUMMARIES.get(name)
        if about is None:
            yield name, summary, origin
            continue
        features = f", {about.dim} features" if about.dim else ""
        weights = "needs no file"
        if wanted := WEIGHTS.get(name):
            found = find_files(wanted)
            weights = (
                f"weights in {found[0].path.parent}" if found else f"weights missing: {wanted.file}"
            )
        yield name, f"{about.summary}{features}", f"({weights})"
