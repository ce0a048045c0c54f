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


def look(series: Series) -> tuple[str, str, str]:
    """The colour, marker and dashes of a line.

    Methods have theirs by place in their order, rules by name, so they look alike in all reports.
    """
    if series.rule:
        colour, mark = _number(series.rule), _number(f"{series.method} + {series.rule}")
        return COLOURS[colour % len(COLOURS)], MARKS[mark % len(MARKS)], "4 2"
    known = series.method in METHODS
    place = METHODS.index(series.method) if known else _number(series.method)
    size = series.steps.bit_length() - 1 if series.steps else 0
    sign = MARKS[(place + 3 * (size == 1)) % len(MARKS)]
    return COLOURS[place % len(COLOURS)], sign, DASHES[place % len(DASHES)]


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
