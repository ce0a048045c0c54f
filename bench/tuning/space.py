"""The search space of a rule: a unit cube whose points are knobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ValidationError
from scipy.stats import qmc

from methods.rules import Between, OneOf, Rule, make_rule

Point = tuple[float, ...]
"""Coordinates in [0, 1], one an axis."""

SOBOL_BITS = 11
"""2048 points: more than any budget takes."""


@dataclass(frozen=True)
class Axis:
    """A searched knob; `whole` if it is an integer."""

    rule: str
    knob: str
    over: Between | OneOf
    whole: bool = False

    def at(self, u: float) -> Any:
        """The knob's value at u in [0, 1]."""
        if isinstance(self.over, OneOf):
            count = len(self.over.values)
            return self.over.values[min(int(u * count), count - 1)]
        low, high = self.over.low, self.over.high
        value = low * (high / low) ** u if self.over.log else low + (high - low) * u
        # Rounding may exceed the ends, where a rule may refuse the value.
        value = min(max(value, low), high)
        return round(value) if self.whole else value

    def where(self, value: Any) -> float:
        """The u in [0, 1] nearest to a value; 0.5 for a value outside the axis, such as None."""
        if isinstance(self.over, OneOf):
            found = [i for i, v in enumerate(self.over.values) if v == value]
            return (found[0] + 0.5) / len(self.over.values) if found else 0.5
        low, high = self.over.low, self.over.high
        if not isinstance(value, int | float):
            return 0.5
        if self.over.log:
            u = math.log(max(value, low) / low) / math.log(high / low)
        else:
            u = (value - low) / (high - low)
        return min(max(u, 0.0), 1.0)


@dataclass(frozen=True)
class Space:
    """The search space of a rule; a composition has the knobs of all its parts.

    Knobs that are not searched keep the values of `base`.
    """

    base: Rule[Any]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """All searched knobs, in the order of rules and of their `search`."""
        return tuple(
            Axis(part.name, knob, over, part.knobs_type.model_fields[knob].annotation is int)
            for part in self.base.parts()
            for knob, over in part.search.items()
        )

    @property
    def origin(self) -> Point:
        """The point of the knobs of `base`."""
        parts = {part.name: part for part in self.base.parts()}
        return tuple(axis.where(getattr(parts[axis.rule].knobs, axis.knob)) for axis in self.axes)

    def rule(self, point: Sequence[float]) -> Rule[Any] | None:
        """The rule at a point; None if it refuses this combination of knobs."""
        knobs = {part.name: part.knobs.model_dump() for part in self.base.parts()}
        for axis, u in zip(self.axes, point, strict=True):
            knobs[axis.rule][axis.knob] = axis.at(u)
        try:
            return make_rule(self.base.name, knobs)
        except ValidationError:
            return None

    def spread(self, seed: int) -> Iterator[Point]:
        """Points spread evenly over the cube: Sobol's sequence, scrambled by `seed`."""
        for row in _sobol(len(self.axes), seed):
            yield tuple(row)

    def near(self, centre: Point, radius: float, seed: int) -> Iterator[Point]:
        """Points within `radius` of a point on every axis, mirrored into the cube at its faces."""
        for row in _sobol(len(self.axes), seed):
            moved = np.abs(np.asarray(centre) + radius * (2 * np.asarray(row) - 1))
            yield tuple(float(u) for u in np.where(moved > 1, 2 - moved, moved))


def _sobol(dimensions: int, seed: int) -> list[list[float]]:
    draws = qmc.Sobol(dimensions, scramble=True, seed=np.random.default_rng(seed))
    points: list[list[float]] = draws.random_base2(SOBOL_BITS).tolist()
    return points
