"""The report: tables, figures and a page, a pure function of the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench.files import write_bytes, write_text
from bench.report.figures import plan_figures
from bench.report.frame import prepare
from bench.report.page import Picture, page
from bench.report.published import read_published
from bench.report.style import look, render
from bench.report.summary import summary
from bench.report.tables import make_table, markdown
from bench.report.tex import tex
from bench.report.words import left_out, reading, title, unmeasured
from bench.store import Row


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
) -> ReportPaths:
    """Write the report of `rows` below `out`, replacing an older one file by file.

    `published` is a CSV of published numbers to draw in grey, `note` facts to state on the page.
    The same arguments give the same bytes. Raises `UserError`, before anything is written, if
    rows are not comparable; a figure that fails costs that figure alone.
    """
    data = prepare(rows)
    numbers = read_published(published) if published is not None else ()
    tables = [make_table(data, column) for column in data.columns]
    head = [title(data), reading(), *left_out(data), *unmeasured(data)]
    summary_path = write_text(
        out / "summary.csv", summary(data.rows).to_csv(index=False, lineterminator="\n")
    )
    md_path = write_text(out / "tables.md", markdown(tables, head))
    tex_path = write_text(out / "tables.tex", tex(tables, head))

    pictures: list[Picture] = []
    figures: list[Path] = []
    for plan in plan_figures(data, numbers):
        problem = ""
        try:
            with look():
                files = render(plan.draw())
        except Exception as error:  # Whatever goes wrong in a drawing, the numbers must come out.
            problem = f"Figure {plan.name} failed: {type(error).__name__}: {error}"
        else:
            figures += [
                write_bytes(out / "figures" / f"{plan.name}.{kind}", content)
                for kind, content in zip(("png", "pdf"), files, strict=True)
            ]
        pictures.append(Picture(plan, problem))

    old = _figures_of(out / "index.html")
    page_path = write_text(out / "index.html", page(data, tables, pictures, note))
    for path in old - set(figures):
        path.unlink(missing_ok=True)
    return ReportPaths(
        summary=summary_path,
        markdown=md_path,
        tex=tex_path,
        page=page_path,
        figures=tuple(figures),
        problems=tuple(p.problem for p in pictures if p.problem),
    )


def _figures_of(page_path: Path) -> set[Path]:
    """Return the figures of the report that is replaced: those it no longer has would mislead."""
    if not page_path.exists():
        return set()
    found = re.findall(r'"figures/([\w.-]+\.(?:png|pdf))"', page_path.read_text(encoding="utf-8"))
    return {page_path.parent / "figures" / name for name in found}
