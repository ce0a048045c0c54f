"""Guidance in a limited interval of noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from methods.rules.base import Between, OneOf, Point, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings, ascending


class IntervalKnobs(Settings):
    """The interval, in the units of sigma.

    Published for latents of standard deviation 0.5 are the default (EDM2-S), (0.28, 1.61]
    (EDM2-XXL) and, for FD-DINOv2, (0.85, 5.00]. Ends in proportion to the standard deviation of the
    data are the same interval for other data.
    """

    low: float = Field(0.28, ge=0, description="noise level at and below which nothing guides")
    high: float = Field(2.90, gt=0, description="highest noise level that guides")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("low and high", self.low, self.high)
        return self


@register_rule
class Interval(Rule[IntervalKnobs]):
    """g(sigma) = g for low < sigma <= high, otherwise 1 (arXiv 2404.07724).

    A step is guided, or not, by the level at its start: both of Heun's stages alike, as in the
    authors' code, which counts steps. Outside, the reference branch is not evaluated.
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
        """The scale inside, 1 outside."""
        return g if self.knobs.low < at.start <= self.knobs.high else 1.0
