"""Write the comparison of two experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.experiment.rows import Row
from bench.report.build import csv_text
from bench.report.numbers.against import against_frame, compare_experiments
from bench.report.numbers.frame import prepare
from bench.report.numbers.names import slug
from bench.report.pages.against import against_document
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.system.errors import UserError
from bench.system.files import write_text


def write_against(
    rows: Sequence[Row], others: Sequence[Row], out: Path, names: tuple[str, str]
) -> Path:
    """Write the differences of `rows` from those of another experiment; returns the page.

    `names` are those of both experiments. The page against-OTHER.html is next to the same tables
    as .md and .csv. Raises `UserError`, before anything is written, if the rows of one of the two
    are not comparable or if the two have no measured cell in common.
    """
    ours, theirs = prepare(rows), prepare(others)
    found = compare_experiments(ours, theirs)
    if not found.changes and not found.skipped:
        raise UserError(f"{names[0]} and {names[1]} have no measured cell in common.")
    stem = f"against-{slug(names[1])}"
    document = against_document(ours, theirs, names, found, f"{stem}.csv")
    write_text(out / f"{stem}.csv", csv_text(against_frame(found)))
    write_text(out / f"{stem}.md", markdown(document))
    return write_text(out / f"{stem}.html", html(document, {}))
