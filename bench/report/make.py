"""Make the report of rows, unless it is there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.experiment.rows import Row
from bench.report.options import DEFAULT, ReportOptions
from bench.report.record import Record, ReportPaths, report_input

if TYPE_CHECKING:
    from rich.console import Console


def make_report(
    rows: Sequence[Row],
    out: Path,
    options: ReportOptions = DEFAULT,
    console: Console | None = None,
) -> ReportPaths:
    """`bench.report.build.write_report`, which is not called if nothing has changed.

    That is if `out` has the whole report of the same rows and options, by the same code.
    """
    if (kept := Record(out).kept_report(report_input(rows, options))) is not None:
        return kept
    from bench.report.build import write_report  # imports pandas and scipy

    return write_report(rows, out, options, console)
