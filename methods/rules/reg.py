"""REG: weigh the update by the slope of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.settings import Settings


class REGKnobs(Settings):
    """The strength of the weighting. The paper has no such setting and weighs fully."""

    strength: float = Field(1.0, ge=0, le=1, description="0 is CFG, 1 weighs by the slope")


@register_rule
class REG(Rule[REGKnobs]):
    """D_c + (g - 1) J (D_c - D_ref), J = d(sum of D_c) / dx, value by value (arXiv 2501.18865).

    J is one vector-Jacobian product, which costs two evaluations. For independent Gaussian values
    of standard deviation s it is s^2 / (s^2 + sigma^2): little guidance at high noise.
    """

    name = "reg"
    summary = "weighs the update by the slope of the denoiser, REG (2025)"
    knobs_type = REGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"strength": Between(0.1, 1.0)}

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """D_c plus the weighted update."""
        _, slope = call.vjp()
        weight = 1 + self.knobs.strength * (slope - 1)
        return d_cond + (spread(g, d_cond) - 1) * weight * (d_cond - d_ref)
