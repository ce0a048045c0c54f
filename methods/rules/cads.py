"""Condition-annealed sampling: noise on the labels that fades along the trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.draws import once_a_step
from methods.rules.registry import register_rule
from methods.settings import Settings


class CADSKnobs(Settings):
    """Schedule and noise of the labels. Times run from 1 (noise) to 0."""

    tau1: float = Field(0.6, ge=0, le=1, description="at and below this time labels are unchanged")
    tau2: float = Field(0.9, ge=0, le=1, description="at and above this time labels are pure noise")
    scale: float = Field(0.25, ge=0, description="standard deviation s of the noise")
    psi: float = Field(1.0, ge=0, le=1, description="share of rescaled labels in the mixture")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.tau1 > self.tau2:
            raise ValueError(f"tau1 must not exceed tau2, got {self.tau1} and {self.tau2}")
        return self


def anneal(labels: Tensor, noise: Tensor, gamma: float, scale: float, psi: float) -> Tensor:
    """Labels (B, K) with `noise` (B, K): sqrt(gamma) c + s sqrt(1 - gamma) n, rescaled by psi.

    Rescaled labels have the same mean and standard deviation over the classes as `labels`. Labels
    with standard deviation 0 are not rescaled.
    """
    noisy = math.sqrt(gamma) * labels + scale * math.sqrt(1 - gamma) * noise
    deviation, mean = torch.std_mean(noisy, 1, correction=0, keepdim=True)
    own_deviation, own_mean = torch.std_mean(labels, 1, correction=0, keepdim=True)
    ratio = own_deviation / deviation.where(deviation > 0, 1)
    rescaled = ((noisy - mean) * ratio + own_mean).where(deviation > 0, noisy)
    return psi * rescaled + (1 - psi) * noisy


@register_rule
class CADS(Rule[CADSKnobs]):
    """CFG with c' in place of c (Sadat et al. 2023, arXiv 2310.17347).

    c_hat = sqrt(gamma) c + s sqrt(1 - gamma) n, c' = psi rescaled(c_hat) + (1 - psi) c_hat, where
    gamma(t) is 1 up to tau1, 0 from tau2 on, and linear in between. Only the conditional branch
    gets c'. The paper anneals embeddings and chooses s for them; here labels are one-hot. The noise
    is drawn once per step and shared by both Heun stages, which is our choice.
    """

    name = "cads"
    summary = "CFG with labels annealed from noise, for variety (Sadat 2023)"
    knobs_type = CADSKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"scale": 0.0, "tau1": 1.0, "tau2": 1.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "tau1": Between(0.2, 0.6),
        "tau2": Between(0.6, 1.0),
        "scale": Between(0.02, 0.5, log=True),
    }

    def gamma(self, time: float) -> float:
        """The weight of the original labels at a time in [0, 1], where 1 is noise."""
        tau1, tau2 = self.knobs.tau1, self.knobs.tau2
        if time <= tau1:
            return 1.0
        return 0.0 if time >= tau2 else (tau2 - time) / (tau2 - tau1)

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """The annealed labels c' (B, K)."""
        gamma = self.gamma(call.at.time)
        if gamma == 1:
            return labels
        shape, device = labels.shape[1:], labels.device
        noise = once_a_step(call, self.name, lambda: call.rng.randn(shape, device).to(labels))
        return anneal(labels, noise, gamma, self.knobs.scale, self.knobs.psi)
