"""What a rule asks of a method: the branches that it evaluates, their cost, and the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.guidance import Guidance
from methods.rules.base import Branch, Rule
from methods.samplers import Sampler


def weighted(counts: Mapping[Branch, float], costs: Mapping[Branch, float]) -> float:
    """The weighted sum of `evaluations`; a branch that is not in `costs` has weight 1."""
    return sum(count * costs.get(branch, 1.0) for branch, count in counts.items())


def cannot_follow(rule: Rule[Any], guidance: Guidance, sampler: Sampler) -> str | None:
    """None if the rule's steps can be those of the sampler, otherwise the reason."""
    if guidance.acts and rule.first_order and sampler.solver in ("dpmpp-2m", "sde"):
        return f"{rule.name} takes its own first-order steps, so it cannot follow {sampler.solver}"
    return None


def needs(guidance: Guidance) -> tuple[Branch, ...]:
    """The branches that the rule evaluates besides D_c at this scale."""
    if not guidance.acts:
        return ()
    rule = guidance.rule
    return rule.others() if guidance.is_off else (rule.branch(), *rule.others())
