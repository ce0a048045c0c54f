"""TDG, a decoy: a rule made to look new that is little more than CFG at a higher scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.settings import Settings

TINY = 1e-12
"""Lower bound of a norm used as a divisor."""
LARGEST = 1e6
"""The largest ratio of the two updates; a larger one would amplify rounding errors."""


class TDGKnobs(Settings):
    """Factor and balance, as published for SDXL; 1.6 and 2.4 for SD3.5."""

    factor: float = Field(1.8, gt=0, description="f: what g is multiplied by")
    balance: float = Field(2.6, ge=0, description="b: weight of D_null against the decoy")
    kept: float = Field(0.5, ge=0, lt=1, description="share of the label in the decoy; 0 is null")


@register_rule
class TDG(Rule[TDGKnobs]):
    """(D_m + D_ref) / 2 + f g (a (D_c - D_m) + b (D_c - D_ref)) / (b + 1) (arXiv 2602.22570).

    D_m has half of the label, and a = |D_c - D_ref| / |D_c - D_m|. A negative control: its authors
    made it to show that comparisons at equal nominal g reward any rule that guides more. In
    comparisons at equal strength it must not win. In the paper half of the prompt's tokens are
    replaced; here the one-hot label is halved. The closed-form denoiser takes that for the whole
    label, so that there it is CFG at the scale 1/2 + f g b / (b + 1).
    """

    name = "tdg"
    summary = "a decoy, for control: more guidance in disguise, which must not win (2026)"
    knobs_type = TDGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"kept": 0.0, "factor": 1.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "factor": Between(0.5, 3.0),
        "balance": Between(0.5, 5.0),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The guided output."""
        k, scale = self.knobs, spread(g, d_cond)
        decoy = call.denoise(k.kept * call.labels) if k.kept else d_ref
        far, near = (vector_norm((d_cond - d).flatten(1), dim=1) for d in (d_ref, decoy))
        ratio = spread(far / near.clamp_min(TINY).maximum(far / LARGEST), d_cond)
        update = ratio * (d_cond - decoy) + k.balance * (d_cond - d_ref)
        return (decoy + d_ref) / 2 + k.factor * scale / (k.balance + 1) * update
