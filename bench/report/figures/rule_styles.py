"""Colours and markers of guidance rules, the same in every report, and short names of lines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

from bench.report.figures.style import MethodStyle, method_styles, palette
from bench.report.numbers.frame import Data, Series

# Of seaborn's "colorblind" palette, without its grey and its pale yellow and pink.
_COLOURS = (0, 1, 2, 3, 4, 5, 9)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")


def rule_styles(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MethodStyle]:
    """The style of every (method, rule): a colour by the rule, a marker by both.

    Both follow from names, so that a rule looks alike in all reports; a marker that is taken in
    its colour moves on, in the order of names.
    """
    colours = palette()
    styles: dict[tuple[str, str], MethodStyle] = {}
    taken: set[tuple[int, int]] = set()
    for method, rule in sorted(set(pairs)):
        colour = _COLOURS[_number(rule) % len(_COLOURS)]
        marker = _number(f"{method} + {rule}") % len(_MARKERS)
        for _ in _MARKERS:
            if (colour, marker) not in taken:
                break
            marker = (marker + 1) % len(_MARKERS)
        taken.add((colour, marker))
        styles[method, rule] = MethodStyle(colours[colour], _MARKERS[marker], "-")
    return styles


def line_styles(data: Data) -> dict[Series, MethodStyle]:
    """The style of every line: its rule's, under CFG or without a rule its method's."""
    lines = [s for dataset in data.datasets for s in data.series(dataset)]
    methods = method_styles(data.methods)
    rules = rule_styles((s.method, s.rule) for s in lines if s.rule)
    return {
        s: rules[s.method, s.rule] if s.rule else _varied(methods[s.method], data.variant(s))
        for s in lines
    }


def _varied(style: MethodStyle, variant: int) -> MethodStyle:
    """The style with another marker for further numbers of steps or runs of a method."""
    if variant == 0:
        return style
    others = [marker for marker in _MARKERS if marker != style.marker]
    return replace(style, marker=others[(2 * variant) % len(others)])


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def short_name(data: Data, series: Series) -> str:
    """The label of a line, without steps where its method has one number of them."""
    steps = {s.steps for s in data.series(series.dataset) if s.method == series.method}
    return series.label if len(steps) > 1 else re.sub(r", \d+ steps?$", "", series.label)
