"""The guidance rules that a sweep applies, with their knobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, explain, unknown
from bench.store import KnobsFrom
from bench.suite import Study
from methods.rules import RULES, Rule, make_rule


@dataclass(frozen=True)
class ChosenRule:
    """A rule with its settings, and where those come from."""

    rule: Rule[Any]
    knobs_from: KnobsFrom = "default"


def study_rules(study: Study) -> tuple[ChosenRule, ...]:
    """The rules of a study; UserError for one that does not exist, compose or have such knobs."""
    for name in study.knobs:
        if name not in RULES:
            raise unknown("guidance rule", name, RULES)
    rules: list[ChosenRule] = []
    for name in dict.fromkeys(study.rules):
        for part in name.split("+"):
            if part not in RULES:
                raise unknown("guidance rule", part, RULES)
        try:
            given = any(part in study.knobs for part in name.split("+"))
            rule = make_rule(name, study.knobs)
            rules.append(ChosenRule(rule, "suite" if given else "default"))
        except ValidationError as error:
            raise UserError(f"Rule {name!r}: {explain(error)}.", code=2) from None
        except ValueError as error:
            raise UserError(f"Rules do not compose as {name!r}: {error}.", code=2) from None
    return tuple(rules)
