"""beta-CFG: updates of equal length, weighted by a Beta density over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.registry import register_rule
from methods.settings import Settings

ROUNDING = 1e-6
"""Updates of eps with a smaller root mean square are rounding errors; they are not enlarged."""


class BetaKnobs(Settings):
    """The density over the steps, and the power of the norm."""

    a: float = Field(2.0, ge=1, description="first shape parameter of the Beta density")
    b: float = Field(2.0, ge=1, description="second shape parameter of the Beta density")
    gamma: float = Field(1.0, ge=0, description="power of the norm; 1: updates of equal length")
    norm: float = Field(
        128.0, gt=0, description="norm of an update of root mean square 1; 128: 4x64x64 latents"
    )


@register_rule
class BetaCFG(Rule[BetaKnobs]):
    """eps_ref + g b(k / (N - 1)) Delta / |Delta|^gamma, Delta = eps_c - eps_ref (arXiv 2502.10574).

    b is the density of Beta(a, b) at step k of N. In denoisers the update is g b sigma^gamma Delta
    / |Delta|^gamma. The norm is over a whole sample. It grows with its size, so that here |.| is
    `norm` times the root mean square: by default equal to the norm for the published latents of
    4x64x64. Where branches differ more than there, a smaller `norm` is needed. With a, b > 1 the
    first and the last step have weight 0 and take D_ref alone.
    """

    name = "beta-cfg"
    summary = "normalised updates, weighted by a Beta density over the steps (2025)"
    knobs_type = BetaKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"a": 1.0, "b": 1.0, "gamma": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "a": Between(1.0, 4.0),
        "b": Between(1.0, 4.0),
        "gamma": Between(0.0, 1.0),
        "norm": Between(1.0, 256.0, log=True),
    }

    def density(self, u: float) -> float:
        """The Beta density at u in [0, 1]."""
        a, b = self.knobs.a, self.knobs.b
        norm = math.gamma(a + b) / (math.gamma(a) * math.gamma(b))
        return float(norm * u ** (a - 1) * (1 - u) ** (b - 1))

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The scale (B,) per sample."""
        update = (d_cond - d_ref).flatten(1) / call.at.sigma
        rms = vector_norm(update, dim=1) / math.sqrt(update.shape[1])
        share = self.density(call.at.step / max(call.at.steps - 1, 1))
        weight: Tensor = g * share / (self.knobs.norm * rms.clamp_min(ROUNDING)) ** self.knobs.gamma
        return weight
