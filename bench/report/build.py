"""Write a report: from rows to numbers, figures and a document in three forms."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from rich.console import Console

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.document import FileKind, Form
from bench.report.drawn import DrawnFigures
from bench.report.figures.figures import (
    Plan,
    plan_comparison,
    plan_figures,
    plan_grids,
    plan_yardsticks,
)
from bench.report.numbers.comparison import compare, comparison_frames
from bench.report.numbers.frame import prepare
from bench.report.numbers.inversions import edit_summary, inversion_summary, prepare_inversions
from bench.report.numbers.matched import match_lines, matched_frame
from bench.report.numbers.pairs import difference_frame, headline_differences
from bench.report.numbers.published import read_published
from bench.report.numbers.summary import provenance, summary
from bench.report.numbers.yardstick import make_yardsticks, yardstick_frame
from bench.report.pages.contents import Findings, make_document
from bench.report.pages.explorer import explorer
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.paper import DEFAULT, PaperOptions, paper_document
from bench.report.pages.tex import tex
from bench.system.failures import explain_failure
from bench.system.files import read_whole, write_bytes, write_text
from bench.system.progress import Bar

FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `problems` has a sentence for every figure that failed."""

    summary: Path
    markdown: Path
    tex: Path
    page: Path
    figures: tuple[Path, ...]
    problems: tuple[str, ...]


def write_report(
    rows: Sequence[Row],
    out: Path,
    *,
    published: Path | None,
    note: Mapping[str, str] = MappingProxyType({}),
    inversions: Sequence[InversionRow] = (),
    paper: PaperOptions = DEFAULT,
    pdf: bool = False,
    console: Console | None = None,
) -> ReportPaths:
    """Write the report of `rows` below `out`, replacing an older one file by file.

    `published` is a CSV of published numbers to draw in grey, `note` has facts for the page;
    `inversions` adds a separate section; `paper` chooses tables for a paper; with `pdf`, figures
    are also written as PDF. Progress is shown on `console`. The same arguments give the same bytes,
    whatever was there: a figure that an earlier report drew from the same input is kept. Raises
    `UserError`, before anything is written, if rows are not comparable or lack what `paper` asks
    for. If a figure fails, the others are drawn.
    """
    data = prepare(rows)
    inverted = prepare_inversions(inversions, rows) if inversions else None
    numbers = read_published(published) if published is not None else ()
    found = Findings(
        data,
        compare(data),
        headline_differences(data),
        make_yardsticks(data),
        inverted,
        match_lines(data),
    )
    plans = (
        [*plan_figures(data, numbers), *plan_comparison(data, found.lines)],
        list(plan_yardsticks(data)),
        list(plan_grids(inverted)) if inverted else [],
    )
    document = make_document(found, note, *plans)
    short = paper_document(data, found.tables, paper)
    write_text(out / "paper.md", markdown(short))
    write_text(out / "paper.tex", tex(short, "paper"))
    for path in out.glob("tables-*.md"):
        if path.name not in document.datasets:
            path.unlink()
    for name, part in document.datasets.items():
        write_text(out / name, markdown(part, Form.DATASET))
    md_path = write_text(out / "tables.md", markdown(document))
    tex_path = write_text(out / "tables.tex", tex(document))
    for name, frame in _frames(found).items():
        if frame is None:
            (out / name).unlink(missing_ok=True)
        else:
            write_text(out / name, csv_text(frame))
    kinds: tuple[FileKind, ...] = ("png", "pdf") if pdf else ("png",)
    drawn = DrawnFigures(out, kinds)
    problems: dict[str, str] = {}
    figures: list[Path] = []
    with Bar("figures", sum(map(len, plans)), 0, console) as bar:
        for plan in chain(*plans):
            try:
                files = drawn.files(plan)
                if not files:
                    files = draw(plan, out / "figures", kinds)
                    drawn.add(plan, files)
                figures += files
            except Exception as error:  # The tables are more important than any figure.
                why = explain_failure(error) or f"{type(error).__name__}: {error}"
                problems[plan.name] = f"Figure {plan.name} failed: {why}"
            bar.update(bar.done + 1, plan.name)
    # Figures of an older report would look like part of this one.
    old = _figures_of(out / "index.html") - set(figures)
    sizes = {path.stem: size for path in figures if (size := png_size(path)) is not None}
    page = html(document, problems, pdf, explorer(data, found.lines), sizes)
    page_path = write_text(out / "index.html", page)
    drawn.forget_others(plan.name for plan in chain(*plans) if plan.name not in problems)
    for path in old:
        path.unlink(missing_ok=True)
    return ReportPaths(
        summary=out / "summary.csv",
        markdown=md_path,
        tex=tex_path,
        page=page_path,
        figures=tuple(figures),
        problems=tuple(problems.values()),
    )


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


def draw(plan: Plan, folder: Path, kinds: Sequence[FileKind]) -> list[Path]:
    """Draw a figure and write its files below `folder`."""
    from bench.report.figures.style import look, render

    with look():
        figure = plan.draw()
        files = {kind: render(figure, kind) for kind in kinds}
    return [write_bytes(folder / f"{plan.name}.{kind}", content) for kind, content in files.items()]


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
