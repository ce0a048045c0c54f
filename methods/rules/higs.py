"""History-guided sampling: the update is the change from the mean of earlier outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.draws import once_a_step
from methods.rules.flow import FlowKnobs, flow_time
from methods.rules.registry import register_rule
from methods.settings import ascending

SHARPNESS = 50.0
"""Slope of the high-pass filter, as published."""


class HiGSKnobs(FlowKnobs):
    """Strength, memory, filter and window of flow times. Published: alpha .5 to .75."""

    weight: float = Field(1.75, ge=0, description="strength; 0 is CFG")
    alpha: float = Field(0.75, gt=0, le=1, description="share of the new output in the mean")
    eta: float = Field(0.0, ge=0, description="share of the part parallel to the output; or 1")
    cutoff: float = Field(0.05, ge=0, description="lowest frequency that passes, 1 per pixel pair")
    low: float = Field(0.4, ge=0, description="time at and below which it does not act")
    high: float = Field(1.0, gt=0, description="time above which it does not act")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("low and high", self.low, self.high)
        return self


@register_rule
class HiGS(Rule[HiGSKnobs]):
    """D_g + w sqrt((t - low) / (high - low)) highpass(orth + eta par) (arXiv 2509.22300).

    h <- alpha D_g + (1 - alpha) h, from h = 0, and orth and par are the parts of D_g - h orthogonal
    and parallel to D_g, in float64, each sample as one vector. The first step only fills h. Images
    pass a filter on their orthonormal cosine transform, sigmoid(50 (R - cutoff)) at radius
    R = sqrt((u / H)^2 + (v / W)^2). t is the time of flow. The rule evaluates nothing and also acts
    at g = 1. h counts first stages of Heun steps. In one dimension orth is 0.
    """

    name = "higs"
    summary = "moves away from the mean of earlier outputs, also at g = 1 (Sadat 2025)"
    knobs_type = HiGSKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "weight": Between(0.2, 3.0, log=True),
        "alpha": Between(0.3, 0.9),
        "eta": Between(0.0, 1.0),
    }
    free = True

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The output, moved away from its history."""
        k, t = self.knobs, flow_time(call.at.sigma, self.knobs.data_std)
        zero = torch.zeros_like(guided)
        before = once_a_step(call, "higs.before", lambda: call.state.get("higs.mean", zero))
        mean = k.alpha * guided + (1 - k.alpha) * before
        if call.at.stage == 0:
            call.state["higs.mean"] = mean
        if call.at.step == 0 or not k.low < t <= k.high:
            return guided
        away, along = (guided - mean).double().flatten(1), guided.double().flatten(1)
        size = along.square().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        parallel = (away * along).sum(1, keepdim=True) / size * along
        update = (away - (1 - k.eta) * parallel).reshape(guided.shape)
        if update.ndim == 4:
            update = highpass(update, k.cutoff)
        return guided + k.weight * math.sqrt((t - k.low) / (k.high - k.low)) * update.to(guided)


def highpass(x: Tensor, cutoff: float) -> Tensor:
    """Images (B, C, H, W) with low frequencies damped in the orthonormal cosine transform."""
    rows, columns = (_cosines(n).to(x) for n in x.shape[-2:])
    u, v = (torch.arange(n).to(x) / n for n in x.shape[-2:])
    gain = torch.sigmoid(SHARPNESS * (torch.hypot(u[:, None], v) - cutoff))
    return rows.T @ (gain * (rows @ x @ columns.T)) @ columns


def _cosines(n: int) -> Tensor:
    """The orthonormal matrix (n, n) of the cosine transform DCT-II."""
    k = torch.arange(n, dtype=torch.float64)[:, None]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * (k.T + 0.5) * k)
    matrix[0] /= math.sqrt(2)
    return matrix
