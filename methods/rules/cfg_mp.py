"""CFG-MP: move the state between the two branches before each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.flow import FlowKnobs, flow_time, velocity
from methods.rules.registry import register_rule


class CFGMPKnobs(FlowKnobs):
    """How often and how long the state is moved. Published: 2 (DiT) and 3 (SD3.5) iterations."""

    iterations: int = Field(2, ge=0, le=100, description="moves per step; 0 is CFG")
    until: float = Field(0.6, ge=0, le=1, description="1 - t from which it does not act")


@register_rule
class CFGMP(Rule[CFGMPKnobs]):
    """Per move h = x + (dt / 2) v_null(x), x <- h - (dt / 2) v_c(h), at one time (2601.21892).

    v is the velocity of flow towards the noise, in the units of a flow with t = sigma / (std +
    sigma), and dt is the length of the step in t. CFG's Euler step follows from the moved state.
    For two Gaussians of equal width a move adds 1/2 to g, to first order in dt. The variant with
    Anderson acceleration, MP+, is left out.
    """

    name = "cfg-mp"
    summary = "moves the state between the branches before each Euler step, CFG-MP (2026)"
    knobs_type = CFGMPKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"iterations": 0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "iterations": OneOf((1, 2, 3, 4)),
        "until": Between(0.2, 1.0),
    }
    first_order = True

    def step(self, call: Call) -> Tensor:
        """The step from the moved state."""
        k, at, x, std = self.knobs, call.at, call.x, self.knobs.data_std
        time = flow_time(at.start, std)
        if 1 - time >= k.until:
            return call.advance()
        half = (std + at.start) * (time - flow_time(at.end, std)) / 2  # in x, which is x_t / (1-t)
        for _ in range(k.iterations):
            x = x + half * velocity(x, call.to(x).null(), at.start, std)
            x = x - half * velocity(x, call.to(x).denoise(), at.start, std)
        return call.to(x).advance()
