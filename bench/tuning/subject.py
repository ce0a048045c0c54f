"""What tuned knobs depend on, and how a sweep finds those that are still valid."""

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
from bench.tuning.store import read_result, result_path
from methods.rules import Rule, make_rule


def subject_of(run: Run, rule: Rule[Any]) -> dict[str, str]:
    """Hashes of all that the samples depend on besides knobs, scale, steps and seed."""
    branches = (rule.branch(), *rule.others())
    decoder = {"decoder": run.decoder_hash} if run.decoder_hash else {}
    return decoder | {
        "method": run.card.method,
        "code of the method": code_hash(type(run.method)),
        "settings": digest(run.card.config),
        "data": run.card.data_hash,
        "checkpoint": run.checkpoint,
        "null checkpoint": run.extra_checkpoint("null") if "null" in branches else "",
        "weak checkpoint": run.extra_checkpoint("weak") if "weak" in branches else "",
        "code of the rule": digest(
            {part.name: module_hash(type(part).__module__) for part in rule.parts()}
        ),
    }


def rules_for(study: Study, run: Run, experiment: Experiment, say: Say) -> Sequence[ChosenRule]:
    """The rules of a study for one of its runs, tuned where the study asks for that.

    Knobs that the user gave are unchanged. `say` gets a message for each rule that has a search
    space and no valid result.
    """
    chosen = study_rules(study)
    if not study.tuned or not run.method.takes_rules:
        return chosen
    rules = []
    for choice in chosen:
        if choice.knobs_from == "default" and Space(choice.rule).axes:
            rule, reason = _look_up(choice.rule, run, experiment)
            if rule is None:
                say(f"{run.name}: rule {choice.rule.name} runs untuned, {reason}.")
            else:
                choice = ChosenRule(rule, "tuned")
        rules.append(choice)
    return rules


def _look_up(rule: Rule[Any], run: Run, experiment: Experiment) -> tuple[Rule[Any] | None, str]:
    path = result_path(experiment.tuned, run.name, rule.name)
    if not path.exists():
        return None, "since bench tune has not finished for it"
    try:
        result = read_result(path)
    except UserError as error:
        return None, f"since its result cannot be used: {str(error).rstrip('.')}"
    subject = subject_of(run, rule)
    changed = [name for name, value in subject.items() if result.subject.get(name) != value]
    if changed:
        return None, f"since it was tuned before these changed: {', '.join(changed)}"
    try:
        return make_rule(rule.name, nested(result.knobs)), ""
    except ValidationError:
        return None, f"since it does not take the knobs in {path}"
