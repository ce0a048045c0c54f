"""Skip-layer guidance: away from the same network with some blocks skipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from methods.nets.skipping import skippable_blocks, skipped_blocks
from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings, ascending


class SkipLayerKnobs(Settings):
    """Strength, blocks and window of steps. Published for SD3.5 medium: blocks 7, 8 and 9."""

    weight: float = Field(2.8, ge=0, description="strength; 0 is CFG")
    blocks: Literal["middle"] | tuple[str, ...] = Field(
        "middle", description="blocks to skip: the middle one, or names such as dec.8x8_in1"
    )
    start: float = Field(0.01, ge=0, le=1, description="share of the steps before the window")
    stop: float = Field(0.2, ge=0, le=1, description="share of the steps at which it has ended")

    @field_validator("blocks", mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        listed = isinstance(value, str) and value.startswith("[")
        return json.loads(str(value)) if listed else value  # as rows hold it

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ascending("start and stop", self.start, self.stop)
        return self


@register_rule
class SkipLayer(Rule[SkipLayerKnobs]):
    """D_null + g (D_c - D_null) + k (D_c - D_skip), as in Stability AI's SD3.5 and in diffusers.

    D_skip is D_c with some residual blocks skipped. It acts in steps i of N with
    floor(start N) < i < floor(stop N), as in diffusers; with few steps the default window is
    empty. Which block is weak enough depends on the network: the published ones are of a
    transformer. If D_skip is D_null, it is CFG at g + k.
    """

    name = "skip-layer"
    summary = "CFG plus a step away from the network with skipped blocks, SLG"
    knobs_type = SkipLayerKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "weight": Between(0.2, 5.0, log=True),
        "stop": Between(0.2, 1.0),
    }

    def others(self) -> tuple[Branch, ...]:
        """The network with skipped blocks."""
        return ("blocks",)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The output, moved away from that with skipped blocks."""
        k, at = self.knobs, call.at
        if not int(k.start * at.steps) < at.step < int(k.stop * at.steps):
            return guided
        skipped = call.denoise(within=lambda net: skipped_blocks(net, self._names(net)))
        return guided + k.weight * (d_cond - skipped)

    def _names(self, module: nn.Module) -> tuple[str, ...]:
        if self.knobs.blocks != "middle":
            return self.knobs.blocks
        names = tuple(skippable_blocks(module))
        return names[len(names) // 2 :][:1]
