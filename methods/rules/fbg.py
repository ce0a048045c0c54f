"""Feedback guidance: less guidance the more likely the class is for the sample so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Point, Rule, Weight
from methods.rules.registry import register_rule
from methods.settings import Settings


class FBGKnobs(Settings):
    """The authors' settings. t is the share of the remaining steps, 1 at the first step."""

    pi: float = Field(0.999, gt=0, lt=1, description="trust in the conditional network")
    t0: float = Field(0.556, ge=0, lt=1, description="t at which w is 3 without evidence")
    t1: float = Field(0.429, ge=0, le=1, description="t that sets the weight of the evidence")
    ceiling: float = Field(3.0, description="largest log-posterior")


@register_rule
class FeedbackGuidance(Rule[FBGKnobs]):
    """w = e^L / (e^L - (1 - pi)), where L is the running log-posterior of the class.

    Koulischer et al. (2025, Feedback Guidance of Diffusion Models, arXiv 2506.06085). L starts at
    0. After a step from sigma to s' with the result x',

        L <- L - tau / (2 v) (|x' - m_c|^2 - |x' - m_null|^2) + delta, between L_min and `ceiling`,
        m = (s' / sigma)^2 x + (1 - (s' / sigma)^2) D,   v = (sigma^2 - s'^2) s'^2 / sigma^2,
        L_min = log((1 - pi) g / (g - 1)),   delta = log(1.5 (1 - pi)) / ((1 - t0) N),
        tau = |2 v(t1) delta / 10|

    for N steps. Ancestral sampling draws x' from N(m, v). L_min gives the largest weight, g, so all
    weights are in [1, g]. At g <= 1 there is no feedback.

    The rule was published with a stochastic sampler. Here x' is the result of a deterministic Heun
    step and not a draw from that transition, but the same ratio is used. Both stages of a step
    share one weight. With a `ceiling` below L_min the rule is CFG.
    """

    name = "fbg"
    summary = "weights from a running log-posterior of the class (Koulischer 2025)"
    knobs_type = FBGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"ceiling": -1000.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "pi": Between(0.9, 0.9999),
        "t0": Between(0.3, 0.8),
        "t1": Between(0.2, 0.7),
    }

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The weight for the log-posterior, (B,) in [1, g]."""
        scale = torch.as_tensor(g, dtype=d_cond.dtype, device=d_cond.device).expand(len(d_cond))
        if call.at.stage == 0:
            call.state["fbg.outputs"] = (d_cond, d_ref)
        start = torch.zeros_like(scale)
        found = self._within(call.state.get("fbg.log_posterior", start), scale)
        call.state["fbg.log_posterior"], call.state["fbg.scale"] = found, scale
        weight = 1 / (1 - (1 - self.knobs.pi) * (-found).exp())
        return torch.where(scale > 1, weight, scale)

    def after_step(self, x: Tensor, x_next: Tensor, call: Call) -> None:
        """Add the evidence of a step, except the last step and steps without a reference."""
        outputs: tuple[Tensor, Tensor] | None = call.state.pop("fbg.outputs", None)
        if outputs is None or call.at.end == 0:
            return
        tau, delta = self.rates(call.at)
        ratio = log_ratio(x, x_next, outputs[0], outputs[1], call.at.start, call.at.end)
        found = call.state["fbg.log_posterior"] + tau * ratio + delta
        call.state["fbg.log_posterior"] = self._within(found, call.state["fbg.scale"])

    def rates(self, at: Point) -> tuple[float, float]:
        """The constants tau and delta of a trajectory."""
        knobs = self.knobs
        delta = math.log(1.5 * (1 - knobs.pi)) / ((1 - knobs.t0) * at.steps)
        # The last step ends at sigma = 0, where the transition has variance 0.
        step = min(round((1 - knobs.t1) * at.steps), at.steps - 2)
        return abs(
            2 * transition_variance(at.levels[step], at.levels[step + 1]) * delta / 10
        ), delta

    def _within(self, found: Tensor, scale: Tensor) -> Tensor:
        """Clip L to [L_min, ceiling]; L_min if the ceiling is below it."""
        least = ((1 - self.knobs.pi) * scale / (scale - 1).clamp(min=1e-12)).log()
        return torch.maximum(found.clamp(max=self.knobs.ceiling), least)


def transition_variance(sigma: float, end: float) -> float:
    """Variance of x at noise level `end` given x at `sigma` and the clean image."""
    return (sigma**2 - end**2) * end**2 / sigma**2


def log_ratio(
    x: Tensor, x_next: Tensor, d_cond: Tensor, d_ref: Tensor, sigma: float, end: float
) -> Tensor:
    """The log ratio p(x_next | x, class) / p(x_next | x) of Gaussian transitions, (B,)."""
    share = (end / sigma) ** 2
    far = [
        (x_next - share * x - (1 - share) * d).square().flatten(1).sum(1) for d in (d_cond, d_ref)
    ]
    return (far[1] - far[0]) / (2 * transition_variance(sigma, end))
