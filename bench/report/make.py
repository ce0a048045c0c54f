"""Make the report of rows, unless it is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.options import DEFAULT, PaperOptions
from bench.report.record import Record, ReportPaths, report_input

if TYPE_CHECKING:
    from rich.console import Console


def make_report(
    rows: Sequence[Row],
    out: Path,
    *,
    published: Path | None,
    note: Mapping[str, str] = MappingProxyType({}),
    inversions: Sequence[InversionRow] = (),
    paper: PaperOptions = DEFAULT,
    pdf: bool = False,
    all_figures: bool = False,
    x: str = "g",
    console: Console | None = None,
) -> ReportPaths:
    """`bench.report.build.write_report`, which is not called if nothing has changed.

    That is if `out` has the whole report of the same arguments, by the same code.
    """
    made_from = report_input(rows, published, note, inversions, paper, pdf, all_figures, x)
    if (kept := Record(out).kept_report(made_from)) is not None:
        return kept
    from bench.report.build import write_report  # imports pandas and scipy

    return write_report(
        rows, out, published=published, note=note, inversions=inversions, paper=paper, pdf=pdf,
        all_figures=all_figures, x=x, console=console,
    )  # fmt: skip
