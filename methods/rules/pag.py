"""Perturbed-attention guidance: attention limited to each position itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from methods.rules.attention import AttentionKnobs, AttentionRule
from methods.rules.base import Between, OneOf
from methods.rules.registry import register_rule


@register_rule
class PAG(AttentionRule[AttentionKnobs]):
    """D_id + g (D_c - D_id); D_id has identity attention maps (arXiv 2403.17377).

    Ahn et al. (2024) change the middle block of an ADM network at 256 pixels and three blocks of
    its encoder. "innermost" changes the middle block only.
    """

    name = "pag"
    summary = "reference: the same network with identity attention maps (Ahn 2024)"
    knobs_type = AttentionKnobs
    search: ClassVar[Mapping[str, Between | OneOf]] = {"layers": OneOf(("innermost", "all"))}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """The values `v`, unchanged."""
        return v
