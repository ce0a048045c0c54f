"""Sliding-window guidance: the reference sees only crops of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.draws import Labels, reference_labels
from methods.rules.registry import register_rule
from methods.settings import Settings
from methods.spec import DataSpec

DIVISOR = 8
"""Crops have sides of a multiple of this, or of a quarter of the image, as U-Nets halve them."""


class SWGKnobs(Settings):
    """The crops. Published: 2 x 2 crops of 40 of 64 pixels, at g = 1.2."""

    crop: float = Field(0.625, gt=0, le=1, description="side of a crop over that of the image")
    count: int = Field(2, ge=2, le=64, description="crops per side of the image")
    masked: bool = Field(True, description="guide only where crops overlap, as published")
    labels: Labels = Field("own", description="own: as published; null: no labels, as in CFG")


@register_rule
class SlidingWindow(Rule[SWGKnobs]):
    """D_w + g (D_c - D_w), D_w the mean of D_c on overlapping crops (arXiv 2411.10257).

    `count` x `count` crops of x with equal distances are denoised, and outputs that overlap are
    averaged. With `masked` (M-SWG) pixels in a single crop keep D_c. Sides are rounded up to a
    multiple of 8 pixels, or of a quarter of smaller images. Costs are counted by area. If every
    pixel were denoised alone, the rule would not guide.
    """

    name = "sliding-window"
    summary = "reference: the same network on overlapping crops, for images, SWG (2024)"
    knobs_type = SWGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"crop": 1.0, "masked": False, "labels": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"crop": Between(0.5, 0.9)}

    def branch(self) -> Branch:
        """The same network."""
        return "main"

    def windows(self, length: int) -> list[slice]:
        """The crops along a side of an image."""
        unit = max(1, min(DIVISOR, length // 4))
        side = min(length, unit * math.ceil(self.knobs.crop * length / unit))
        stride = (length - side) // (self.knobs.count - 1)
        starts = dict.fromkeys(i * stride for i in range(self.knobs.count))
        return [slice(start, start + side) for start in starts]

    def reference(self, call: Call) -> Tensor:
        """D_w (B, C, H, W)."""
        assert call.cond is not None
        labels = reference_labels(call, self.knobs.labels)
        total, cover = torch.zeros_like(call.x), torch.zeros_like(call.x)
        for rows, columns in product(*map(self.windows, call.x.shape[-2:])):
            crop = call.to(call.x[..., rows, columns])
            total[..., rows, columns] += crop.denoise(labels)
            cover[..., rows, columns] += 1
        seen = cover > (1 if self.knobs.masked else 0)
        return torch.where(seen, total / cover.clamp_min(1), call.cond)

    def unsuited(self, data: DataSpec) -> str | None:
        """Vectors have no crops."""
        return None if data.is_image else "sliding-window needs images: vectors have no crops"
