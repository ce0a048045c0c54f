"""MAMBO-G: weaker guidance where the two branches differ more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.registry import register_rule
from methods.rules.space import SpaceKnobs, into

TINY = 1e-12
"""Lower bound of a norm used as a divisor."""


class MamboGKnobs(SpaceKnobs):
    """The rate of the damping."""

    alpha: float = Field(8.0, ge=0, description="rate of decay; 0 is CFG")


@register_rule
class MamboG(Rule[MamboGKnobs]):
    """g <- 1 + (g - 1) exp(-alpha |D_c - D_ref| / |D_ref|), each sample's own (arXiv 2508.03442).

    The norms are over all coordinates. For data of mean 0, |D_ref| is near 0 at high noise, so that
    there is hardly any guidance there. In another `space` the predictions there take their place.
    """

    name = "mambo-g"
    summary = "guidance damped by the size of its update, MAMBO-G (2025)"
    knobs_type = MamboGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"alpha": Between(0.1, 32.0, log=True)}

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The scale (B,) per sample."""
        cond, null = (into(self.knobs.space, d, call) for d in (d_cond, d_ref))
        update, ref = (cond - null).flatten(1), null.flatten(1)
        ratio: Tensor = vector_norm(update, dim=1) / vector_norm(ref, dim=1).clamp_min(TINY)
        return 1.0 + (g - 1.0) * (-self.knobs.alpha * ratio).exp()
