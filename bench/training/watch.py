"""Whether a training still is one: finite numbers, a loss that neither explodes nor stands still.

What counts as an explosion or a standstill is decided by steps alone, never by when the log is
looked at, so that a training that is stopped and resumed is judged like one that never stopped.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Literal

from torch import Tensor

from bench.system.errors import UserError, unknown
from bench.training.checkpoint import last_good

OnNan = Literal["stop", "rollback"]

BLOCK = 10
"""Steps whose mean loss is looked at together."""
WINDOW = 50
"""Blocks before, whose median a block is compared with."""
ENOUGH = 10
"""Blocks before, without which nothing is known of the usual loss, as after a log was removed."""
FIRST = 200
"""Steps in which nothing counts as an explosion: losses of fresh networks find their size first."""
FACTOR = 1000.0
"""Times the median from which on a block is an explosion.

Losses of consistency distillation rise by two orders of magnitude and come back by themselves;
those that never come back pass this within a few blocks.
"""
STILL = 100
"""Steps after which a loss that is the same number, to the last bit, counts as constant."""


class Unstable(UserError):
    """Training has come to numbers from which it does not go on; `what` says to which, and when."""

    def __init__(self, what: str, folder: Path) -> None:
        super().__init__(
            f"{what}; training stopped, {last_good(folder)}. A smaller --set train.lr=... is the "
            "usual cure; --on-nan rollback resumes from it with other random draws."
        )
        self.what = what


class Watch:
    """Looks at the terms of every step, in order, and raises `Unstable` at one that is too much."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: deque[float] = deque(maxlen=WINDOW + 1)
        self._block: list[float] = []
        self._last: dict[str, float] = {}
        self._still = 0

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Take in the means of a step's terms, finite numbers."""
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
        """Take in the steps before `first` that a log holds, which were judged when they were made.

        Lines that are not one are passed over; without a log nothing is known to compare with.
        """
        recent: deque[tuple[int, dict[str, float]]] = deque(maxlen=BLOCK * (WINDOW + 1) + STILL)
        try:
            with log.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    known = _logged(line)
                    if known is not None and known[0] < first:
                        recent.append(known)
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
    """`Unstable` unless all weights of run `name` are finite; `when` says after what."""
    bad = [key for key, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise Unstable(f"{name}: the {what} {bad[0]} are not finite after {when}", folder)


def _logged(line: str) -> tuple[int, dict[str, float]] | None:
    """Step and terms of a line of a log; None if it is none, whoever wrote it."""
    try:
        record = json.loads(line)
        step, terms = record["step"], dict(record["terms"])
        usual = isinstance(step, int) and all(math.isfinite(value) for value in terms.values())
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return (step, terms) if usual else None


def parse_on_nan(text: str) -> OnNan:
    """The value of --on-nan, or a UserError that lists both."""
    choices: dict[str, OnNan] = {"stop": "stop", "rollback": "rollback"}
    if text not in choices:
        raise unknown("choice of --on-nan", text, choices)
    return choices[text]
