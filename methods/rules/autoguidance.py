"""Autoguidance: the reference is a weaker version of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.draws import Labels, reference_labels
from methods.rules.registry import register_rule
from methods.settings import Settings


class AutoguidanceKnobs(Settings):
    """The labels of the weaker network."""

    labels: Labels = Field(
        "own", description="own: as published; null: no labels (CFG if both networks are equal)"
    )


@register_rule
class Autoguidance(Rule[AutoguidanceKnobs]):
    """D_bad + g (D_c - D_bad), both conditional (Karras et al. 2024, arXiv 2406.02507).

    D_bad is a smaller network of the same kind that was trained for a shorter time. It makes the
    same errors as the network, but larger ones.
    """

    name = "autoguidance"
    summary = "reference: a weaker network with the same class (Karras 2024)"
    knobs_type = AutoguidanceKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"labels": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {}

    def branch(self) -> Branch:
        """The weaker network."""
        return "weak"

    def reference(self, call: Call) -> Tensor:
        """D_bad (B, ...)."""
        return call.weak(reference_labels(call, self.knobs.labels))
