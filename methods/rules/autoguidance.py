"""Autoguidance: away from a weaker version of the network itself."""

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
    """What the weaker network is told."""

    labels: Labels = Field(
        "own", description="own: as published; null: none, the rule that CFG is if both are one"
    )


@register_rule
class Autoguidance(Rule[AutoguidanceKnobs]):
    """D_bad + g (D_c - D_bad), both conditional (Karras et al. 2024, arXiv 2406.02507).

    D_bad is a network of the same kind that is smaller and trained for less long, so that both err
    in the same way and it errs more.
    """

    name = "autoguidance"
    summary = "away from a weaker network with the same class (Karras 2024)"
    knobs_type = AutoguidanceKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"labels": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {}

    def branch(self) -> Branch:
        """The weaker network, whatever its labels."""
        return "weak"

    def reference(self, call: Call) -> Tensor:
        """D_bad (B, ...)."""
        return call.weak(reference_labels(call, self.knobs.labels))
