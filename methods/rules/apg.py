"""Adaptive projected guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.rules.space import SpaceKnobs, back, into

TINY = 1e-12
"""Lower bound of a norm used as a divisor."""


class APGKnobs(SpaceKnobs):
    """Projection, momentum and threshold. The published radius is 2.5 for 4x64x64 latents."""

    eta: float = Field(0.0, ge=0, description="share of the part parallel to D_c that is kept")
    beta: float = Field(-0.75, gt=-1, lt=1, description="momentum; negative: reverse momentum")
    threshold: float | None = Field(
        2.5 / 128, gt=0, description="largest root mean square of the update; None: no limit"
    )
    base: Literal["cond", "ref"] = Field(
        "cond", description="cond: as published; ref: D_ref + g update, as in diffusers"
    )


@register_rule
class APG(Rule[APGKnobs]):
    """D_c + (g - 1) (orth + eta par) (Sadat 2025, arXiv 2410.02416).

    The update is averaged along the trajectory, u <- D_c - D_ref + beta u. A copy is shortened to
    at most norm r and split into a part parallel to D_c and a part orthogonal to it, in float64,
    with each sample as one vector. r is `threshold` sqrt(dim) in the units of the data, because
    norms grow like this with image size. In one dimension the orthogonal part is 0, so that eta = 0
    does not guide at all.

    The paper's samplers call the network once per step. Here both stages of a Heun step add to the
    average of the step before, and the average of the first stage is kept, so that the average
    counts steps and not calls. Steps that another rule leaves unguided do not change it.

    In another `space` all this is done with the predictions there. The `base` "ref" is the default
    of diffusers' guider of this name and another rule, unless all knobs are neutral.
    """

    name = "apg"
    summary = "changes momentum, length and direction of the update, APG (Sadat 2025)"
    knobs_type = APGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"eta": 1.0, "beta": 0.0, "threshold": None}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "eta": Between(0.0, 1.0),
        "beta": Between(-0.9, 0.5),
        "threshold": Between(0.005, 2.0, log=True),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """D_c plus (g - 1) times the projected update."""
        space = self.knobs.space
        cond, ref = into(space, d_cond, call), into(space, d_ref, call)
        update = self._average(cond - ref, call).double().flatten(1)
        along = cond.double().flatten(1)
        if self.knobs.threshold is not None:
            radius = self.knobs.threshold * update.shape[1] ** 0.5
            norm = vector_norm(update, dim=1, keepdim=True).clamp_min(TINY)
            update = update * (radius / norm).clamp_max(1.0)
        unit: Tensor = along / vector_norm(along, dim=1, keepdim=True).clamp_min(TINY)
        parallel = (update * unit).sum(1, keepdim=True) * unit
        update = update - (1.0 - self.knobs.eta) * parallel
        update = update.reshape(d_cond.shape).to(d_cond)
        if self.knobs.base == "ref":
            return back(space, ref + spread(g, d_cond) * update, call)
        return back(space, cond + (spread(g, d_cond) - 1.0) * update, call)

    def _average(self, update: Tensor, call: Call) -> Tensor:
        state = call.state
        first = state.get("apg.step") != call.at.step
        if first:
            state["apg.step"], state["apg.before"] = call.at.step, state.get("apg.average")
        before: Tensor | None = state["apg.before"]
        average: Tensor = update if before is None else update + self.knobs.beta * before
        if first:
            state["apg.average"] = average
        return average
