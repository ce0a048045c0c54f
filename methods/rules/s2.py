"""S^2 guidance: away from the same network with random blocks skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.nets.skipping import skippable_blocks, skipped_blocks
from methods.rng import derive_seed
from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings

EDGE = 0.1
"""Share of the blocks at either end that are never skipped, nor is the first block."""


class S2Knobs(Settings):
    """Strength, and the number of blocks."""

    weight: float = Field(0.25, ge=0, description="strength; 0 is CFG")
    share: float = Field(
        0.1, gt=0, le=1, description="share of the blocks that is skipped; published: .05 to .1"
    )


@register_rule
class S2(Rule[S2Knobs]):
    """D_null + g (D_c - D_null) + w (D_c - D_skip), other blocks at each step (arXiv 2508.12880).

    D_skip is D_c with at least one block skipped, drawn from the middle 80 % of the residual
    blocks. All samples of a step share the draw, as in the paper, and both stages of a Heun step.
    It depends on the sampling seed and the step only, so that batches do not matter.
    """

    name = "s2"
    summary = "CFG plus a step away from the network with random skipped blocks, S^2 (2025)"
    knobs_type = S2Knobs
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "weight": Between(0.05, 3.0, log=True),
        "share": Between(0.05, 0.4),
    }

    def others(self) -> tuple[Branch, ...]:
        """The network with skipped blocks."""
        return ("blocks",)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The output, moved away from that with skipped blocks."""
        seed = derive_seed(call.rng.seed, "s2", call.at.step)
        skipped = call.denoise(within=lambda net: skipped_blocks(net, self.drawn(net, seed)))
        return guided + self.knobs.weight * (d_cond - skipped)

    def drawn(self, module: nn.Module, seed: int) -> list[str]:
        """The names of the blocks that are skipped."""
        names = list(skippable_blocks(module))
        edge = round(EDGE * len(names))
        inner = names[max(1, edge) : len(names) - edge] or names[-1:]
        count = min(max(1, round(self.knobs.share * len(names))), len(inner))
        order = torch.randperm(len(inner), generator=torch.Generator().manual_seed(seed))
        return [inner[i] for i in order[:count]]
