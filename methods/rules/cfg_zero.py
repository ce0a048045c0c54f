"""CFG-Zero*: an optimised scale of the reference, and zero velocity in the first steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.rules.space import Space
from methods.settings import Settings

TINY = 1e-12
"""Lower bound of a squared norm used as a divisor."""


class CFGZeroKnobs(Settings):
    """Settings of the two corrections."""

    optimised_scale: bool = Field(True, description="whether the reference is scaled by s*")
    zero_share: float = Field(0.04, ge=0, lt=1, description="share of the steps with zero velocity")
    space: Space = Field(
        "eps", description="prediction that is scaled; v: the flow's, as published"
    )


@register_rule
class CFGZero(Rule[CFGZeroKnobs]):
    """d = s d_ref + g (d_c - s d_ref), s = <d_c, d_ref> / |d_ref|^2 (Fan 2025, arXiv 2503.18886).

    d = (x - D) / sigma is the slope that EDM integrates. The denoiser output is then
    D_ref + g (D_c - D_ref) + (1 - g) (1 - s) (x - D_ref), without sigma. This d is eps; in another
    `space` the predictions there take its place.

    The rule was made for flow matching, with y = x / (1 + sigma) at time sigma / (1 + sigma). Steps
    that begin in the first `zero_share` have zero velocity in y. For constant y, x is proportional
    to 1 + sigma and its slope is dx/dsigma = x / (1 + sigma), hence D = x / (1 + sigma). D = x
    would keep x constant instead, with more noise than its level. In those steps both branches are
    evaluated, but their outputs are not used.
    """

    name = "cfg-zero"
    summary = "scales the reference and starts with zero velocity, CFG-Zero* (Fan 2025)"
    knobs_type = CFGZeroKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"optimised_scale": False, "zero_share": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "optimised_scale": OneOf((True, False)),
        "zero_share": Between(0.0, 0.2),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG with a scaled reference slope, or zero velocity."""
        if call.at.step < self.knobs.zero_share * call.at.steps:
            return call.x / (1.0 + call.sigma)
        guided = super().combine(d_cond, d_ref, g, call)
        if not self.knobs.optimised_scale:
            return guided
        # With q = offset - gain D for the outputs, the prediction up to a factor: s is the same.
        offset: Tensor | float = 0.0 if self.knobs.space == "denoised" else call.x
        gain: Tensor | float = 1.0 + call.sigma if self.knobs.space == "v" else 1.0
        cond, ref = (offset - gain * d_cond).flatten(1), (offset - gain * d_ref).flatten(1)
        s = (cond * ref).sum(1) / ref.square().sum(1).clamp_min(TINY)
        shift = (offset - gain * d_ref) / gain
        return guided + (1.0 - spread(g, guided)) * spread(1.0 - s, guided) * shift
