"""The guidance rules that a sweep applies, with their knobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.experiment.rows import KnobsFrom
from bench.experiment.suite import Study, plus_free
from bench.system.errors import OF_PLUGIN, UserError, explain, unknown
from methods import Method
from methods.rules import CFG, RULES, Rule, make_rule, register_rule
from methods.rules.guiders import PREFIX, diffusers_guiders, diffusers_rule


@dataclass(frozen=True)
class ChosenRule:
    """A rule with its settings, and the origin of these."""

    rule: Rule[Any]
    knobs_from: KnobsFrom = "default"


def parse_rules(given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of rules from options such as "cfg,interval+apg"; only CFG if there are none."""
    names = tuple(str(plus_free(name.strip())) for text in given or () for name in text.split(","))
    if not all(part for name in names for part in name.split("+")):
        raise UserError(
            f"--rule takes names such as cfg or interval+apg, got {','.join(given or ())!r}.",
            code=2,
        )
    return names or (CFG.name,)


def parse_knobs(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`rule.knob=value` strings, values as JSON or else as text, to {rule: {knob: value}}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = str(plus_free(key.strip()))
        rule, dot, knob = key.partition(".")
        if not (equals and dot and rule and knob):
            raise UserError(
                f"--knob takes rule.knob=value, such as apg.eta=0.5, got {pair!r}.", code=2
            )
        try:
            found[key] = json.loads(text)
        except (ValueError, RecursionError):  # not JSON, nested too deeply, or a very long number
            found[key] = text
    return nested(found)


def study_rules(study: Study) -> tuple[ChosenRule, ...]:
    """The rules of a study; UserError for unknown rules or knobs, or rules that do not compose."""
    load_guiders(study.rules)
    for name in study.knobs:
        if name not in RULES:
            raise unknown("guidance rule", name, RULES, OF_PLUGIN)
        if not any(name in rule.split("+") for rule in study.rules):
            raise UserError(
                f"There are knobs for the rule {name!r}, and the rules are "
                f"{', '.join(study.rules)}: add it to them, or drop its knobs.",
                code=2,
            )
    rules: list[ChosenRule] = []
    for name in dict.fromkeys(study.rules):
        for part in name.split("+"):
            if part not in RULES:
                raise unknown("guidance rule", part, RULES, OF_PLUGIN)
            have = RULES[part].knobs_type.model_fields
            for knob in study.knobs.get(part, {}):
                if knob in have:
                    continue
                if not have:
                    raise UserError(f"Rule {part!r} has no knobs, got {knob!r}.", code=2)
                raise unknown(f"knob of {part}", knob, have)
        try:
            given = any(part in study.knobs for part in name.split("+"))
            rule = make_rule(name, study.knobs)
            rules.append(ChosenRule(rule, "suite" if given else "default"))
        except ValidationError as error:
            raise UserError(f"Rule {name!r}: {explain(error)}.", code=2) from None
        except ValueError as error:
            raise UserError(f"Rules do not compose as {name!r}: {error}.", code=2) from None
    return tuple(rules)


def no_rules(method: type[Method[Any]]) -> str | None:
    """None if a method takes guidance rules, or why not and what its author can do."""
    if method.takes_rules:
        return None
    if method.guidance == "none":
        return f"{method.name} takes no guidance"
    if method.guidance == "embedded":
        return f"{method.name} takes no rule, because its guidance is learnt in training"
    return (
        f"{method.name} takes no rule, because its sample has a loop of its own, for CFG only "
        "(takes_rules is False): to take all rules, derive it from methods.DenoiserMethod and "
        "implement `denoise` instead of `sample` and `nfe`"
    )


def ignored(method: str, rule: str) -> str:
    """What is wrong with a method that states `takes_rules` and does not apply a rule."""
    return (
        f"{method} did not apply the rule {rule}: it sets takes_rules = True, and its `sample` "
        "does not call methods.rules.trajectory.sample_guided with its guidance"
    )


def load_guiders(names: Iterable[str]) -> None:
    """Register the guiders of diffusers among the rules `names`.

    UserError if one is unknown or no rule, or without diffusers.
    """
    for part in (part for name in names for part in name.split("+")):
        if not part.startswith(PREFIX) or part in RULES:
            continue
        try:
            register_rule(diffusers_rule(part))
        except ImportError:
            raise UserError(
                f"The rule {part} needs diffusers: pip install 'guidance-bench[diffusers]'.", code=2
            ) from None
        except KeyError:
            have = diffusers_guiders()
            raise unknown("guider of diffusers", part.removeprefix(PREFIX), have) from None
        except ValueError as error:
            raise UserError(f"{part} cannot be a rule: {error}.", code=2) from None


def nested(knobs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"rule.knob": value} as {rule: {knob: value}}."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in knobs.items():
        rule, _, knob = key.partition(".")
        found.setdefault(rule, {})[knob] = value
    return found
