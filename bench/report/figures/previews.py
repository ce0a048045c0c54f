"""Which of the stored samples a figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from bench.experiment.rows import Preview
from bench.report.numbers.frame import Data, Series

P = TypeVar("P", bound=Preview)


def pick(items: Sequence[float], most: int) -> list[float]:
    """At most `most` items, evenly spread, the first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, most)]


def previews(data: Data, series: Series, kind: type[P]) -> dict[float, P]:
    """Return the preview of every guidance scale that has one, of the lowest seeds that have it."""
    found: dict[float, P] = {}
    for row in data.rows_of(series):
        if row.status == "ok" and isinstance(row.preview, kind):
            found.setdefault(row.guidance, row.preview)
    return dict(sorted(found.items()))


def trouble(data: Data, series: Series, guidance: float) -> str:
    """Why a line has no samples at a guidance scale, '' where nothing is known."""
    rows = [row for row in data.rows_of(series, guidance) if row.status != "ok"]
    if not rows:
        return ""
    return rows[0].reason if rows[0].status == "skip" else f"{rows[0].status}: {rows[0].reason}"
