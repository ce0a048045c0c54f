"""Stored samples: which of them a figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from bench.experiment.rows import Preview
from bench.report.numbers.frame import Data, Series

RULE_SCALES = (1.0, 4.0, 7.0, 13.0)
P = TypeVar("P", bound=Preview)


def pick(items: Sequence[float], most: int) -> list[float]:
    """At most `most` items, evenly spread, the first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, most)]


def previews(data: Data, series: Series, kind: type[P]) -> dict[float, P]:
    """The preview of every guidance scale that has one, from the lowest seed that has it."""
    found: dict[float, P] = {}
    for row in data.rows_of(series):
        if row.status == "ok" and isinstance(row.preview, kind):
            found.setdefault(row.guidance, row.preview)
    return dict(sorted(found.items()))


def trouble(data: Data, series: Series, guidance: float) -> str:
    """Why a line has no samples at a guidance scale, '' if no row states a reason."""
    for row in data.rows_of(series, guidance):
        if row.status != "ok":
            return row.reason if row.status == "skip" else f"{row.status}: {row.reason}"
    return ""


def chosen_scales(scales: Sequence[float]) -> list[float]:
    """1, 4, 7 and 13 if most of them were run, else four evenly spread scales."""
    found = [g for g in RULE_SCALES if g in scales]
    return found if len(found) >= min(3, len(scales)) else pick(list(scales), len(RULE_SCALES))
