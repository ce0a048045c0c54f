"""Guidance that grows as the noise level falls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from methods.rules.base import Between, OneOf, Point, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings


class MonotoneKnobs(Settings):
    """The schedule and its lower bound."""

    kind: Literal["linear", "cosine", "constant"] = "linear"
    clamp: float = Field(0.0, ge=0, le=1, description="lower bound of the share of g - 1")


@register_rule
class Monotone(Rule[MonotoneKnobs]):
    """g(t) = 1 + (g - 1) max(clamp, s(t)), s = 2 (1 - t) or 1 + cos(pi t) (arXiv 2404.13040).

    The schedules multiply g - 1 rather than g, so that g = 1 stays off. t is the share of remaining
    steps at the middle of a step and is equal in both stages. s then averages exactly 1 over the
    steps, so that without a clamp the mean of g - 1 equals that of CFG. The paper clamps to an
    absolute weight, which would guide even at g = 1; here the clamp is a share of g - 1.
    """

    name = "monotone"
    summary = "guidance that increases along the trajectory (Wang 2024)"
    knobs_type = MonotoneKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"kind": "constant"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "kind": OneOf(("linear", "cosine")),
        "clamp": Between(0.0, 1.0),
    }

    def scale(self, g: float, at: Point) -> float:
        """The scale at this step."""
        return 1.0 + (g - 1.0) * max(self.knobs.clamp, self._share(at.time - 0.5 / at.steps))

    def _share(self, t: float) -> float:
        if self.knobs.kind == "linear":
            return 2.0 * (1.0 - t)
        return 1.0 + math.cos(math.pi * t) if self.knobs.kind == "cosine" else 1.0
