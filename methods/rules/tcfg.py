"""Tangential damping: keep only the part of the reference shared with the conditional output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.registry import register_rule
from methods.rules.space import SpaceKnobs, back, into

TINY = 1e-12
"""Lower bound of a norm used as a divisor."""


class TCFGKnobs(SpaceKnobs):
    """The strength of the damping. The paper has no such setting and damps fully."""

    strength: float = Field(1.0, ge=0, le=1, description="0 is CFG, 1 removes the tangential part")


@register_rule
class TCFG(Rule[TCFGKnobs]):
    """D_ref' + g (D_c - D_ref'), D_ref' = v <v, D_ref> (TCFG 2025, arXiv 2503.18137).

    v is the first right-singular vector of the matrix with the two outputs as rows, each sample as
    one vector, in float64: cos(a) D_c + sin(a) D_ref at unit length with
    tan(2 a) = 2 <D_c, D_ref> / (|D_c|^2 - |D_ref|^2). In one dimension nothing is damped.
    In another `space` the rows are the predictions there.
    """

    name = "tcfg"
    summary = "CFG with the reference's tangential part damped, TCFG (2025)"
    knobs_type = TCFGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"strength": Between(0.1, 1.0)}

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG with the damped reference."""
        space = self.knobs.space
        found = into(space, d_ref, call)
        cond, ref = into(space, d_cond, call).double().flatten(1), found.double().flatten(1)
        inner = (cond * ref).sum(1, keepdim=True)
        gap = (cond.square() - ref.square()).sum(1, keepdim=True)
        angle = torch.atan2(2.0 * inner, gap) / 2.0
        v = angle.cos() * cond + angle.sin() * ref
        v = v / vector_norm(v, dim=1, keepdim=True).clamp_min(TINY)
        other = ref - (ref * v).sum(1, keepdim=True) * v
        damped = found - self.knobs.strength * other.reshape(d_ref.shape).to(d_ref)
        return super().combine(d_cond, back(space, damped, call), g, call)
