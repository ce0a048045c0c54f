"""CFG++: interpolate the two branches, and renoise with the unconditional one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.registry import register_rule
from methods.settings import Settings


class CFGPPKnobs(Settings):
    """The interpolation weight for a scale, and the source of the noise."""

    ratio: float = Field(12.5, gt=0, description="the g with lambda = 1; lambda = g / ratio")
    noise: Literal["null", "guided"] = Field(
        "null", description="output that the next level's noise is taken from; guided is CFG's"
    )


@register_rule
class CFGPlusPlus(Rule[CFGPPKnobs]):
    """x_next = D_lam + sigma_next (x - D_null) / sigma, D_lam = D_null + lam (D_c - D_null).

    Chung et al. (2024, CFG++, arXiv 2406.08070, algorithm 2) in denoiser form, with Euler steps.
    The authors compare lam = 0.6 with g = 7.5, and lam in [0, 1] with g in [1, 12.5]. Hence
    lam = g / 12.5. A larger g is not clipped, although the paper does not use it: lam > 1
    extrapolates as CFG does, whereas a limit would give the same images at all larger scales.

    A step equals a CFG step with Euler's method at scale lam / (1 - sigma_next / sigma). That scale
    grows with the number of steps. The ratio is for 50 DDIM steps; with few steps, a g just above 1
    is close to unconditional. With ratio 1 and the noise of the guided output, the rule is CFG with
    Euler's method.
    """

    name = "cfgpp"
    summary = "CFG++: interpolates the branches, renoises with the unconditional one (Chung 2024)"
    knobs_type = CFGPPKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"ratio": 1.0, "noise": "guided"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"ratio": Between(3.0, 50.0, log=True)}
    first_order = True

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The interpolation weight lambda."""
        return g / self.knobs.ratio

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """The unconditional output."""
        return d_ref if self.knobs.noise == "null" else guided
