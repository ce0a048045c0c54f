"""Rules whose reference is the same network with changed self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field
from torch import Tensor

from methods.nets.attention import Layers, changed_attention
from methods.rules.base import Branch, Call, Rule
from methods.rules.draws import Labels, reference_labels
from methods.settings import Settings


class AttentionKnobs(Settings):
    """The layers with changed attention, and the labels of the reference."""

    layers: Layers = Field(
        "innermost", description="innermost, all, or names such as enc.16x16_block0; [] for none"
    )
    labels: Labels = Field("own", description="own: as published; null: no labels, as in CFG")


A = TypeVar("A", bound=AttentionKnobs)


class AttentionRule(Rule[A], Generic[A]):
    """D_a + g (D_c - D_a), where D_a is D_c with changed attention; papers write s = g - 1."""

    neutral: ClassVar[Mapping[str, Any]] = {"layers": (), "labels": "null"}

    def branch(self) -> Branch:
        """The same network with changed attention."""
        return "attention"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
        """The changed attention, (B, heads, H * W, channels per head), for images of `size`."""
        raise NotImplementedError

    def reference(self, call: Call) -> Tensor:
        """D_a (B, ...). Raises ValueError for a layer that the network does not have."""
        labels = reference_labels(call, self.knobs.labels)
        return call.denoise(
            labels, within=lambda net: changed_attention(net, self.knobs.layers, self.attend)
        )
