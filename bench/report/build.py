"""Write a report: from rows to numbers, figures and a document in three forms."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.experiment.rows import Row
from bench.report.document import FileKind, Form
from bench.report.drawn import FigureInputs
from bench.report.figures.figures import (
    Plan,
    drawn_against,
    plan_comparison,
    plan_figures,
    plan_grids,
    plan_yardsticks,
)
from bench.report.figures.overview import plan_overview
from bench.report.numbers.across import check_across
from bench.report.numbers.comparison import compare, comparison_frames
from bench.report.numbers.frame import prepare
from bench.report.numbers.inversions import edit_summary, inversion_summary, prepare_inversions
from bench.report.numbers.matched import match_lines, matched_frame
from bench.report.numbers.pairs import difference_frame, headline_differences
from bench.report.numbers.published import read_published
from bench.report.numbers.summary import provenance, summary
from bench.report.numbers.yardstick import make_yardsticks, yardstick_frame
from bench.report.options import DEFAULT, ReportOptions
from bench.report.pages.contents import Findings, make_document
from bench.report.pages.explorer import explorer
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.paper import paper_document
from bench.report.pages.tex import tex
from bench.report.record import PAGE, Record, ReportPaths, report_input, report_paths
from bench.system.failures import explain_failure
from bench.system.files import read_whole, write_bytes, write_text
from bench.system.forks import in_processes
from bench.system.progress import Bar

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_report(
    rows: Sequence[Row],
    out: Path,
    options: ReportOptions = DEFAULT,
    console: Console | None = None,
) -> ReportPaths:
    """Write the report of `rows` below `out`, replacing an older one file by file.

    Progress is shown on `console`. The same arguments give the same bytes, whatever was there: a
    figure that an earlier report drew from the same input is kept. Raises `UserError`, before
    anything is written, if rows are not comparable or lack what the options ask for. If a figure
    fails, the others are drawn.
    """
    data = prepare(rows)
    check_across(data, options.x)
    inverted = prepare_inversions(options.inversions, rows) if options.inversions else None
    numbers = read_published(options.published) if options.published is not None else ()
    found = Findings(
        data,
        compare(data),
        headline_differences(data),
        make_yardsticks(data),
        inverted,
        match_lines(data),
    )
    planned = (
        [
            *plan_overview(data, numbers),
            *plan_figures(data, numbers),
            *plan_comparison(data, found.lines),
        ],
        list(plan_yardsticks(data)),
        list(plan_grids(inverted)) if inverted else [],
    )
    plans = [[plan for plan in some if options.all_figures or not plan.every] for some in planned]
    plans[0] = drawn_against(data, plans[0], options.x)
    document = make_document(found, options.note, *plans)
    short = paper_document(data, found.tables, options.paper)
    written = [
        write_text(out / "paper.md", markdown(short)),
        write_text(out / "paper.tex", tex(short, "paper")),
        write_text(out / "tables.md", markdown(document)),
        write_text(out / "tables.tex", tex(document)),
        *(
            write_text(out / name, markdown(part, Form.DATASET))
            for name, part in document.datasets.items()
        ),
    ]
    for path in out.glob("tables-*.md"):
        if path.name not in document.datasets:
            path.unlink()
    for name, frame in _frames(found).items():
        if frame is None:
            (out / name).unlink(missing_ok=True)
        else:
            written.append(write_text(out / name, csv_text(frame)))
    record = Record(out)
    kinds: tuple[FileKind, ...] = ("png", "pdf") if options.pdf else ("png",)
    figures, problems = _draw_all(list(chain(*plans)), record, out, kinds, console)
    # Figures of an older report would look like part of this one.
    old = _figures_of(out / PAGE) - set(figures)
    sizes = {path.stem: size for path in figures if (size := png_size(path)) is not None}
    page = html(document, problems, options.pdf, explorer(data, found.lines), sizes)
    written.append(write_text(out / PAGE, page))
    for path in old:
        path.unlink(missing_ok=True)
    if not problems:
        record.add(written, report_input(rows, options))
    return report_paths(out, figures, problems.values())


def _draw_all(
    plans: Sequence[Plan],
    record: Record,
    out: Path,
    kinds: Sequence[FileKind],
    console: Console | None,
) -> tuple[list[Path], dict[str, str]]:
    """Draw the figures that are not recorded; returns their files, and sentences by failure."""
    inputs = FigureInputs()
    files = {p.name: [out / "figures" / f"{p.name}.{kind}" for kind in kinds] for p in plans}
    record.keep_only(chain(*files.values()))
    missing = [p for p in plans if not record.keeps(files[p.name], inputs.hash(p))]
    if missing:
        import bench.report.figures.drawings  # noqa: F401 - once, for all processes
    problems: dict[str, str] = {}
    with (
        in_processes(partial(_drawn, kinds=kinds), missing) as results,
        Bar("figures", len(plans), len(plans) - len(missing), console) as bar,
    ):
        for plan, found in results:
            try:
                if isinstance(found, Mapping):
                    files[plan.name] = [
                        write_bytes(out / "figures" / f"{plan.name}.{kind}", content)
                        for kind, content in found.items()
                    ]
                    record.add(files[plan.name], inputs.hash(plan))
            except OSError as error:
                found = _reason(error)
            if not isinstance(found, Mapping):  # The tables are more important than any figure.
                why = found or "its process was killed."
                problems[plan.name] = f"Figure {plan.name} failed: {why}"
                files[plan.name] = []
            bar.update(bar.done + 1, plan.name)
    return list(chain(*files.values())), problems


def _drawn(plan: Plan, kinds: Sequence[FileKind]) -> Mapping[FileKind, bytes] | str:
    """A figure by `draw`, or why it failed."""
    try:
        return draw(plan, kinds)
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    return explain_failure(error) or f"{type(error).__name__}: {error}"


def _frames(found: Findings) -> dict[str, pd.DataFrame | None]:
    """The CSV files by name; None for an empty one."""
    rows, inverted = found.data.rows, found.inversions
    compared, yardsticks = found.differences, found.yardsticks
    return {
        "summary.csv": summary(rows),
        "provenance.csv": provenance(rows),
        **comparison_frames(found.lines),
        "matched.csv": matched_frame(found.matched),
        "differences.csv": difference_frame(compared.items()) if compared else None,
        "yardstick.csv": yardstick_frame(yardsticks) if yardsticks else None,
        "inversions.csv": inversion_summary(inverted) if inverted else None,
        "edits.csv": edit_summary(inverted) if inverted else None,
    }


def draw(plan: Plan, kinds: Sequence[FileKind]) -> Mapping[FileKind, bytes]:
    """The files of a figure."""
    from bench.report.figures.style import look, render

    with look():
        figure = plan.draw()
        return {kind: render(figure, kind) for kind in kinds}


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG in pixels, from its header; None for another file."""
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or not head.startswith(b"\x89PNG"):
        return None
    width, height = struct.unpack(">16x2I", head)
    return width, height


def _figures_of(page: Path) -> set[Path]:
    """The figures of the report that is replaced."""
    try:
        text = read_whole(page).decode("utf-8", "replace")
    except FileNotFoundError:
        return set()
    found = re.findall(r'(?:src|href)="figures/([\w.-]+\.(?:png|pdf))"', text)
    return {page.parent / "figures" / name for name in found}


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV; text that a spreadsheet would run as a formula starts with an apostrophe.

    Names and reasons come from untrusted files. Numbers are not text, so they are unchanged.
    """

    def plain(cell: object) -> object:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell

    safe = frame.map(plain).rename(columns=plain)
    return safe.to_csv(index=False, lineterminator="\n")
