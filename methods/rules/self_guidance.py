"""Self-guidance: away from the output of the same network at a higher noise level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.flow import FlowKnobs, flow_time
from methods.rules.registry import register_rule

LAST_TIME = 0.999
"""The highest time of the noisier output."""


class SelfGuidanceKnobs(FlowKnobs):
    """Strength and shift. Published: weight 1 to 3 for FLUX; 10 of 1000 times."""

    weight: float = Field(3.0, ge=0, description="strength; 0 is CFG")
    shift: float = Field(0.01, gt=0, lt=1, description="by how much the time of flow is raised")


@register_rule
class SelfGuidance(Rule[SelfGuidanceKnobs]):
    """D_g + s (D_c - D~), D~ = x - (sigma / sigma2) (x - D_c(x; sigma2)) (arXiv 2412.05827).

    This is guidance by eps(x; sigma) - eps(x; sigma2) with the same x and labels. sigma2 is the
    level at the time t + `shift` of flow, t = sigma / (std + sigma), up to t = .999. The rule needs
    no reference and also acts at g = 1, for one evaluation more.
    """

    name = "self-guidance"
    summary = "moves away from the output at a higher noise level, also at g = 1 (2024)"
    knobs_type = SelfGuidanceKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "weight": Between(0.2, 5.0, log=True),
        "shift": Between(0.002, 0.1, log=True),
    }
    free = True

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The output, moved away from the noisier one."""
        k, sigma = self.knobs, call.at.sigma
        time = min(flow_time(sigma, k.data_std) + k.shift, LAST_TIME)
        higher = max(sigma, k.data_std * time / (1 - time))
        noisier = call.denoise(sigma=call.sigma.new_tensor(higher))
        return guided + k.weight * (d_cond - call.x + sigma / higher * (call.x - noisier))
