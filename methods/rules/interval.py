"""Guidance in a limited interval of noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from methods.rules.base import Between, OneOf, Point, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings, ascending


class IntervalKnobs(Settings):
    """The interval in units of sigma.

    The published intervals are for latents of standard deviation 0.5: the default (EDM2-S),
    (0.28, 1.61] (EDM2-XXL) and, for FD-DINOv2, (0.85, 5.00]. For other data, scale both ends with
    the standard deviation of the data.
    """

    low: float = Field(0.28, ge=0, description="highest noise level below the interval; unguided")
    high: float = Field(2.90, gt=0, description="highest noise level with guidance")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("low and high", self.low, self.high)
        return self


@register_rule
class Interval(Rule[IntervalKnobs]):
    """g(sigma) = g for low < sigma <= high, otherwise 1 (arXiv 2404.07724).

    The noise level at the start of a step decides for both Heun stages, as in the authors' code,
    which counts steps. Outside the interval the reference branch is not evaluated.
    """

    name = "interval"
    summary = "guidance in an interval of noise levels (Kynkaanniemi 2024)"
    knobs_type = IntervalKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"low": 0.0, "high": 1e9}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "low": Between(0.05, 1.0, log=True),
        "high": Between(1.25, 20.0, log=True),
    }

    def scale(self, g: float, at: Point) -> float:
        """The scale inside the interval, 1 outside."""
        return g if self.knobs.low < at.start <= self.knobs.high else 1.0
