"""Momentum guidance: extrapolate from the velocities of earlier steps, without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.draws import once_a_step
from methods.rules.flow import FlowKnobs, flow_time, velocity
from methods.rules.registry import register_rule


class MomentumKnobs(FlowKnobs):
    """Strength and memory. Published for FLUX: alpha 2.5 to 3.5."""

    alpha: float = Field(0.5, ge=0, description="strength of the extrapolation; 0 is CFG")
    beta: float = Field(0.6, ge=0, lt=1, description="share of the mean kept per step")


@register_rule
class MomentumGuidance(Rule[MomentumKnobs]):
    """v' = v + alpha (v - m), then m <- (1 - beta) v + beta m (arXiv 2602.20360).

    v is the velocity of the guided output in units of flow, m starts as the first v. In denoisers,
    D' = D - alpha t std (v - m) with t = sigma / (std + sigma). The rule evaluates nothing and also
    acts at g = 1. Published with Euler steps: with beta 0, alpha 1/2 and equal steps in t they are
    those of Adams and Bashforth, of second order.
    """

    name = "momentum"
    summary = "extrapolates from the velocities of earlier steps, also at g = 1 (2026)"
    knobs_type = MomentumKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "alpha": Between(0.05, 3.0, log=True),
        "beta": Between(0.0, 0.9),
    }
    free = first_order = True

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The guided output of the extrapolated velocity."""
        k, sigma = self.knobs, call.at.sigma
        v = velocity(call.x, guided, sigma, k.data_std)
        mean = once_a_step(call, "momentum.before", lambda: call.state.get("momentum.mean", v))
        call.state["momentum.mean"] = (1 - k.beta) * v + k.beta * mean
        return guided - k.alpha * flow_time(sigma, k.data_std) * k.data_std * (v - mean)
