"""Names and numbers in text: the order of methods, names of files, lists of numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise

FLOOR = "real"
"""The method of rows that measure real samples like generated ones."""
FLOOR_LABEL = "real vs. real (floor)"
METHODS = (
    "oracle", "edm", "mg", "gft", "ct", "sct", "tcm", "igct", "mg-ct", "guided-cd", "scd",
    "meanflow", "alpha-flow", "imm",
)  # fmt: skip
"""Built-in methods in the order of tables and legends: many steps first, then few."""


def method_order(method: str) -> tuple[int, str]:
    """Sort key of methods: the built-in ones first, then plugins by name, the floor last."""
    if method == FLOOR:
        return (len(METHODS) + 1, method)
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def slug(*parts: str) -> str:
    """A file name from untrusted names; a part that must be altered gets a hash."""

    def safe(part: str) -> str:
        # Lower case, since some file systems ignore case.
        kept = re.sub(r"[^a-z0-9._]+", "-", part.lower()).strip("-.")[:60]
        if kept == part:
            return kept
        return f"{kept}-{hashlib.sha256(part.encode()).hexdigest()[:6]}".lstrip("-")

    return "-".join(safe(part) for part in parts if part)


def numbers(values: Iterable[float]) -> str:
    """Numbers in ascending order; an even progression as its first two and its last."""
    ordered = sorted(set(values))
    steps = {round(b - a, 9) for a, b in pairwise(ordered)}
    if len(ordered) > 3 and len(steps) == 1:
        return f"{ordered[0]:g}, {ordered[1]:g}, …, {ordered[-1]:g}"
    return ", ".join(f"{v:g}" for v in ordered)
