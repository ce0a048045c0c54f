"""Several rules at once, such as "interval+apg"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from methods.rules.base import Branch, Call, NoKnobs, Point, Rule, Weight
from methods.spec import DataSpec

SOLE = ("reference", "combine", "renoise")
"""Hooks that only one rule of a composition may have of its own."""


class Composite(Rule[NoKnobs]):
    """Rules in their order: scales, labels and corrections pass from one to the next.

    ValueError if two of them replace the same thing, such as the reference branch.
    """

    summary = "several rules at once"

    def __init__(self, rules: Sequence[Rule[Any]]) -> None:
        super().__init__()
        self.rules = tuple(rules)
        self.name = "+".join(rule.name for rule in self.rules)  # type: ignore[misc]
        self.first_order = any(r.first_order for r in self.rules)  # type: ignore[misc]
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name} names a rule twice")
        plain: Rule[Any] = Rule()
        self._sole: dict[str, Rule[Any]] = dict.fromkeys(SOLE, plain)
        for hook in SOLE:
            owners = [r for r in self.rules if getattr(type(r), hook) is not getattr(Rule, hook)]
            if len(owners) > 1:
                both = " and ".join(rule.name for rule in owners)
                raise ValueError(f"{both} do not compose: each has its own {hook} step")
            if owners:
                self._sole[hook] = owners[0]

    def scale(self, g: float, at: Point) -> float:
        """Each rule's, of the one before."""
        for rule in self.rules:
            g = rule.scale(g, at)
        return g

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """Each rule's, of the one before."""
        for rule in self.rules:
            labels = rule.condition(labels, call)
        return labels

    def branch(self) -> Branch:
        """Of the rule that has a reference of its own."""
        return self._sole["reference"].branch()

    def reference(self, call: Call) -> Tensor:
        """Of the rule that has one of its own."""
        return self._sole["reference"].reference(call)

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """Each rule's, of the one before."""
        for rule in self.rules:
            g = rule.weigh(g, d_cond, d_ref, call)
        return g

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """Of the rule that has one of its own."""
        return self._sole["combine"].combine(d_cond, d_ref, g, call)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """Each rule's, of the one before."""
        for rule in self.rules:
            guided = rule.finish(guided, d_cond, call)
        return guided

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """Of the rule that has one of its own."""
        return self._sole["renoise"].renoise(guided, d_cond, d_ref, call)

    def after_step(self, x: Tensor, x_next: Tensor, call: Call) -> None:
        """Each rule's."""
        for rule in self.rules:
            rule.after_step(x, x_next, call)

    def unsuited(self, data: DataSpec) -> str | None:
        """Of the first rule that has a reason."""
        return next((why for rule in self.rules if (why := rule.unsuited(data))), None)

    def settings(self) -> dict[str, Any]:
        """Those of all rules."""
        return {k: v for rule in self.rules for k, v in rule.settings().items()}

    def parts(self) -> tuple[Rule[Any], ...]:
        """The rules themselves."""
        return self.rules
