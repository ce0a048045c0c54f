"""Guidance in a limited interval of noise levels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from methods.rules.base import Between, OneOf, Point, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings, ascending


class IntervalKnobs(Settings):
    """The interval in units of sigma.

    The published intervals are for latents of standard deviation 0.5: the default (EDM2-S),
    (0.28, 1.61] (EDM2-XXL) and, for FD-DINOv2, (0.85, 5.00]. For other data, scale both ends with
    the standard deviation of the data.

    The authors count steps. Their levels are rounded here, so that an end may miss a step: for the
    published result use `steps` on the same grid (32 steps from 80 to 0.002): [17, 22] for FID of
    EDM2-XXL, [13, 19] for FD-DINOv2.
    """

    low: float = Field(0.28, ge=0, description="highest noise level below the interval; unguided")
    high: float = Field(2.90, gt=0, description="highest noise level with guidance")
    steps: tuple[int, int] | None = Field(
        None, description="first and last step with guidance, from 0, instead of levels"
    )

    @field_validator("steps", mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value  # as rows hold it

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("low and high", self.low, self.high)
        if self.steps is not None:
            ascending("0 and steps", 0, self.steps[0], strict=False)
            ascending("steps", *self.steps, strict=False)
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
        if self.knobs.steps is not None:
            first, last = self.knobs.steps
            return g if first <= at.step <= last else 1.0
        return g if self.knobs.low < at.start <= self.knobs.high else 1.0
