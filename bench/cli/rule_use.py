"""What rules there are to use, and which of those asked for nothing uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from methods.rules import CFG, Rule

if TYPE_CHECKING:
    from bench.sweep.plan import Sweep


def rule_knobs(rule: type[Rule[Any]]) -> str:
    """The knobs of a rule with their defaults: "eta=0.5, momentum=0"; '' if it has none."""
    found = []
    for name, field in rule.knobs_type.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        value = f"{default:.6g}" if isinstance(default, float) else f"{default}"
        found.append(name if field.is_required() else f"{name}={value}")
    return ", ".join(found)


def unused_rules(sweeps: Sequence[Sweep]) -> list[str]:
    """A sentence for each rule that was asked for and that no cell of the sweeps samples with."""
    asked = dict.fromkeys(r for s in sweeps for r in s.study.rules if r != CFG.name)
    cells = [cell for s in sweeps for cell in s.cells if not cell.guidance.is_off]
    used = {cell.rule for cell in cells if not cell.skip}
    lines = []
    for rule in asked:
        if rule in used or not cells:
            continue
        reasons = list(dict.fromkeys(c.skip for c in cells if c.rule == rule))
        why = "; ".join(reasons) or (
            "only methods that are guided at sampling take one, and none of these runs is of such "
            "a method"
        )
        lines.append(f"No run uses the rule {rule}: {why}.")
    return lines
