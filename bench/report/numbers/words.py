"""Sentences on rows, values and their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Data
from metrics.about import About, ErrorOf

MINIMUM = (
    "EDM and its successors report the minimum over sampling seeds of one checkpoint. It is below "
    "the mean only by chance and is shown for comparison with their numbers."
)
BOLD = (
    "Bold: the best of a column and every method whose paired difference from it is not "
    "significant at 5%."
)
READING = (
    "Guidance is g, 1 = off. ↓: lower is better, ↑: higher is better; the best of a column is "
    "bold, an empty cell was not run. ± is one standard error. NFE: network evaluations per image."
)
COUNTED: dict[ErrorOf, str] = {
    "given reference": "conditional on the reference set",
    "generated": "counting the sampling of the generated set",
    "real": "counting the sampling of the real set, conditional on the generated samples",
    "both": "counting the sampling of both sets",
}
"""What a standard error covers."""


def title(data: Data) -> str:
    """The heading of the page and of the tables."""
    return f"Results of {', '.join(sorted({row.experiment for row in data.rows}))}"


def left_out(data: Data) -> list[str]:
    """How many rows do not count, and why."""
    reasons = (
        (data.stale, "of older checkpoints left out: the runs were trained again."),
        (data.outdated, "of older code left out. Run the same sweep again to fill empty cells."),
        (data.superseded, "left out: their cells were run again."),
    )
    return [f"{count} row{'' if count == 1 else 's'} {why}" for count, why in reasons if count]


def unmeasured(data: Data) -> list[str]:
    """Why data sets have no values, for each data set without any."""
    measured = {column.dataset for column in data.columns}
    lines = []
    for dataset in data.datasets:
        if dataset not in measured:
            rows = [row for row in data.rows if row.dataset == dataset]
            reasons = dict.fromkeys(f"{r.method}: {r.status}, {r.reason}" for r in rows)
            lines.append(f"Nothing was measured on {dataset} ({'; '.join(reasons)}).")
    return lines


def not_measured(data: Data, dataset: str) -> list[str]:
    """Why cells of a data set have no value of some measures."""
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
    """Footnotes on the errors of a table; `count` is the common number of blocks, else 0."""
    notes = []
    for unit in sorted({c.unit for c in cells if len(c.blocks) > 1}):
        over = f"{count} {unit}" if count > 1 else f"{unit} (their number is in brackets)"
        notes.append(
            f"± is the standard error over {over}: standard deviation / sqrt(number). 95% "
            "intervals are by Student's t."
        )
    single = [c.estimate for c in cells if len(c.blocks) == 1]
    for method in sorted({e.se_method for e in single if e.se is not None}):
        notes.append(
            f"± of a single run is its standard error ({method}), {COUNTED[about.error_of]}."
        )
    if any(e.se == 0.0 and e.low != e.high for e in single):
        notes.append("≤ and ≥ give the end of the 95% interval of a share of 0 or 1.")
    return notes


def numbers(values: Iterable[float]) -> str:
    """Numbers in ascending order; an even progression as its first two and its last."""
    ordered = sorted(set(values))
    steps = {round(b - a, 9) for a, b in pairwise(ordered)}
    if len(ordered) > 3 and len(steps) == 1:
        return f"{ordered[0]:g}, {ordered[1]:g}, …, {ordered[-1]:g}"
    return ", ".join(f"{v:g}" for v in ordered)
