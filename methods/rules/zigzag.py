"""Zigzag sampling: step down with guidance, back up without it, and down again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings


class ZigzagKnobs(Settings):
    """The steps that zigzag."""

    share: float = Field(
        1.0, ge=0, le=1, description="share of the steps, from the first, that zigzag; 0 is CFG"
    )


@register_rule
class Zigzag(Rule[ZigzagKnobs]):
    """x' = step(x); x <- x' + (sigma - sigma') (x' - D_null(x'; sigma')) / sigma'; step(x) again.

    Bai et al. (2024, arXiv 2412.10891) with inversion at scale 0, as published, by an Euler step
    upwards from the level of x'. The released code inverts with another step of its scheduler's
    grid, which is not followed here. At high noise, where outputs hardly depend on x, one
    zigzag doubles g. The last step, down to 0, does not zigzag.
    """

    name = "zigzag"
    summary = "steps back without guidance and repeats each step, Euler steps (Bai 2024)"
    knobs_type = ZigzagKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"share": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"share": Between(0.1, 1.0)}
    first_order = True

    def step(self, call: Call) -> Tensor:
        """The second step down, or the first where the rule does not act."""
        down, at = call.advance(), call.at
        if at.end == 0 or at.step >= self.knobs.share * at.steps:
            return down
        noise = (down - call.to(down, at.end).null()) / at.end
        return call.to(down + (at.start - at.end) * noise).advance()
