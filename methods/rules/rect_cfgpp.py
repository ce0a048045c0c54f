"""Rectified-CFG++: the update is that of a state predicted by the conditional branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.flow import FlowKnobs, flow_time, velocity
from methods.rules.registry import register_rule


class RectKnobs(FlowKnobs):
    """The length of the prediction."""

    reach: float = Field(1.0, ge=0, le=1, description="share of the step; 0 is CFG")


@register_rule
class RectifiedCFGPlusPlus(Rule[RectKnobs]):
    """An Euler step with D_c(x) + (g - 1) (D_c(x') - D_null(x')), x' predicted by D_c (2510.07631).

    x' = x - (t - t') v_c in the units of flow, t = sigma / (std + sigma). The paper's lambda is
    g - 1. As in the released code, the networks get x' with the time of x, and not of x'; there
    noise of .005 is added to x', which is left out. For Gaussians of equal width it is CFG.
    """

    name = "rect-cfgpp"
    summary = "D_c plus the update at a predicted state, Euler steps, Rectified-CFG++ (2025)"
    knobs_type = RectKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"reach": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"reach": Between(0.1, 1.0)}
    first_order = True

    def step(self, call: Call) -> Tensor:
        """The state at the end of the step."""
        x, at, std = call.x, call.at, self.knobs.data_std
        d_cond = call.denoise()
        length = (std + at.start) * (flow_time(at.start, std) - flow_time(at.end, std))
        ahead = x - self.knobs.reach * length * velocity(x, d_cond, at.start, std)
        there = call.to(ahead)
        guided = d_cond + (call.scale - 1) * (there.denoise() - there.null())
        return guided + at.end / at.start * (x - guided)
