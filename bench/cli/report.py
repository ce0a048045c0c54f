"""`bench report`: renders tables, figures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import bench
from bench.cli import options
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.experiment.ranges import parse_range
from bench.system.errors import UserError, counted


def report_command(
    suite: options.Suite = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", "-e", help="Experiment; repeat for several in one report."),
    ] = None,
    results: options.Results = DEFAULT_RESULTS,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Compare with this experiment or folder, on one page."),
    ] = None,
    figures: Annotated[
        Literal["few", "all"],
        typer.Option("--figures", help="few: what a reader needs; all: of every measure and line."),
    ] = "few",
    x: Annotated[
        str,
        typer.Option("--x", help="Axis of figures: g, nfe, seconds or a metric, such as strength."),
    ] = "g",
    pdf: Annotated[bool, typer.Option("--pdf", help="Write each figure as PDF too.")] = False,
    table_guidance: Annotated[
        str | None, typer.Option(help="Scales in paper.tex and paper.md: 1,2,4,7,13 or 1..13:4.")
    ] = None,
    table_metrics: Annotated[
        str | None, typer.Option(help="Metrics in these: fd,precision,recall; bench list metrics.")
    ] = None,
    table_columns: Annotated[
        int, typer.Option(min=1, max=2, help="Columns of the paper that a table spans.")
    ] = 2,
    plugin: options.Plugins = None,
) -> Path:
    """Render tables, figures and a page from the rows of an experiment."""
    from bench.experiment.inversion_rows import InversionRow, read_inversions
    from bench.experiment.rows import Row, read_rows
    from bench.experiment.suite import TUNING_SEEDS, flags, suite_studies
    from bench.report.options import PaperOptions, ReportOptions
    from bench.report.record import make_report

    paper = PaperOptions(
        guidance=parse_range(table_guidance, "--table-guidance") if table_guidance else (),
        metrics=tuple(name.strip() for name in (table_metrics or "").split(",") if name.strip()),
        columns=table_columns,
    )
    names = list(dict.fromkeys(experiment or (DEFAULT_EXPERIMENT,)))
    reporter, found = options.begin(plugin, results, names[0], entry_points=False)
    if suite is not None and len(names) > 1:
        raise UserError("--suite names the experiment: drop one --experiment.", code=2)
    if suite is not None:
        _, found = suite_studies(suite, found)
    every = [found, *(Experiment(results, name) for name in names[1:])]

    def rows_in(cells: Path, advice: str) -> list[Row]:
        rows = read_rows(cells)
        if not rows:
            raise UserError(f"There are no rows in {cells}{advice}.")
        kept = [row for row in rows if row.seed < TUNING_SEEDS]
        if left := len(rows) - len(kept):
            told = counted(left, "row")
            reporter.say(f"Left out {told} whose sampling seeds are reserved for tuning.")
        return kept

    every_row: list[Row] = []
    inversions: list[InversionRow] = []
    for one in every:
        rows = rows_in(one.cells, f": bench sweep{flags(one, suite)}")
        edits = read_inversions(one.inversions)
        if len(every) > 1:  # rows of a copied or renamed folder have its old name
            rows = [row.model_copy(update={"experiment": one.name}) for row in rows]
            edits = [row.model_copy(update={"experiment": one.name}) for row in edits]
        every_row += rows
        inversions += edits
    out = results / "+".join(names) / found.report.name if len(every) > 1 else found.report
    if any(value.about is None for row in every_row for value in row.values):
        options.warn_of_plugins(reporter, plugin or ())  # old rows lack the facts of their metrics
    if against is not None:
        if len(every) > 1:
            raise UserError("--against compares one experiment: drop one --experiment.", code=2)
        other = next((p for p in (results / against, Path(against)) if p.is_dir()), None)
        if other is None:
            raise UserError(f"There is no experiment {against!r} in {results}.", code=2)
        from bench.report.against import write_against

        both = (found.name, other.resolve().name)
        page = write_against(every_row, rows_in(other / "cells", ""), out, both)
        reporter.say(f"Look at {page} (tables also in {page.with_suffix('.md')}).")
        return page
    paths = make_report(
        every_row,
        out,
        ReportOptions(published_file(), {}, inversions, paper, pdf, figures == "all", x),
        reporter.console,
    )
    for problem in paths.problems:
        reporter.say(f"Warning: {problem}")
    more = f" and {len(inversions)} of inversions" if inversions else ""
    reporter.say(f"{counted(len(every_row), 'row')}{more} reported.")
    reporter.say(f"Look at {paths.page} (tables also in {paths.markdown}).")
    if paths.problems:
        raise UserError(
            f"{counted(len(paths.problems), 'figure')} failed; the page gives the reasons. The "
            "tables are complete. Run the same command to draw the figures again."
        )
    return paths.page


def published_file() -> Path | None:
    """published.csv in the installed package, or in results/ of the checkout."""
    package = Path(bench.__path__[0]).resolve()
    paths = (package / "published.csv", package.parent / "results" / "published.csv")
    return next((path for path in paths if path.exists()), None)
