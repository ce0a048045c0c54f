"""Sentences that more than one form of the report uses."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from bench.report.frame import Data


def title(data: Data) -> str:
    """Return the heading of the page and of the tables."""
    return f"Results of {', '.join(sorted({row.experiment for row in data.rows}))}"


def reading() -> str:
    """How to read the tables."""
    return (
        "Guidance is g, 1 = off. ↓: lower is better, ↑: higher is better; the best of a column is "
        "bold, an empty cell was not run. NFE: network evaluations per image."
    )


def left_out(data: Data) -> list[str]:
    """Return what rows do not count, and why."""
    lines = []
    if data.stale:
        lines.append(f"{_rows(data.stale)} of older checkpoints left out: trained again since.")
    if data.superseded:
        lines.append(f"{_rows(data.superseded)} left out: their cells were run again since.")
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


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def numbers(values: Iterable[float]) -> str:
    """Numbers in ascending order; an even progression by its first two and its last."""
    ordered = sorted(set(values))
    steps = {round(b - a, 9) for a, b in pairwise(ordered)}
    if len(ordered) > 3 and len(steps) == 1:
        return f"{ordered[0]:g}, {ordered[1]:g}, …, {ordered[-1]:g}"
    return ", ".join(f"{v:g}" for v in ordered)
