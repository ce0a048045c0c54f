"""The next knobs to try, a function of the trials so far and not of the budget.

The first trial is the published default. The next are spread over the whole space; from the ninth
on, every second one is near the best so far, closer each time. A search whose budget is raised
later is therefore the same as one that had that budget from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.tuning.space import Point, Space
from bench.tuning.store import Trial
from methods.rules import Rule

FIRST = 8
"""Trials before the first one near the best."""

RADIUS, SHRINK = 0.25, 0.8
"""Half the width of the first neighbourhood on every axis, and its factor per neighbourhood."""


@dataclass(frozen=True)
class Proposal:
    """The knobs of the next trial."""

    kind: Literal["default", "spread", "near"]
    point: Point
    rule: Rule[Any]


def propose(space: Space, trials: Sequence[Trial], seed: int) -> Proposal | None:
    """The trial after `trials`; None if all settings are tried."""
    if not trials:
        return Proposal("default", space.origin, space.base)
    tried = [dict(trial.knobs) for trial in trials]
    best = best_trial(trials)
    index = len(trials)
    if best is not None and index >= FIRST and index % 2 == 0:
        made = (index - FIRST) // 2
        # Another seed than that of the space, so that the two layouts differ.
        points = space.near(best.point, RADIUS * SHRINK**made, seed + 1 + made)
        found = _first_new(space, points, tried)
        if found is not None:
            return Proposal("near", *found)
    found = _first_new(space, space.spread(seed), tried)
    return None if found is None else Proposal("spread", *found)


def proposal_of(space: Space, trial: Trial) -> Proposal:
    """The proposal that a trial was made from."""
    rule = space.base if trial.kind == "default" else space.rule(trial.point)
    assert rule is not None
    return Proposal(trial.kind, trial.point, rule)


def round_end(start: int) -> int:
    """The end of a round that begins with the trial of index `start`.

    Proposals of a round depend on the knobs of earlier trials in it, and not on their scores:
    processes make the trials of one round at the same time.
    """
    return FIRST if start < FIRST else start + 2 - start % 2


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The earliest trial of the lowest score; None if no trial has a score."""
    scored = [(t.score, t.index, t) for t in trials if t.score is not None]
    return min(scored, key=lambda entry: entry[:2])[2] if scored else None


def _first_new(
    space: Space, points: Iterable[Point], tried: Sequence[dict[str, Any]]
) -> tuple[Point, Rule[Any]] | None:
    for point in points:
        rule = space.rule(point)
        if rule is not None and rule.settings() not in tried:
            return point, rule
    return None
