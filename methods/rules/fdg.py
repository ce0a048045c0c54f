"""Frequency-decoupled guidance: its own scale for every band of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, Weight, spread
from methods.rules.registry import register_rule
from methods.settings import Settings
from methods.spec import DataSpec


class FDGKnobs(Settings):
    """Shares of g - 1 by band; the default is the published 5 (low) and 10 (high) at g = 10."""

    low: float = Field(4 / 9, ge=0, description="share of g - 1 at the coarsest band")
    high: float = Field(1.0, ge=0, description="share of g - 1 at the finest band")
    levels: int = Field(2, ge=2, description="bands; shares between are spaced evenly")


@register_rule
class FDG(Rule[FDGKnobs]):
    """D_c + sum over bands b of (g_b - 1) band_b(D_c - D_ref) (arXiv 2506.19713).

    g_b - 1 is the band's share of g - 1. The bands are those of a Laplacian pyramid, which is
    linear, so that guiding every band of D is guiding with the bands of the difference; with equal
    shares they add up to the difference itself. This pyramid halves by averaging over 2x2 pixels
    and doubles bilinearly.
    """

    name = "fdg"
    summary = "a scale for every frequency band, for images (Sadat 2025)"
    knobs_type = FDGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"low": 1.0, "high": 1.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "low": Between(0.0, 1.0),
        "high": Between(0.5, 2.0),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG of every band."""
        k = self.knobs
        shares = [k.high + (k.low - k.high) * i / (k.levels - 1) for i in range(k.levels)]
        update = weigh_bands(d_cond - d_ref, shares)
        return d_cond + (spread(g, d_cond) - 1.0) * update

    def unsuited(self, data: DataSpec) -> str | None:
        """Vectors have no frequencies."""
        return None if data.is_image else "fdg needs images: vectors have no frequency bands"


def weigh_bands(x: Tensor, shares: list[float]) -> Tensor:
    """The sum of the bands of x (B, C, H, W), from fine to coarse, each times its share.

    Images that cannot be halved any more are the coarsest band, with the last share.
    """
    if len(shares) == 1 or min(x.shape[-2:]) < 2:
        return shares[-1] * x
    coarse = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    fine = x - _enlarge(coarse, x)
    return shares[0] * fine + _enlarge(weigh_bands(coarse, shares[1:]), x)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
