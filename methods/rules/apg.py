"""Adaptive projected guidance."""

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
"""Least norm that is divided by."""


class APGKnobs(Settings):
    """Projection, momentum and threshold; the published radius is 2.5 for 4x64x64 latents."""

    eta: float = Field(0.0, ge=0, description="share of the part along D_c that stays")
    beta: float = Field(-0.75, gt=-1, lt=1, description="momentum; below 0 it is reversed")
    threshold: float | None = Field(
        2.5 / 128, gt=0, description="root mean square that the update may have; None: any"
    )


@register_rule
class APG(Rule[APGKnobs]):
    """D_c + (g - 1) (orth + eta par) (Sadat 2025, arXiv 2410.02416).

    The update D_c - D_ref is averaged along the trajectory, u <- D_c - D_ref + beta u; its copy is
    shortened to norm r and split into parts along and across D_c, each sample as one vector, in
    float64. r is `threshold` sqrt(dim), in the units of the data: a norm grows so with the size of
    images. On a line nothing lies across D_c, so that eta = 0 does not guide at all.

    The paper's samplers call the network once a step. Here both of Heun's stages add to the average
    of the step before, and the first one's goes on: the average counts steps, not calls. Steps that
    another rule leaves unguided do not change it.
    """

    name = "apg"
    summary = "adaptive projected guidance (Sadat 2025)"
    knobs_type = APGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"eta": 1.0, "beta": 0.0, "threshold": None}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "eta": Between(0.0, 1.0),
        "beta": Between(-0.9, 0.5),
        "threshold": Between(0.005, 2.0, log=True),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The conditional output and the projected update."""
        update = self._average(d_cond - d_ref, call).double().flatten(1)
        along = d_cond.double().flatten(1)
        if self.knobs.threshold is not None:
            radius = self.knobs.threshold * update.shape[1] ** 0.5
            norm = vector_norm(update, dim=1, keepdim=True).clamp_min(TINY)
            update = update * (radius / norm).clamp_max(1.0)
        unit: Tensor = along / vector_norm(along, dim=1, keepdim=True).clamp_min(TINY)
        parallel = (update * unit).sum(1, keepdim=True) * unit
        update = update - (1.0 - self.knobs.eta) * parallel
        return d_cond + (spread(g, d_cond) - 1.0) * update.reshape(d_cond.shape).to(d_cond)

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
