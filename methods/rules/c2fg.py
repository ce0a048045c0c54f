"""C2FG: a scale that grows exponentially towards the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from methods.rules.base import Between, OneOf, Point, Rule
from methods.rules.flow import FlowKnobs, flow_time
from methods.rules.registry import register_rule


class C2FGKnobs(FlowKnobs):
    """The growth of the scale. Published: from 1 to 2 (DiT) and from 1 to e (SiT), rate 1."""

    rate: float = Field(1.0, ge=0, le=1, description="1: from 1 to g; 0 is CFG")


@register_rule
class C2FG(Rule[C2FGKnobs]):
    """g(t) = omega exp(lambda (1 - t)) with omega = g^(1 - rate), lambda = rate ln g (2603.08155).

    t is the time of flow over that of the first level, as in SiT: 1 at the start, where the scale
    is omega, and 0 at the data, where it is g. The paper states omega and lambda; here g is the
    largest scale, so that g = 1 stays off. A scale of at most 0 does not change.
    """

    name = "c2fg"
    summary = "guidance that grows exponentially to g (2026)"
    knobs_type = C2FGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"rate": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"rate": Between(0.05, 1.0)}

    def scale(self, g: float, at: Point) -> float:
        """The scale at the start of this step."""
        std = self.knobs.data_std
        t = flow_time(at.start, std) / flow_time(at.sigma_max, std)
        return g if g <= 0 else float(g ** (1 - self.knobs.rate * t))
