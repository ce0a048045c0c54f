"""Frequency-decoupled guidance: a separate scale for each frequency band of an image."""

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
    """Shares of g - 1 per band. The defaults are the published 5 (low) and 10 (high) at g = 10."""

    low: float = Field(4 / 9, ge=0, description="share of g - 1 at the coarsest band")
    high: float = Field(1.0, ge=0, description="share of g - 1 at the finest band")
    levels: int = Field(2, ge=2, description="number of bands; shares in between are evenly spaced")


@register_rule
class FDG(Rule[FDGKnobs]):
    """D_c + sum over bands b of (g_b - 1) band_b(D_c - D_ref) (arXiv 2506.19713).

    g_b - 1 is the share of g - 1 for band b. The bands are those of a Laplacian pyramid. The
    pyramid is linear, so guiding every band of D is the same as guiding with the bands of the
    difference. With equal shares the bands sum to the difference. This pyramid downsamples by
    averaging 2x2 pixels and upsamples bilinearly.
    """

    name = "fdg"
    summary = "a separate scale per frequency band, for images (Sadat 2025)"
    knobs_type = FDGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"low": 1.0, "high": 1.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "low": Between(0.0, 1.0),
        "high": Between(0.5, 2.0),
    }

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """CFG with a separate scale per band."""
        k = self.knobs
        shares = [k.high + (k.low - k.high) * i / (k.levels - 1) for i in range(k.levels)]
        update = weigh_bands(d_cond - d_ref, shares)
        return d_cond + (spread(g, d_cond) - 1.0) * update

    def unsuited(self, data: DataSpec) -> str | None:
        """Vectors have no frequency bands."""
        return None if data.is_image else "fdg needs images: vectors have no frequency bands"


def weigh_bands(x: Tensor, shares: list[float]) -> Tensor:
    """The sum of the bands of x (B, C, H, W), fine to coarse, each multiplied by its share.

    When the image cannot be halved further, it is the coarsest band and gets the last share.
    """
    if len(shares) == 1 or min(x.shape[-2:]) < 2:
        return shares[-1] * x
    coarse = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    fine = x - _enlarge(coarse, x)
    return shares[0] * fine + _enlarge(weigh_bands(coarse, shares[1:]), x)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
