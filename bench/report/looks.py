"""Colour, marker and dashes of every line, in figures and on the page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR

Dashes = tuple[float, ...]


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    `colour` is on white, `dark` on a dark page. `dashes` are lengths on, off, on, ... in widths of
    the line, () for a solid line. `size` numbers the lines of one method or rule that differ in
    steps or runs, which have larger markers and thicker lines.
    """

    colour: str
    dark: str
    mark: str
    dashes: Dashes
    size: int = 0


_BUILT_IN = {
    "oracle": Look("#7c5179", "#b2408c", "diamond", (1.0, 1.5)),
    "edm": Look("#348aff", "#8d82ff", "circle", ()),
    "ct": Look("#074303", "#d5f1a9", "square", (7.0, 2.0, 1.5, 2.0)),
    "igct": Look("#e76808", "#fb8105", "triangle", (6.0, 1.5)),
    "guided-cd": Look("#429ea5", "#18d0b7", "down", (3.0, 1.0, 1.0, 1.0)),
    "mg-ct": Look("#b28877", "#ec8779", "hexagon", (6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "mg": Look("#9c474f", "#c34e30", "plus", (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "gft": Look("#6f043f", "#d85e87", "cross", (1.0, 3.0)),
    "meanflow": Look("#5500f8", "#b4bdfa", "star", (3.0, 1.5)),
    "sct": Look("#ba4d23", "#a35659", "pentagon", (8.0, 2.0, 1.0, 2.0)),
    "tcm": Look("#0078af", "#326acf", "left", (2.0, 1.5)),
    "scd": Look("#192d82", "#a18dbd", "right", (4.0, 1.0, 4.0, 3.0)),
    "alpha-flow": Look("#bd6a8c", "#fe98af", "bow", (9.0, 1.5)),
    "imm": Look("#364ba9", "#e1e32c", "hourglass", (4.0, 1.0, 2.0, 1.0)),
}
"""Of `METHODS`. The colours were found by a search: with normal vision and without red or green
cones, they differ from each other, from black and from grey as much as they can."""
_NEXT = (
    Look("#0497c0", "#048771", "pentagon", (2.0, 3.0)),
    Look("#970728", "#c7ca6a", "left", (8.0, 3.0)),
    Look("#8e3054", "#fdd2f3", "right", (1.5, 1.0)),
)
"""Of further methods, in the order of their names."""
RULES = (
    ("#497aa8", "#dcdeff"),
    ("#473104", "#ffdcaa"),
    ("#707b4b", "#81856b"),
    ("#2c2651", "#8879b0"),
)
"""Muted, so that no rule looks like a method: on white and on a dark page."""
CLASSES = (
    ("#2692fe", "#89eeff"),
    ("#b58a3e", "#93703a"),
    ("#3a4501", "#dbf353"),
    ("#33039e", "#6f5ef8"),
)
"""Of classes of toy data, on white and on a dark page."""
RULE_MARKS = (
    "diamond", "circle", "square", "triangle", "down", "hexagon", "plus", "cross", "star",
    "pentagon", "left", "right",
)  # fmt: skip
"""Of rules: their number decides which rule has which."""


def method_looks(methods: Iterable[str]) -> dict[str, Look]:
    """The look of every method: fixed for built-in ones, for others by the order of names."""
    looks = dict(_BUILT_IN)
    for i, name in enumerate(sorted(set(methods) - {*_BUILT_IN, FLOOR})):
        known = _NEXT[i % len(_NEXT)]
        looks[name] = replace(known, dashes=_NEXT[(i + i // len(_NEXT)) % len(_NEXT)].dashes)
    return looks


def line_looks(data: Data) -> dict[Series, Look]:
    """The look of every line.

    A line of a rule has the dashes of its method, a colour by the rule's name and a marker by the
    names of both, so that it looks alike in all reports. If a marker is taken in its colour, the
    next free one is used, in the order of names.
    """
    lines = [s for dataset in data.datasets for s in data.series(dataset)]
    methods = method_looks(s.method for s in lines)
    rules: dict[tuple[str, str], tuple[int, int]] = {}
    for rule, method in sorted({(s.rule, s.method) for s in lines if s.rule}):
        colour, mark = _number(rule) % len(RULES), _number(f"{method} + {rule}") % len(RULE_MARKS)
        for _ in RULE_MARKS:
            if (colour, mark) not in rules.values():
                break
            mark = (mark + 1) % len(RULE_MARKS)
        rules[method, rule] = colour, mark
    looks = {}
    for s in lines:
        look = methods[s.method]
        if s.rule:
            colour, mark = rules[s.method, s.rule]
            look = Look(*RULES[colour], RULE_MARKS[mark], look.dashes)
        looks[s] = replace(look, size=data.variant(s))
    return looks


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
