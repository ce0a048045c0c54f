"""Checks on a training: finite numbers, and a loss that neither explodes nor stays constant.

Checks depend on steps only, never on when the log is read, so that a training that was stopped and
resumed is judged like one that was not.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Literal, cast, get_args

from torch import Tensor

from bench.system.errors import UserError, unknown
from bench.training.checkpoint import last_good

OnNan = Literal["stop", "rollback"]

BLOCK = 10
"""Steps per mean of the loss."""
WINDOW = 50
"""Earlier blocks, with whose median a block is compared."""
ENOUGH = 10
"""Earlier blocks needed to know the usual loss, for example after a log was removed."""
FIRST = 200
"""Steps in which nothing counts as an explosion, since losses of new networks vary."""
FACTOR = 1000.0
"""A block above this many times the median is an explosion.

Losses of consistency distillation may rise by two orders of magnitude and recover; those that do
not recover exceed this within a few blocks.
"""
STILL = 100
"""Steps after which a loss that is bit for bit the same counts as constant."""


class Unstable(UserError):
    """Training failed; `what` names the problem and the step."""

    def __init__(self, what: str, folder: Path) -> None:
        super().__init__(
            f"{what}; training stopped, {last_good(folder)}. A smaller --set train.lr=... is the "
            "usual cure; --on-nan rollback resumes from it with other random draws."
        )
        self.what = what


class Stopped(UserError):
    """Training was asked to stop and has written its checkpoint."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=130)


class Watch:
    """Checks the loss terms of every step, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: deque[float] = deque(maxlen=WINDOW + 1)
        self._block: list[float] = []
        self._last: dict[str, float] = {}
        self._still = 0

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Add a step's mean terms, finite numbers; raises `Unstable` for a failed training."""
        self._note(step, terms)
        if self._still >= STILL:
            raise Unstable(
                f"The loss did not change in any bit for {STILL} steps up to step {step}, so that "
                "nothing is learnt",
                self.folder,
            )
        if (step + 1) % BLOCK:
            return
        *before, mean = self._blocks
        usual = median(map(abs, before)) if len(before) >= ENOUGH else 0.0
        if step >= FIRST and usual > 0 and mean > FACTOR * usual:
            raise Unstable(
                f"The loss exploded to {mean:.4g} in the {BLOCK} steps up to step {step}, where "
                f"{usual:.4g} was usual",
                self.folder,
            )

    def recall(self, log: Path, first: int) -> None:
        """Recall the steps before `first` in a log, which were checked when they were written.

        Damaged lines are skipped.
        """
        recent: deque[tuple[int, dict[str, float]]] = deque(maxlen=BLOCK * (WINDOW + 1) + STILL)
        try:
            with log.open(encoding="utf-8", errors="replace") as file:
                recent.extend(e for e in map(logged, file) if e is not None and e[0] < first)
        except OSError:
            return
        for step, terms in recent:
            self._note(step, terms)

    def _note(self, step: int, terms: Mapping[str, float]) -> None:
        same = all(self._last.get(name) == value for name, value in terms.items())
        self._still = self._still + 1 if same else 0
        self._last.update(terms)
        self._block.append(sum(terms.values()))
        if (step + 1) % BLOCK == 0:
            self._blocks.append(fmean(self._block))
            self._block.clear()


def check_finite(
    name: str, when: str, tensors: Mapping[str, Tensor], folder: Path, what: str = "weights"
) -> None:
    """Raise `Unstable` unless all tensors of run `name` are finite; `when` names the step."""
    bad = [key for key, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise Unstable(f"{name}: the {what} {bad[0]} are not finite after {when}", folder)


def logged(line: str) -> tuple[int, dict[str, float]] | None:
    """Step and terms of a line of a log; None if the line is damaged."""
    try:
        record = json.loads(line)
        step, terms = record["step"], dict(record["terms"])
        usual = isinstance(step, int) and all(math.isfinite(value) for value in terms.values())
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return (step, terms) if usual else None


def parse_on_nan(text: str) -> OnNan:
    """The value of --on-nan; UserError with both choices for any other."""
    if text not in get_args(OnNan):
        raise unknown("choice of --on-nan", text, get_args(OnNan))
    return cast(OnNan, text)
