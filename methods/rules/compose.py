"""Several rules at once, such as "interval+apg"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from methods.rules.base import Branch, Call, NoKnobs, Point, Rule, Weight
from methods.spec import DataSpec

if TYPE_CHECKING:
    from methods.rules.trajectory import Trajectory

SOLE = ("reference", "combine", "renoise", "step", "resample", "run")
"""Hooks that at most one rule of a composition may override."""


class Composite(Rule[NoKnobs]):
    """Several rules in order: scales, labels and corrections pass from one rule to the next.

    Raises ValueError if two of them override the same part, such as the reference branch.
    """

    summary = "several rules combined"

    def __init__(self, rules: Sequence[Rule[Any]]) -> None:
        super().__init__()
        self.rules = tuple(rules)
        self.name = "+".join(rule.name for rule in self.rules)  # type: ignore[misc]
        for flag in ("first_order", "free", "data_dependent"):
            setattr(self, flag, any(getattr(rule, flag) for rule in self.rules))
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

    @property
    def particles(self) -> int:
        """Those of the rule that has several."""
        return max(rule.particles for rule in self.rules)

    def scale(self, g: float, at: Point) -> float:
        """Apply the scales of all rules in order."""
        for rule in self.rules:
            g = rule.scale(g, at)
        return g

    def condition(self, labels: Tensor, call: Call) -> Tensor:
        """Apply the conditions of all rules in order."""
        for rule in self.rules:
            labels = rule.condition(labels, call)
        return labels

    def branch(self) -> Branch:
        """The branch of the rule that overrides `reference`."""
        return self._sole["reference"].branch()

    def others(self) -> tuple[Branch, ...]:
        """The further branches of all rules."""
        return tuple(branch for rule in self.rules for branch in rule.others())

    def reference(self, call: Call) -> Tensor:
        """The reference of the rule that overrides it."""
        return self._sole["reference"].reference(call)

    def weigh(self, g: Weight, d_cond: Tensor, d_ref: Tensor, call: Call) -> Weight:
        """Apply the weights of all rules in order."""
        for rule in self.rules:
            g = rule.weigh(g, d_cond, d_ref, call)
        return g

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The combination of the rule that overrides it."""
        return self._sole["combine"].combine(d_cond, d_ref, g, call)

    def finish(self, guided: Tensor, d_cond: Tensor, call: Call) -> Tensor:
        """Apply the corrections of all rules in order."""
        for rule in self.rules:
            guided = rule.finish(guided, d_cond, call)
        return guided

    def renoise(self, guided: Tensor, d_cond: Tensor, d_ref: Tensor, call: Call) -> Tensor:
        """The noise source of the rule that overrides it."""
        return self._sole["renoise"].renoise(guided, d_cond, d_ref, call)

    def step(self, call: Call) -> Tensor:
        """The step of the rule that overrides it."""
        return self._sole["step"].step(call)

    def resample(self, x: Tensor, call: Call) -> Tensor | None:
        """The weights of the rule that has particles."""
        return self._sole["resample"].resample(x, call)

    def run(self, trajectory: Trajectory, x: Tensor) -> Tensor:
        """The trajectory of the rule that overrides it."""
        return self._sole["run"].run(trajectory, x)

    def after_step(self, x: Tensor, x_next: Tensor, call: Call) -> None:
        """Call `after_step` of all rules."""
        for rule in self.rules:
            rule.after_step(x, x_next, call)

    def unsuited(self, data: DataSpec) -> str | None:
        """The first reason that any of the rules has."""
        return next((why for rule in self.rules if (why := rule.unsuited(data))), None)

    def settings(self) -> dict[str, Any]:
        """The settings of all rules."""
        return {k: v for rule in self.rules for k, v in rule.settings().items()}

    def parts(self) -> tuple[Rule[Any], ...]:
        """The composed rules."""
        return self.rules
