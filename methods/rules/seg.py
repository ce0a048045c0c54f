"""Smoothed-energy guidance: attention with blurred queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from methods.rules.attention import AttentionKnobs, AttentionRule
from methods.rules.base import Between, OneOf
from methods.rules.registry import register_rule


class SEGKnobs(AttentionKnobs):
    """The layers with blurred queries, and the width of the blur."""

    blur: NonNegativeFloat | Literal["mean"] = Field(
        "mean", description="sigma of the blur in positions; mean: infinite; 0: no blur"
    )


def blur_queries(q: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Blur queries (B, heads, H * W, C) with a Gaussian on the grid `size`, renormalised at edges.

    With infinite sigma this is the mean query. Renormalising works for grids narrower than the
    kernel; reflection padding does not.
    """
    if sigma == 0:
        return q
    grid = q.reshape(*q.shape[:2], *size, q.shape[-1])
    for axis, length in zip((2, 3), size, strict=True):
        place = torch.arange(length, device=q.device, dtype=torch.float32)
        weights = (-((place[:, None] - place) ** 2) / (2 * sigma**2)).softmax(1).to(q.dtype)
        grid = torch.tensordot(weights, grid, ([1], [axis])).movedim(0, axis)
    return grid.flatten(2, 3)


@register_rule
class SEG(AttentionRule[SEGKnobs]):
    """D_b + g (D_c - D_b); D_b has Gaussian-blurred queries (Hong 2024, arXiv 2408.00760).

    Attention is a gradient step on an energy, and the blur smooths that energy. With infinite sigma
    every position has the same query, the mean.
    """

    name = "seg"
    summary = "reference: the same network with blurred attention queries (Hong 2024)"
    knobs_type = SEGKnobs
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "layers": OneOf(("innermost", "all")),
        "blur": OneOf((1.0, 2.0, "mean")),
    }

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """Softmax attention with the blurred queries."""
        sigma = math.inf if self.knobs.blur == "mean" else self.knobs.blur
        return F.scaled_dot_product_attention(blur_queries(q, size, sigma), k, v)
