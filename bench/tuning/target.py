"""What CFG reaches, which tuned rules are compared with at equal outcome.

A rule that is tuned for a distance alone may win by switching itself off. Here its score is the
distance over that of CFG at the scale at which CFG has the same outcome, and a scale at which the
rule hardly guides counts as worse than any that guides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.system.errors import UserError
from bench.tuning.store import Aim, ScaleValue
from metrics import METRICS

PARTS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Where CFG is measured: shares of the way from g = 1 to the highest scale."""
LEAST_GUIDANCE = 0.1
"""A rule hardly guides at g if CFG has its outcome below this share of the way from 1 to g."""
UNGUIDED = 10.0
"""Score of such a scale: a ratio of 22,000, or ten times the largest value of CFG."""
CERTAIN = 3.0
"""Standard errors by which an outcome must rise from g = 1 to be aimed at."""
LEAST = 1e-12
"""Smaller values count as this one in logarithms."""


def outcomes_for(image: bool) -> tuple[str, ...]:
    """The outcomes to match by, in order: on toys precision says little."""
    return ("precision_k3", "displacement") if image else ("displacement",)


def baseline_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """The scales at which CFG is measured for these scales of a rule."""
    return tuple(round(1 + part * (max(scales) - 1), 6) for part in PARTS)


class NoTarget(UserError):
    """No outcome of CFG rises steadily, so nothing can be compared with CFG at equal outcome."""


@dataclass(frozen=True)
class Target:
    """CFG's values (k,) and outcomes (k,), which never fall, along ascending scales (k,)."""

    outcome: str
    scales: tuple[float, ...]
    outcomes: tuple[float, ...]
    values: tuple[float, ...]

    def scale(self, outcome: float) -> float:
        """The lowest scale at which CFG has this outcome, within the measured ones."""
        i = int(np.searchsorted(self.outcomes, outcome))
        if i == 0:
            return self.scales[0]
        if i == len(self.scales):
            return self.scales[int(np.searchsorted(self.outcomes, self.outcomes[-1]))]
        low, high = self.outcomes[i - 1], self.outcomes[i]
        share = (outcome - low) / (high - low)
        return self.scales[i - 1] + share * (self.scales[i] - self.scales[i - 1])

    def excess(self, aim: Aim, found: ScaleValue) -> float:
        """How much worse a value is than that of CFG at equal outcome.

        The logarithm of the ratio if the aim averages logarithms, else the difference.
        """
        scale = self.scale(found.outcomes[self.outcome][0])
        largest = 1.0 if aim.log else max(map(abs, self.values))
        if scale - 1 < LEAST_GUIDANCE * (found.guidance - 1):
            return UNGUIDED * largest
        if aim.log:
            known = np.log(np.maximum(self.values, LEAST))
            return math.log(max(found.value, LEAST)) - float(np.interp(scale, self.scales, known))
        gap = found.value - float(np.interp(scale, self.scales, self.values))
        return gap if aim.direction == "lower" else -gap


def make_target(aim: Aim, cfg: Sequence[ScaleValue], among: Sequence[str]) -> Target:
    """The first outcome that rises steadily with CFG's scale; NoTarget if none of them does."""
    for name in among:
        found = [entry.outcomes.get(name) for entry in cfg]
        known = [pair for pair in found if pair is not None]
        if len(known) < len(cfg):
            continue
        reached = np.array([value for value, _ in known])
        errors = np.array([se for _, se in known])
        top = np.maximum.accumulate(reached)
        rises = top[-1] - reached[0] > CERTAIN * math.hypot(errors[0], errors[int(top.argmax())])
        falls = float((top - reached - 2 * errors).max()) > 0
        if rises and not falls:
            return Target(
                name,
                tuple(entry.guidance for entry in cfg),
                tuple(top.tolist()),
                tuple(entry.value for entry in cfg),
            )
    names = " nor ".join(map(label_of, among))
    raise NoTarget(
        f"CFG's {names} does not rise steadily up to g = {cfg[-1].guidance:g}, so rules cannot be "
        "compared with CFG at equal outcome: take other scales (--guidance), or --aim metric."
    )


def label_of(outcome: str) -> str:
    """The name of an outcome in sentences."""
    return METRICS[outcome].label.lower() if outcome in METRICS else outcome
