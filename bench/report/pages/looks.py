"""Colour, marker and dash of a line in the interactive part of the page."""

from __future__ import annotations

import hashlib

from bench.report.numbers.frame import Series
from bench.report.numbers.names import METHODS

COLOURS = (
    *("#6a3d9a", "#0b62a8", "#0a7a5a", "#b8430f", "#8a6d00", "#a3268b", "#2b7f9e", "#7d4b2e"),
    "#5b6470",
)
"""Contrast on white is at least 3:1; the page makes them lighter on black."""
MARKS = ("diamond", "circle", "square", "triangle", "down", "cross", "plus", "star", "bar")
DASHES = ("2 3", "", "8 3 2 3", "10 3", "6 2", "10 2 2 2 2 2", "5 3 1 3", "1 4", "3 3")


def look(series: Series, variant: int) -> tuple[str, str, str]:
    """The colour, marker and dashes of a line; `variant` is its place among those of its name.

    Methods have theirs by place in their order, rules by name, so they look alike in all reports.
    """
    if series.rule:
        colour, mark, dash = _number(series.rule), _number(f"{series.method} {series.rule}"), "4 2"
    else:
        known = series.method in METHODS
        colour = mark = METHODS.index(series.method) if known else _number(series.method)
        dash = DASHES[colour % len(DASHES)]
    return COLOURS[colour % len(COLOURS)], MARKS[(mark + 3 * variant) % len(MARKS)], dash


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
