"""What tuned knobs are true of, and where a sweep finds those that still are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from bench.experiment.identity import code_hash, digest, module_hash
from bench.experiment.place import Experiment
from bench.experiment.rules import ChosenRule, nested, study_rules
from bench.experiment.suite import Study
from bench.system.errors import UserError
from bench.system.progress import Say
from bench.training.run import Run
from bench.tuning.space import Space
from bench.tuning.store import Tuned, read_result, result_path
from methods.rules import Rule, make_rule


def subject_of(found: Run, rule: Rule[Any]) -> dict[str, str]:
    """Hashes of all that decides samples beside knobs, scale, steps and seed."""
    branch = rule.branch()
    return {
        "method": found.card.method,
        "code of the method": code_hash(type(found.method)),
        "settings": digest(found.card.config),
        "data": found.card.data_hash,
        "checkpoint": found.checkpoint,
        "null checkpoint": found.extra_checkpoint("null") if branch == "null" else "",
        "weak checkpoint": found.extra_checkpoint("weak") if branch == "weak" else "",
        "code of the rule": digest(
            {part.name: module_hash(type(part).__module__) for part in rule.parts()}
        ),
    }


def rules_for(study: Study, found: Run, experiment: Experiment, say: Say) -> Sequence[ChosenRule]:
    """The rules of a study for one of its runs, tuned where the study asks for that.

    `say` gets a sentence for each that stays untuned.
    """
    chosen = study_rules(study)
    if not study.tuned or not found.method.takes_rules:
        return chosen
    rules, untuned = tuned_rules(chosen, found, experiment)
    for line in untuned:
        say(line)
    return rules


def tuned_rules(
    chosen: Sequence[ChosenRule], found: Run, experiment: Experiment
) -> tuple[list[ChosenRule], list[str]]:
    """The rules with their tuned knobs where there are valid ones, and a sentence for each other.

    Knobs that the user has given stay; of rules without a search space nothing is said.
    """
    rules, untuned = [], []
    for choice in chosen:
        if choice.knobs_from != "default" or not Space(choice.rule).axes:
            rules.append(choice)
            continue
        rule, reason = _look_up(choice.rule, found, experiment)
        rules.append(choice if rule is None else ChosenRule(rule, "tuned"))
        if rule is None:
            untuned.append(f"{found.card.name}: rule {choice.rule.name} runs untuned, {reason}.")
    return rules, untuned


def _look_up(rule: Rule[Any], found: Run, experiment: Experiment) -> tuple[Rule[Any] | None, str]:
    path = result_path(experiment.tuned, found.card.name, rule.name)
    if not path.exists():
        return None, "since bench tune has not finished for it"
    try:
        result = read_result(path)
    except UserError as error:
        return None, f"since its result cannot be used: {str(error).rstrip('.')}"
    changed = differences(result, subject_of(found, rule))
    if changed:
        return None, f"since it was tuned before these changed: {', '.join(changed)}"
    try:
        return make_rule(rule.name, nested(result.knobs)), ""
    except ValidationError:
        return None, f"since it does not take the knobs in {path}"


def differences(result: Tuned, subject: dict[str, str]) -> list[str]:
    """What has changed since a result was found."""
    return [name for name, value in subject.items() if result.subject.get(name) != value]
