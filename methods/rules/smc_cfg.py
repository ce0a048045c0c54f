"""SMC-CFG: guidance as sliding-mode control of the difference between the two branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.draws import once_a_step
from methods.rules.flow import FlowKnobs, flow_time
from methods.rules.registry import register_rule


class SMCKnobs(FlowKnobs):
    """The sliding surface and the switching gain, which is absolute in units of velocity."""

    rate: float = Field(5.0, ge=0, description="weight lambda of the last difference")
    gain: float = Field(0.2, ge=0, description="K: what is added per value; 0 is CFG")


@register_rule
class SMCCFG(Rule[SMCKnobs]):
    """v_ref + g e', e' = e - K sign((e - e_before) + lambda e_before) (arXiv 2603.03281).

    e = v_c - v_ref is the difference in velocity and e_before the e' of the step before, at the
    first step e. In denoisers, e = (D_c - D_ref) / (t std) up to the sign, t = sigma / (std +
    sigma). With lambda 1 each value shrinks by K and changes its sign where it is smaller. Both
    stages of a Heun step use the e_before of the step. The authors leave the first two steps of
    FLUX unguided: compose with `interval` for that.
    """

    name = "smc-cfg"
    summary = "sliding-mode control of the guidance update, SMC-CFG (2026)"
    knobs_type = SMCKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"gain": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "rate": Between(1.0, 10.0),
        "gain": Between(0.01, 0.5, log=True),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG with the corrected difference."""
        unit = flow_time(call.at.sigma, self.knobs.data_std) * self.knobs.data_std
        error = (d_cond - d_ref) / unit
        before = once_a_step(call, "smc-cfg.before", lambda: call.state.get("smc-cfg.last", error))
        surface = error + (self.knobs.rate - 1) * before
        error = error - self.knobs.gain * surface.sign()
        if call.at.stage == 0:
            call.state["smc-cfg.last"] = error
        return super().combine(d_ref + unit * error, d_ref, g, call)
