"""Independent condition guidance: away from the network's output for a class drawn at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.draws import once_a_step
from methods.rules.registry import register_rule
from methods.settings import Settings


class ICGKnobs(Settings):
    """Where the condition that has nothing to do with the image comes from."""

    source: Literal["class", "gaussian", "null"] = Field(
        "class", description="a random class, normal noise as labels, or the unconditional branch"
    )


@register_rule
class ICG(Rule[ICGKnobs]):
    """D_r + g (D_c - D_r), D_r = D(x; sigma, c_r), c_r independent of x (arXiv 2407.02687).

    Sadat et al. (2024): if c_r says nothing about x, a network that was trained with labels always
    serves as its own unconditional branch. All classes are equally likely, that of the sample too;
    noise has the mean and the deviation of a one-hot label. Ours: drawn anew each step and the same
    for both of its stages.

    It asks for networks that follow x more than the label at low noise. A denoiser that obeys the
    label to the end, as the closed form does, is driven away from another class until the last
    step, and by far.
    """

    name = "icg"
    summary = "away from the same network with a random class (Sadat 2024)"
    knobs_type = ICGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"source": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"source": OneOf(("class", "gaussian"))}

    def branch(self) -> Branch:
        """The network itself, but for the neutral knob."""
        return "null" if self.knobs.source == "null" else "main"

    def reference(self, call: Call) -> Tensor:
        """D_r (B, ...)."""
        if self.knobs.source == "null":
            return call.null()
        return call.denoise(once_a_step(call, self.name, lambda: self._draw(call)))

    def _draw(self, call: Call) -> Tensor:
        classes = call.labels.shape[1]
        if self.knobs.source == "gaussian":
            noise = call.rng.randn((classes,), call.labels.device)
            return ((noise * math.sqrt(classes - 1) + 1) / classes).to(call.labels)
        drawn = call.rng.rand((), call.labels.device).double() * classes
        return F.one_hot(drawn.long(), classes).to(call.labels)
