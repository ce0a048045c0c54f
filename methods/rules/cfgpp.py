"""CFG++: guidance within the two branches, with the noise of the unconditional one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight
from methods.rules.registry import register_rule
from methods.settings import Settings


class CFGPPKnobs(Settings):
    """How the scale becomes an interpolation, and whose noise a step keeps."""

    ratio: float = Field(12.5, gt=0, description="g that makes lambda 1; lambda = g / ratio")
    noise: Literal["null", "guided"] = Field(
        "null", description="output that the next level's noise is taken from; guided is CFG's"
    )


@register_rule
class CFGPlusPlus(Rule[CFGPPKnobs]):
    """x_next = D_lam + sigma_next (x - D_null) / sigma, D_lam = D_null + lam (D_c - D_null).

    Chung et al. (2024, CFG++, arXiv 2406.08070, algorithm 2) in denoiser form, with Euler steps.
    The authors put lam = 0.6 beside g = 7.5 and lam in [0, 1] beside g in [1, 12.5]: lam is
    g / 12.5. A g beyond that is not cut off: lam > 1 extrapolates as CFG does, which the paper
    leaves out, while a limit would give all larger scales the same images.

    A step is that of CFG under Euler at the scale lam / (1 - sigma_next / sigma), which grows with
    the number of steps: the ratio is of 50 DDIM steps, and at few steps a g just above 1 is close
    to unconditional. At ratio 1 with the noise of the guided output it is CFG under Euler.
    """

    name = "cfgpp"
    summary = "CFG++: interpolates the branches, renoises with the unconditional one (Chung 2024)"
    knobs_type = CFGPPKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"ratio": 1.0, "noise": "guided"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"ratio": Between(3.0, 50.0, log=True)}
    first_order = True

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """The interpolation lambda."""
        return g / self.knobs.ratio

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """The unconditional output."""
        return d_ref if self.knobs.noise == "null" else guided
