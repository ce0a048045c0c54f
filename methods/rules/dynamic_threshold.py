"""Dynamic thresholding: scale the guided output back into the range of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.latents import LatentSpec
from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings
from methods.spec import DataSpec


class DynamicThresholdKnobs(Settings):
    """The percentile of the threshold, and the range of the data."""

    percentile: float = Field(99.5, ge=0, le=100, description="percentile of |D_g| over a sample")
    limit: float = Field(1.0, gt=0, description="largest absolute value of the data: 1 for images")


@register_rule
class DynamicThreshold(Rule[DynamicThresholdKnobs]):
    """clip(D_g, -s, s) limit / s with s = max(limit, percentile of |D_g|) (arXiv 2205.11487).

    The percentile is computed per sample with linear interpolation. At percentile 0 the rule is a
    plain clip to the limit, except for samples with all values outside it. Vectors are refused,
    because they have no limited range and too few coordinates for a percentile.
    """

    name = "dynamic-threshold"
    summary = "CFG that keeps the range of the data, for images (Saharia 2022)"
    knobs_type = DynamicThresholdKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"percentile": 100.0, "limit": 1e9}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"percentile": Between(90.0, 100.0)}

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The guided output, clipped and scaled to the limit."""
        limit = self.knobs.limit
        s = guided.flatten(1).abs().quantile(self.knobs.percentile / 100, dim=1).clamp_min(limit)
        bound = s.reshape(-1, *[1] * (guided.ndim - 1))
        return guided.clamp(-bound, bound) * (limit / bound)

    def unsuited(self, data: DataSpec) -> str | None:
        """Vectors have no limited range, and latents have another one than images."""
        if isinstance(data, LatentSpec) and self.knobs.limit == 1:
            return (
                "dynamic-threshold has the limit 1 of images, and these are latents: set their "
                "largest value by --knob dynamic-threshold.limit=..."
            )
        return None if data.is_image else "dynamic-threshold needs images, whose range is [-1, 1]"
