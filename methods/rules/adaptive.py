"""Adaptive guidance: no more reference once both branches agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.draws import once_a_step
from methods.rules.registry import register_rule
from methods.rules.space import SpaceKnobs, into


class AdaptiveKnobs(SpaceKnobs):
    """When the reference is last evaluated, and what follows. Published: .991 in eps."""

    similarity: float = Field(
        0.999, ge=-1, le=2, description="cosine of the outputs that ends it; above 1: never"
    )
    until: float = Field(1.0, gt=0, le=1, description="share of the steps after which it ends")
    then: Literal["conditional", "reuse"] = Field(
        "conditional", description="afterwards D_c, or guidance by the last update"
    )


@register_rule
class AdaptiveGuidance(Rule[AdaptiveKnobs]):
    """CFG until cos(D_c, D_ref) >= `similarity`, then D_c (Castillo et al. 2023, 2312.12487).

    Each sample stops on its own, after the step whose first outputs agree. With `then = reuse` the
    update is kept, as a difference of eps: D_c - D_ref <- (sigma / sigma_kept) (D_c - D_ref)_kept.
    From sigma = 80 the cosine of eps is near 1 at once, as x dominates there, hence the default of
    `space`. In one dimension outputs of equal sign agree.
    """

    name = "adaptive"
    summary = "stops evaluating the reference once both branches agree (Castillo 2023)"
    knobs_type = AdaptiveKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"similarity": 2.0, "until": 1.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "similarity": Between(0.9, 1.0),
        "until": Between(0.2, 1.0),
        "then": OneOf(("conditional", "reuse")),
    }
    data_dependent = True

    def reference(self, call: Call) -> Tensor:
        """D_null where the branches have not yet agreed; elsewhere D_c minus the last update."""
        assert call.cond is not None
        state, sigma = call.state, call.at.sigma
        everyone = torch.ones(len(call.x), dtype=torch.bool, device=call.x.device)
        active = once_a_step(call, "adaptive.active", lambda: state.get("adaptive.next", everyone))
        if call.at.step >= max(1, int(self.knobs.until * call.at.steps)):
            active = ~everyone
        update = torch.zeros_like(call.cond)
        if self.knobs.then == "reuse" and "adaptive.update" in state:
            update = sigma * state["adaptive.update"]
        d_ref = call.cond - update
        if active.any():
            d_ref[active] = call.part(active).null()
        if call.at.stage == 0:
            state["adaptive.update"] = (call.cond - d_ref) / sigma
            state["adaptive.next"] = active & (call.dry | ~self._alike(d_ref, call.cond, call=call))
        return d_ref

    def _alike(self, *outputs: Tensor, call: Call) -> Tensor:
        one, other = (into(self.knobs.space, d, call).double().flatten(1) for d in outputs)
        return F.cosine_similarity(one, other) >= self.knobs.similarity
