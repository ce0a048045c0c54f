"""Guidance rescaled to the contrast of the conditional output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule, spread
from methods.rules.registry import register_rule
from methods.rules.space import SpaceKnobs, back, into
from methods.spec import DataSpec

FLAT = 1e-6
"""A sample counts as flat if its standard deviation over its largest |value| is at most this."""


class RescaleKnobs(SpaceKnobs):
    """The strength of the rescaling."""

    phi: float = Field(0.7, ge=0, le=1, description="0 is CFG, 1 restores the contrast fully")


@register_rule
class Rescale(Rule[RescaleKnobs]):
    """phi D_g std(D_c) / std(D_g) + (1 - phi) D_g (arXiv 2305.08891).

    The standard deviations are over all pixels and channels of a sample. A flat D_g, whose standard
    deviation is rounding error, is not changed. Vectors are refused: the standard deviation of
    their coordinates, |x - y| / sqrt(2) for two, is not a contrast and may be 0. In another
    `space` the predictions there are rescaled, whose standard deviation is no contrast of images.
    """

    name = "rescale"
    summary = "CFG that keeps the contrast of D_c, for images (Lin 2023)"
    knobs_type = RescaleKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"phi": 0.0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"phi": Between(0.1, 1.0)}

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """The guided output with its standard deviation rescaled towards that of D_c."""
        space = self.knobs.space
        found = into(space, guided, call)
        have, want = found.flatten(1).std(1), into(space, d_cond, call).flatten(1).std(1)
        flat = have <= FLAT * found.flatten(1).abs().amax(1)
        ratio = torch.where(flat, 1.0, want / have)
        return back(space, found * spread(1.0 + self.knobs.phi * (ratio - 1.0), found), call)

    def unsuited(self, data: DataSpec) -> str | None:
        """Vectors have no contrast."""
        return None if data.is_image else "rescale needs images: vectors have no contrast"
