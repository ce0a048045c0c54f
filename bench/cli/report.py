"""`bench report` and `bench list`, once their options are parsed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench
from bench.cli.console import flags, suite_place
from bench.cli.data import prepared_cards
from bench.cli.extractor_list import extractor_lines
from bench.cli.rule_use import rule_knobs
from bench.data import DATASETS
from bench.experiment.place import (
    Experiment,
)
from bench.experiment.protocols import PROTOCOLS
from bench.experiment.rows import read_rows
from bench.experiment.seeds import TUNING_SEEDS
from bench.experiment.suite import builtin_suites
from bench.plugins.load import ORIGINS
from bench.system.errors import UserError, unknown
from bench.system.progress import say
from methods import METHODS
from methods.rules import RULES
from metrics import METRICS


def report_all(console: Console, place: Experiment, *, suite: str | None) -> None:
    """`bench report`."""
    from bench.experiment.inversion_rows import read_inversions
    from bench.report import write_report

    if suite is not None:
        _, place = suite_place(suite, place)
    rows = read_rows(place.cells)
    if not rows:
        raise UserError(f"There are no rows in {place.cells}: bench sweep{flags(place, suite)}.")
    counted = [row for row in rows if row.seed < TUNING_SEEDS]
    if len(counted) < len(rows):
        left = len(rows) - len(counted)
        say(console, f"Left out {left} rows of sampling seeds that knobs are chosen by.")
    rows = counted
    inversions = read_inversions(place.inversions)
    paths = write_report(
        rows, place.report, published=published_file(), inversions=inversions, console=console
    )
    for problem in paths.problems:
        say(console, f"Warning: {problem}")
    more = f" and {len(inversions)} of inversions" if inversions else ""
    say(console, f"{len(rows)} rows{more} reported.")
    say(console, f"Look at {paths.page} (tables also in {paths.markdown}).")
    if paths.problems:
        raise UserError(
            f"{len(paths.problems)} figures failed, of which the page says why; the tables are "
            "there, and the same command draws them again."
        )


def published_file() -> Path | None:
    """results/published.csv of the checkout, or its copy in the installed package."""
    package = Path(bench.__path__[0]).resolve()
    for path in (package / "published.csv", package.parent / "results" / "published.csv"):
        if path.exists():
            return path
    return None


def list_all(console: Console, what: str) -> None:
    """`bench list`."""
    lines: dict[str, list[tuple[str, str, str]]] = {
        "methods": [(n, c.summary, ORIGINS["methods", n]) for n, c in METHODS.items()],
        "rules": [(n, c.summary, ORIGINS["rules", n]) for n, c in RULES.items()],
        "metrics": [(n, c.summary, ORIGINS["metrics", n]) for n, c in METRICS.items()],
        "datasets": [(n, c.summary, ORIGINS["datasets", n]) for n, c in DATASETS.items()]
        + [
            (c.name, c.summary, "prepared")
            for c in (prepared_cards() if what == "datasets" else ())
        ],
        "extractors": list(extractor_lines()) if what == "extractors" else [],
        "protocols": [(n, p.summary, "") for n, p in PROTOCOLS.items()],
        "suites": [(n, str(p), "") for n, p in builtin_suites().items()],
    }
    if what not in lines:
        raise unknown("list", what, lines)
    table = Table.grid(padding=(0, 2))
    metrics = what == "metrics"
    # Those that a sweep computes by itself come first.
    for name, summary, origin in sorted(
        lines[what], key=lambda line: (_when(metrics, line[0]), line)
    ):
        when = (_when(metrics, name),) if metrics else ()
        knobs = (rule_knobs(RULES[name]),) if what == "rules" else ()
        table.add_row(name, *when, summary, *knobs, f"({origin})" if origin else "")
    console.print(table)


def _when(metrics: bool, name: str) -> str:
    if not metrics:
        return ""
    return "by default" if METRICS[name].default else "on request"
