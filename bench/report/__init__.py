"""The report: tables, figures and a page, a pure function of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.figures.comparison_figures import plan_comparison
from bench.report.figures.figures import Plan, plan_figures
from bench.report.figures.style import look, render
from bench.report.figures.yardstick_figure import plan_yardsticks
from bench.report.numbers.comparison import compare, comparison_frames
from bench.report.numbers.frame import prepare
from bench.report.numbers.inversions import prepare_inversions
from bench.report.numbers.pairs import difference_frame, headline_differences
from bench.report.numbers.published import read_published
from bench.report.numbers.summary import provenance, summary
from bench.report.numbers.words import left_out, not_measured, reading, title, unmeasured
from bench.report.numbers.yardstick import make_yardsticks, yardstick_frame
from bench.report.pages.comparison_section import (
    markdown_openings,
    markdown_rankings,
    page_openings,
    page_rankings,
    tex_comparison,
)
from bench.report.pages.inversion_section import (
    edit_summary,
    inversion_summary,
    markdown_section,
    page_section,
    plan_grids,
    tex_section,
)
from bench.report.pages.page import Picture, page
from bench.report.pages.spreadsheet import csv_text
from bench.report.pages.tables import make_table, markdown
from bench.report.pages.tex import tex
from bench.report.pages.yardstick_section import yardstick_html, yardstick_markdown, yardstick_tex
from bench.system.failures import explain_failure
from bench.system.files import read_whole, write_bytes, write_text
from bench.system.progress import Bar


@dataclass(frozen=True)
class ReportPaths:
    """What a report consists of; `problems` has a sentence for every figure that failed."""

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
    console: Console | None = None,
) -> ReportPaths:
    """Write the report of `rows` below `out`, replacing an older one file by file.

    `published` is a CSV of published numbers to draw in grey, `note` facts to state on the page;
    `inversions` adds a section of its own and changes nothing else. Figures take most of the time:
    their number is shown on `console`.
    The same arguments give the same bytes. Raises `UserError`, before anything is written, if
    rows are not comparable; a figure that fails costs that figure alone.
    """
    data = prepare(rows)
    inverted = prepare_inversions(inversions, rows) if inversions else None
    numbers = read_published(published) if published is not None else ()
    tables = [make_table(data, column) for column in data.columns]
    yardsticks = make_yardsticks(data)
    lacking = [line for dataset in data.datasets for line in not_measured(data, dataset)]
    head = [title(data), reading(), *left_out(data), *unmeasured(data), *lacking]
    summary_path = write_text(out / "summary.csv", csv_text(summary(data.rows)))
    lines = compare(data)
    md_path = write_text(
        out / "tables.md",
        markdown(tables, head, markdown_openings(data, lines), markdown_rankings(lines))
        + yardstick_markdown(yardsticks)
        + (markdown_section(inverted) if inverted else ""),
    )
    tex_path = write_text(
        out / "tables.tex",
        tex(tables, head)
        + tex_comparison(lines)
        + yardstick_tex(yardsticks)
        + (tex_section(inverted) if inverted else ""),
    )
    compared = headline_differences(data)
    more = {
        "provenance.csv": provenance(data.rows),
        **comparison_frames(lines),
        "differences.csv": difference_frame(compared.items()) if compared else None,
        "yardstick.csv": yardstick_frame(yardsticks) if yardsticks else None,
        "inversions.csv": inversion_summary(inverted) if inverted else None,
        "edits.csv": edit_summary(inverted) if inverted else None,
    }
    for name, frame in more.items():
        if frame is None:
            (out / name).unlink(missing_ok=True)
        else:
            write_text(out / name, csv_text(frame))

    plans = [*plan_figures(data, numbers), *plan_comparison(data, lines)]
    exact = list(plan_yardsticks(data))
    edits = list(plan_grids(inverted)) if inverted else []
    with Bar("figures", len(plans) + len(exact) + len(edits), 0, console) as bar:
        pictures, figures = _draw(plans, out, bar)
        measured, own = _draw(exact, out, bar)
        grids, extra = _draw(edits, out, bar)
    figures += own + extra

    old = _figures_of(out / "index.html")
    sections = yardstick_html(yardsticks, measured)
    sections += [page_section(inverted, grids)] if inverted else []
    before, after = page_openings(data, lines), page_rankings(lines)
    page_path = write_text(
        out / "index.html", page(data, tables, pictures, note, sections, before, after)
    )
    for path in old - set(figures):
        path.unlink(missing_ok=True)
    return ReportPaths(
        summary=summary_path,
        markdown=md_path,
        tex=tex_path,
        page=page_path,
        figures=tuple(figures),
        problems=tuple(p.problem for p in (*pictures, *measured, *grids) if p.problem),
    )


def _draw(plans: Iterable[Plan], out: Path, bar: Bar) -> tuple[list[Picture], list[Path]]:
    """Draw and write figures; one that fails costs itself alone."""
    pictures: list[Picture] = []
    figures: list[Path] = []
    for plan in plans:
        problem = ""
        try:
            with look():
                files = render(plan.draw())
            written = [
                write_bytes(out / "figures" / f"{plan.name}.{kind}", content)
                for kind, content in zip(("png", "pdf"), files, strict=True)
            ]
        except Exception as error:  # Whatever goes wrong in a drawing, the numbers must come out.
            why = explain_failure(error) or f"{type(error).__name__}: {error}"
            problem = f"Figure {plan.name} failed: {why}"
        else:
            figures += written
        pictures.append(Picture(plan, problem))
        bar.update(bar.done + 1, plan.name)
    return pictures, figures


def _figures_of(page_path: Path) -> set[Path]:
    """Return the figures of the report that is replaced: those it no longer has would mislead."""
    try:
        text = read_whole(page_path).decode("utf-8", "replace")
    except FileNotFoundError:
        return set()
    found = re.findall(r'"figures/([\w.-]+\.(?:png|pdf))"', text)
    return {page_path.parent / "figures" / name for name in found}
