"""Sentences that more than one form of the report uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Data
from metrics.about import About, ErrorOf

MINIMUM = (
    "The minimum over sampling seeds of one checkpoint is what EDM and its successors report; it "
    "lies below the mean by chance alone and is for comparison with theirs."
)
BOLD = (
    "Bold: the best of a column and every method whose paired difference from it is not "
    "significant at 5%."
)
DIFFERENCES = "Paired differences at the same seeds"
COMPARED = (
    "Method less the best of its column, at the same sampling seeds, hence noise and labels, "
    "± the jackknife's standard error of that difference, for these weights. "
    "*: significant at 5% (more than 1.96 standard errors), not corrected for many comparisons."
)
COUNTED: dict[ErrorOf, str] = {
    "given reference": "conditional on the reference set",
    "generated": "counting the sampling of the generated set",
    "real": "counting the sampling of the real set, conditional on the generated samples",
    "both": "counting the sampling of both sets",
}
"""What a standard error counts and what it takes for granted."""


def title(data: Data) -> str:
    """Return the heading of the page and of the tables."""
    return f"Results of {', '.join(sorted({row.experiment for row in data.rows}))}"


def reading() -> str:
    """How to read the tables."""
    return (
        "Guidance is g, 1 = off. ↓: lower is better, ↑: higher is better; the best of a column is "
        "bold, an empty cell was not run. ± is one standard error. NFE: network evaluations per "
        "image."
    )


def left_out(data: Data) -> list[str]:
    """Return what rows do not count, and why."""
    lines = []
    if data.stale:
        lines.append(f"{_rows(data.stale)} of older checkpoints left out: trained again since.")
    if data.outdated:
        lines.append(
            f"{_rows(data.outdated)} of older code left out; where a cell is empty for that, the "
            "same sweep fills it."
        )
    if data.superseded:
        lines.append(f"{_rows(data.superseded)} left out whose cells were run again since.")
    return lines


def unmeasured(data: Data) -> list[str]:
    """Say of each data set without a single value why there is none."""
    measured = {column.dataset for column in data.columns}
    lines = []
    for dataset in data.datasets:
        if dataset not in measured:
            rows = [row for row in data.rows if row.dataset == dataset]
            reasons = dict.fromkeys(f"{r.method}: {r.status}, {r.reason}" for r in rows)
            lines.append(f"Nothing was measured on {dataset} ({'; '.join(reasons)}).")
    return lines


def not_measured(data: Data, dataset: str) -> list[str]:
    """Say of every measure that cells of a data set lack why they do."""
    rows = [row for row in data.rows if row.dataset == dataset and row.status == "ok"]
    sizes = {row.n for row in rows}
    reasons: dict[str, set[int]] = {}
    for row in rows:
        for reason in row.unmeasured.values():
            reasons.setdefault(reason, set()).add(row.n)
    return [
        f"Not measured on {dataset}: {reason}"
        + ("." if found == sizes else f" (n = {numbers(found)}).")
        for reason, found in sorted(reasons.items())
    ]


def error_notes(about: About, cells: Sequence[Cell], count: int) -> list[str]:
    """Footnotes on how the errors of a table were obtained; `count` as in the table's cells."""
    notes = []
    for unit in sorted({c.unit for c in cells if len(c.blocks) > 1}):
        over = f"{count} {unit}" if count > 1 else f"{unit}, their number behind"
        notes.append(
            f"± is the standard error over {over}: the standard deviation over the root of their "
            "number; intervals of 95% are by Student's t."
        )
    single = [c.estimate for c in cells if len(c.blocks) == 1]
    for method in sorted({e.se_method for e in single if e.se is not None}):
        notes.append(
            f"± of a single run is its standard error ({method}), {COUNTED[about.error_of]}."
        )
    if any(e.se == 0.0 and e.low != e.high for e in single):
        notes.append("≤ and ≥ give the end of the 95% interval of a share of 0 or 1.")
    return notes


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def numbers(values: Iterable[float]) -> str:
    """Numbers in ascending order; an even progression by its first two and its last."""
    ordered = sorted(set(values))
    steps = {round(b - a, 9) for a, b in pairwise(ordered)}
    if len(ordered) > 3 and len(steps) == 1:
        return f"{ordered[0]:g}, {ordered[1]:g}, …, {ordered[-1]:g}"
    return ", ".join(f"{v:g}" for v in ordered)
