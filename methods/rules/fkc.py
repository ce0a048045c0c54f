"""Feynman-Kac corrected guidance: particles with weights turn CFG into the density it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.settings import Settings


class FKCKnobs(Settings):
    """The number of particles, and the limit of their weights."""

    particles: int = Field(8, ge=1, le=100_000, description="particles per sample; 1 is CFG")
    clip: float = Field(2.0, gt=0, description="largest log-weight of a step; as published")


@register_rule
class FeynmanKac(Rule[FKCKnobs]):
    """d log w = g (g - 1) |D_c - D_null|^2 / sigma^3 |d sigma| per particle (arXiv 2503.02819).

    CFG's ODE does not sample p_c^g p_u^(1 - g); its particles, weighted like this, do, in the limit
    of many. Each sample has its own particles, and one of them is returned, so that samples stay
    independent. After each step except the last the weights, minus their mean and clipped, choose
    the particles that go on, by systematic resampling. A Heun step averages both stages. For
    Gaussians of equal width all weights are equal, and the rule is CFG.
    """

    name = "fkc"
    summary = "particles resampled towards p_c^g p_u^(1-g), Feynman-Kac (Skreta 2025)"
    knobs_type = FKCKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"particles": 1}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"particles": OneOf((4, 8, 16, 32))}

    @property
    def particles(self) -> int:
        """States per sample."""
        return self.knobs.particles

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG; keeps the rate at which the weights grow."""
        gap = (d_cond - d_ref).double() / call.at.sigma**1.5
        scale = spread(g, gap)
        rate = (scale * (scale - 1) * gap.square()).flatten(1).sum(1)
        call.state[f"fkc.{call.at.stage}"] = rate
        return super().combine(d_cond, d_ref, g, call)

    def resample(self, x: Tensor, call: Call) -> Tensor | None:
        """The clipped log-weights (B,) of a step."""
        rates = [call.state.pop(f"fkc.{i}") for i in (0, 1) if f"fkc.{i}" in call.state]
        if not rates or call.at.end == 0 or self.particles == 1:
            return None
        length = call.at.start - call.at.end
        gain: Tensor = length * sum(rates) / len(rates)
        gain = gain.reshape(-1, self.particles)
        limit = self.knobs.clip
        return (gain - gain.mean(1, keepdim=True)).clamp(-limit, limit).flatten()
