"""Independent condition guidance: the reference is the network's output for a random class."""

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
    """The source of the condition that is independent of the image."""

    source: Literal["class", "gaussian", "null"] = Field(
        "class", description="a random class, normal noise as labels, or the unconditional branch"
    )


@register_rule
class ICG(Rule[ICGKnobs]):
    """D_r + g (D_c - D_r), D_r = D(x; sigma, c_r), c_r independent of x (arXiv 2407.02687).

    Sadat et al. (2024): if c_r is independent of x, a network that was always trained with labels
    can serve as its own unconditional branch. All classes are equally likely, including the class
    of the sample. Noise has the mean and standard deviation of a one-hot label. c_r is drawn anew
    for each step and shared by both of its stages, which is our choice.

    The rule needs networks that follow x more than the label at low noise. The closed-form denoiser
    follows the label at all noise levels, and the rule drives it far away from the other class.
    """

    name = "icg"
    summary = "reference: the same network with a random class (Sadat 2024)"
    knobs_type = ICGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"source": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"source": OneOf(("class", "gaussian"))}

    def branch(self) -> Branch:
        """The same network, or the null branch for the neutral knob."""
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
